"""Files as people have them: whatever is wrong in a row is said, and the rows around it are read all the same."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from mailprefs import rows
from mailprefs.errors import Misconfigured, Unreadable
from mailprefs.rows import Rejects, Row


def parsed(content: str | bytes, tmp_path: Path, name: str = "in.csv") -> list[Row]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with rows.opened(path) as text:
        return list(rows.read(text, ndjson="ndjson" in name)[1])


def sound(found: list[Row]) -> list[str]:
    return [row.fields["address"] for row in found if not row.wrong]


def wrong(found: list[Row]) -> dict[int, str]:
    return {row.number: row.wrong for row in found if row.wrong}


def test_a_byte_order_mark_and_every_line_ending_are_read(tmp_path: Path) -> None:
    for ending in ("\n", "\r\n", "\r"):
        content = "\ufeffaddress,locale" + ending + 'a@example.com,"en"' + ending + '"b@example.com",' + ending
        found = parsed(content, tmp_path)
        assert [dict(row.fields) for row in found] == [
            {"address": "a@example.com", "locale": "en"},
            {"address": "b@example.com", "locale": ""},
        ]
        assert wrong(found) == {}


def test_quoted_commas_quotes_and_line_breaks_are_part_of_a_field(tmp_path: Path) -> None:
    found = parsed('address,notice\na@example.com,"Yes, ""please""\nand thanks"\nb@example.com,\n', tmp_path)
    assert found[0].fields["notice"] == 'Yes, "please"\nand thanks'
    assert sound(found) == ["a@example.com", "b@example.com"]


@pytest.mark.parametrize(
    "header",
    ["", "\n", "mail,locale\n", "Address\n", "address,address\n", "address,locale,locale\n", '"address\n', "\0\n"],
)
def test_a_file_whose_first_line_names_no_address_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(Unreadable, match="first line"):
        parsed(header + "a@example.com,en\n", tmp_path)


def test_a_file_that_is_empty_but_for_its_header_has_no_rows(tmp_path: Path) -> None:
    assert parsed("address\n", tmp_path) == []
    assert parsed("", tmp_path, "in.ndjson") == []
    assert parsed("\n \n", tmp_path, "in.ndjson") == []


def test_a_row_of_another_length_is_refused_and_the_next_is_read(tmp_path: Path) -> None:
    found = parsed("address,locale\na@example.com\nb@example.com,en,x,y\n\nc@example.com,en\n", tmp_path)
    assert wrong(found) == {1: "1 fields where the header names 2", 2: "4 fields where the header names 2"}
    assert [row.number for row in found if not row.wrong] == [4], "an empty line is no row, but it is counted: rows keep their place"


def test_what_is_not_utf_8_or_holds_a_nul_is_refused_and_the_next_is_read(tmp_path: Path) -> None:
    content = b"address,locale\nj\xe9rome@example.com,fr\nnul\0@example.com,en\nj\xc3\xa9rome@example.com,fr\na@example.com,\xff\n"
    found = parsed(content, tmp_path)
    assert wrong(found).keys() == {1, 2, 4}
    assert sound(found) == ["jérome@example.com"]


@pytest.mark.parametrize(
    ("bad", "refused"),
    [
        ('b@example.com,newsletter,"ticket 7', 1),  # never closed: the end of the file would be its field
        ('"b@example.com,newsletter,ticket 7', 1),
        ('b@example.com,"news"letter,ticket 7', 1),
        ('b@example.com,newsletter,"a\n"b', 2),
        ('b@example.com,newsletter,"' + "x" * rows.LONGEST, 1),
        ("b@example.com,newsletter," + "x" * (rows.LONGEST + 1), 1),
    ],
    ids=["last", "first", "inside", "twice", "unclosed and long", "long"],
)
def test_a_quote_that_does_not_match_swallows_no_other_row(tmp_path: Path, bad: str, refused: int) -> None:
    below = "".join(f"p{n}@example.com,newsletter,t{n}\n" for n in range(5_000))
    found = parsed(f'address,scope,evidence\na@example.com,newsletter,t\n{bad}\n{below}z@example.com,newsletter,"t"\n', tmp_path)
    assert sound(found) == ["a@example.com", *(f"p{n}@example.com" for n in range(5_000)), "z@example.com"]
    assert list(wrong(found)) == list(range(2, 2 + refused))
    assert [row.number for row in found] == list(range(1, len(found) + 1))


def test_the_control_the_plain_reader_loses_rows_to_a_quote() -> None:
    content = 'address,evidence\na@example.com,"t\nb@example.com,t\nc@example.com,t\n'
    assert len(list(csv.reader(io.StringIO(content)))) == 2, "a header and one row: two people's rows are gone without a word"


def peak(read: Callable[[], object]) -> int:
    """Return how many bytes are held at most while something is read."""
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.ndjson.gz", '{"address": "a@example.org"}\n{"address": "%s"}\n{"address": "z@example.org"}\n'),
        ("in.csv.gz", 'address,b\na@example.org,b\n"%s\nz@example.org,b\n'),
    ],
)
def test_a_line_that_goes_on_and_on_is_refused_and_never_held(tmp_path: Path, name: str, content: str) -> None:
    archive = gzip.compress((content % ("x" * 16 * rows.WIDEST)).encode(), 1)
    found: list[Row] = []
    held = peak(lambda: found.extend(parsed(archive, tmp_path, name)))
    assert sound(found) == ["a@example.org", "z@example.org"]
    assert "longer than a row may be" in wrong(found)[2]
    assert held < 8 * rows.WIDEST < peak(lambda: gzip.decompress(archive)), "the control: unpacked whole, it takes more"


@given(st.lists(st.text(alphabet='ab,"\n\r@', max_size=12), max_size=12))
def test_no_line_is_lost_whatever_stands_in_it(lines: list[str]) -> None:
    content = "address,b\n" + "".join(f"{line}\n" for line in lines)
    found = list(rows.read(io.StringIO(content, newline=""))[1])
    came = "".join("".join(row.came) for row in found)
    for letter in "ab@":
        assert came.count(letter) == "".join(lines).count(letter)


def test_every_quote_open_costs_no_more_than_its_lines(tmp_path: Path) -> None:
    found = parsed("address,b\n" + 'a",",b\n' * 20_000, tmp_path)  # each line leaves a quote open that the next does not close
    assert len(found) == 20_000
    assert all(row.wrong for row in found)


@pytest.mark.parametrize("name", ["in.csv.gz", "in.ndjson.gz"])
def test_an_archive_that_breaks_off_keeps_the_rows_before(tmp_path: Path, name: str) -> None:
    shuffled = random.Random(7)
    people = [f"{shuffled.getrandbits(64):x}@example.com" for _ in range(5_000)]
    head, line = ("", '{{"address": "{}"}}\n') if "ndjson" in name else ("address\n", "{}\n")
    content = (head + "".join(line.format(each) for each in people)).encode()
    whole = gzip.compress(content)
    assert sound(parsed(whole, tmp_path, name)) == people, "the control: whole, it is read to its end"
    torn, spoilt = whole[: len(whole) // 2], bytearray(whole)
    spoilt[len(whole) // 2 : len(whole) // 2 + 40] = b"\xff" * 40
    packing = zlib.compressobj(wbits=31)  # as gzip
    half = packing.compress(content[: len(content) // 2]) + packing.flush(zlib.Z_SYNC_FLUSH)
    for broken in (torn, bytes(spoilt), half + b"\xff" * 40):  # ends early; does not add up; goes on with what is no block at all
        found = parsed(broken, tmp_path, name)
        assert found[-1].wrong == "the file breaks off here"
        kept = sound(found)
        assert 0 < len(kept) < len(people)
        assert kept[: len(kept) // 2] == people[: len(kept) // 2]


@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz", "in.csv.zst"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
def test_what_is_packed_says_so_by_its_first_bytes_whatever_it_is_called(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    assert sound(parsed(pack(b"address\njane@example.org\n"), tmp_path, name)) == ["jane@example.org"]


@pytest.mark.parametrize(
    "content", [gzip.compress(b"address\n" * 99, mtime=0)[:12], zstd.compress(b"address\n" * 99)[:9], b""], ids=["gzip", "zstd", "empty"]
)
def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Unreadable, match=r"cannot be unpacked|the file is empty"):
        parsed(content, tmp_path, "in.csv.gz")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"address;locale\na@example.com;de\n", "separated by semicolons"),
        ("\ufeffAddress\tLocale\n".encode(), "separated by tabs"),
        ("address,locale\na@example.com,de\n".encode("utf-16"), "UTF-16"),
        ("address,locale\na@example.com,de\n".encode("utf-16-be"), "UTF-16"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00", "spreadsheet .* no CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old spreadsheet"),
        (zstd.compress(gzip.compress(b"address\n", mtime=0)), "packed twice"),
        (b"", "the file is empty"),
        (b"address,address\n", "a column twice: the column 2 "),
        (b"locale, Address\n", "says ' Address': write 'address'"),
        (b"a@example.com\nb@example.com\n", "the first line must name the columns"),
        (b"PAR1\x15\x04", "it is Parquet"),
    ],
)
def test_a_file_that_is_no_such_csv_is_told_what_it_is_and_what_to_do(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        parsed(content, tmp_path, "in.csv")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"gone\.csv cannot be read: No such file"), rows.opened(tmp_path / "gone.csv"):
        raise AssertionError("nothing was opened")
    with pytest.raises(Unreadable, match="directory"), rows.opened(tmp_path):
        raise AssertionError("nothing was opened")


def test_objects_are_read_line_by_line_and_the_odd_ones_refused(tmp_path: Path) -> None:
    lines = [
        '\ufeff{"address": "a@example.com", "locale": "en", "more": {"kept": ["out"]}}',
        "",
        "no JSON",
        '["a@example.com"]',
        '"a@example.com"',
        '{"locale": "en"}',
        '{"address": null}',
        '{"address": "nul\\u0000@example.com"}',
        '{"address": "half\\ud800@example.com"}',
        "[" * 100_000,
        '{"address": "b@example.com", "party": 42, "at": null, "vip": true}\r',
        "1" * 5_000,
        '{"address": "c@example.com"}',
    ]
    found = parsed("\n".join(lines), tmp_path, "in.ndjson")
    assert sound(found) == ["a@example.com", "b@example.com", "c@example.com"]
    assert wrong(found).keys() == {3, 4, 5, 6, 7, 8, 9, 10, 12}
    said = {"address": "b@example.com", "party": "42", "at": "", "vip": "true"}
    assert dict(found[-3].fields) == said, "neither a number nor null is a reason to lose a column"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("jane@example.org", "jane@example.org"),
        ("Jane Doe <jane@example.org>", "jane@example.org"),
        ('"Doe, Jane" < jane@example.org >', "jane@example.org"),
        ("<jane@example.org>", "jane@example.org"),
        ("'JANE@example.org' <jane@example.org>", "jane@example.org"),
        ("Jane <+12025550123>", "+12025550123"),
        ('"odd@local"@example.org', '"odd@local"@example.org'),
        ("not an address @ all", "not an address @ all"),
    ],
)
def test_an_address_beside_its_name_is_the_address_alone(written: str, meant: str) -> None:
    assert rows.address_of(Row(1, {"address": written})) == meant


@pytest.mark.parametrize(
    "written",
    [
        "kim@example.org <jane@example.org>",
        "jane@example.org, kim@example.org",
        "jane@example.org;kim@example.org",
        "Jane <jane@example.org>, Kim <kim@example.org>",
        "Jane <jane@example.org",
        "Jane jane@example.org>",
        "Jane <>",
        "<>",
    ],
)
def test_what_could_be_the_address_of_two_people_is_refused(written: str) -> None:
    with pytest.raises(Unreadable, match="address") as refused:
        rows.address_of(Row(1, {"address": written}))
    assert "example.org" not in str(refused.value)


def test_the_rejects_are_the_rows_as_they_came_with_number_and_reason(tmp_path: Path) -> None:
    content = b'address,locale\na@example.com\n"b, b"@x,en\nc@example.com,en,x,"y,\xff"\nd@example.com,en\n'
    path = tmp_path / "out.csv"
    columns = ["address", "locale"]
    with Rejects(path, rows.refused_head(columns)) as refused:
        for row in parsed(content, tmp_path):
            if row.wrong:
                refused.add(rows.refused(row, row.wrong, columns))
    assert refused.count == 3
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["address", "locale", "row", "reason"]
    assert found == [
        ["a@example.com", "", "1", "1 fields where the header names 2"],
        ['"b, b"@x,en', "", "2", "no CSV: its quotes do not match"],
        ["c@example.com", "en", "3", "4 fields where the header names 2", "x", "y,\udcff"],
    ]


def test_rejected_objects_come_back_as_objects(tmp_path: Path) -> None:
    content = b'{"address": "x", "party": 42, "more": [1]}\nno JSON\n{"address": "\\ud800 \xff"}\n'
    path = tmp_path / "out.ndjson"
    with Rejects(path, rows.refused_head([])) as refused:
        for row in parsed(content, tmp_path, "in.ndjson"):
            refused.add(rows.refused(row, "for a reason", []))
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [
        {"address": "x", "party": 42, "more": [1], "row": 1, "reason": "for a reason"},
        {"line": "no JSON", "row": 2, "reason": "for a reason"},
        {"address": "\ud800 \udcff", "row": 3, "reason": "for a reason"},
    ]


@pytest.mark.parametrize("address", ['"address":"x","n":1e400,"e":"é"', '"n":1e400,"e":"\\u00e9","row" : 7'])
def test_a_rejected_object_is_spelled_as_it_came(tmp_path: Path, address: str) -> None:
    [row] = parsed(f"{{{address}}}".encode(), tmp_path, "in.ndjson")
    came = address.removesuffix(',"row" : 7').replace(",", ", " if "row" in address else ",")
    assert rows.refused(row, "why", []).decode() == f'{{{came}, "row": 1, "reason": "why"}}\n'


def test_without_a_reject_there_is_no_file_and_one_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    with Rejects(tmp_path / "none.csv", b"address\n"):
        pass
    assert not (tmp_path / "none.csv").exists()
    with pytest.raises(Misconfigured, match="No such file"), Rejects(tmp_path / "no" / "where.csv", b"address\n") as refused:
        refused.add(b"nobody\n")


def test_a_row_is_read_before_the_next_is_written() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"address\na@example.com\n")
    with rows.opened(Path(f"/dev/fd/{reading}")) as text:
        found = rows.read(text)[1]
        assert next(found).fields == {"address": "a@example.com"}, "nobody waited for the end of the file"
        os.write(writing, b"b@example.com\n")
        os.close(writing)
        assert [row.fields["address"] for row in found] == ["b@example.com"]
    os.close(reading)
