"""Files of candidates are cut wherever the network or the disk cuts them, and every row stays as it came."""

from __future__ import annotations

import csv
import io
import json
from random import Random
from uuid import UUID

import pytest

from mailprefs import addresses as addressing
from mailprefs import crews, sheets
from mailprefs.addresses import Addresses
from mailprefs.errors import Unreadable
from mailprefs.rows import WIDEST
from mailprefs.sheets import Csv, Cutter, Ndjson, Sheet
from mailprefs.words import Channel

ODD = [
    "address,n,note\r\n",
    "jane@example.org,1,plain\r\n",
    'Jane@Example.ORG,2,"a, comma"\n',
    '"kim@example.org",3,"a ""quote"" and\na line break"\n',
    "jérôme@bücher.example,4,\n",
    "\n",
    "Jane Doe <jane@example.org>,5,x\n",
    "jane@example.org,6\n",
    'jane@example.org,7,5" pipe\n',
    "+12025550123,8,\n",
    "nobody,9,\n",
    'jane@example.org,10,6" pipe\n',
    "last@example.org,11,no end",
]


def cut(text: bytes, sizes: Random | None = None, column: str = "address") -> tuple[Sheet, list[bytes]]:
    cutter, rows, at = Cutter(column), [], 0
    while at < len(text):
        step = sizes.randint(1, 40) if sizes else len(text)
        rows += cutter.take(text[at : at + step]) or []
        at += step
    rows += cutter.finish()
    return cutter.sheet, rows


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_the_same_wherever_the_file_is_cut_and_none_is_lost(seed: int, addresses: Addresses) -> None:
    text = "".join(ODD).encode()
    sheet, rows = cut(text, Random(seed))
    keyed = crews.key(addresses, sheet, rows)
    assert b"\n".join(keyed.rows) == text.partition(b"\n")[2]
    whole = cut(text)
    assert keyed.keys == crews.key(addresses, *whole).keys
    wanted = ["jane@example.org", "jane@example.org", "kim@example.org", "jérôme@bücher.example", None, "jane@example.org", None]
    wanted += ["jane@example.org", "+12025550123", "nobody", "jane@example.org", "last@example.org"]
    assert [key_of(keyed, n) for n in range(len(keyed.rows))] == [w and addresses.heard(w).key for w in wanted]
    assert set(keyed.empty) == {4}
    assert set(keyed.lost) == {6}


def key_of(keyed: crews.Keyed, n: int) -> UUID | None:
    return keyed.others[n][0].key if n in keyed.others else UUID(bytes=keyed.keys[n]) if keyed.keys[n] else None


def test_a_reason_is_one_more_column_whatever_the_row_is(addresses: Addresses) -> None:
    sheet, rows = cut("".join(ODD).encode())
    rows = list(crews.key(addresses, sheet, rows).rows)
    with_reasons = sheet.head("reasons") + b"".join(sheet.beside(row, {"reasons": "a:b;c:d"}) + b"\n" for row in rows if row.strip())
    found = list(csv.DictReader(io.StringIO(with_reasons.decode(), newline="")))
    assert {row["reasons"] for row in found} == {"a:b;c:d"}
    assert [row["n"] for row in found] == [str(n) for n in range(1, 12)]
    assert found[2]["note"] == 'a "quote" and\na line break'
    line = Ndjson().beside(b'{"address": "j@example.org", "n": 1.50}', {"reasons": "a:b"})
    assert json.loads(line) == {"address": "j@example.org", "n": 1.5, "reasons": "a:b"}
    assert json.loads(Ndjson().beside(b"oops", {"reasons": "a:b"})) == {"line": "oops", "reasons": "a:b"}


ODDLY = '"n" : 1e400,"m":1.50, "id": 12345678901234567890.12, "e":"\\u00e9é", "o":{"reasons":[ ]}, "x":NaN'


@pytest.mark.parametrize(
    ("row", "spelled"),
    [
        (f'{{ "address":"j@example.org",{ODDLY} }}\r', f'{{"address":"j@example.org",{ODDLY}, "reasons": "a:b"}}'),
        (f'{{"reasons" : "old" , {ODDLY}}}', f'{{{ODDLY.replace(",", ", ").replace(",  ", ", ")}, "reasons": "a:b"}}'),
        ('{"reasons":1}', '{"reasons": "a:b"}'),
        ("{ }", '{"reasons": "a:b"}'),
    ],
)
def test_what_a_json_row_says_is_given_back_as_it_is_spelled(row: str, spelled: str) -> None:
    """Whoever reads floats and writes them again says Infinity for 1e400, which is no JSON, and another id: the control."""
    assert Ndjson().beside(row.encode(), {"reasons": "a:b"}).decode() == spelled
    anew = json.dumps({**json.loads(row), "reasons": "a:b"})
    assert (anew == spelled) is (ODDLY not in row)


@pytest.mark.parametrize("row", [b"[1]", b'{"n":1e400', b'{"address":"x","address":"y"}', b'{"n":\r1}', '{"n":1}'.encode("utf-16-le")])
def test_what_is_no_row_is_given_back_as_a_line(row: bytes) -> None:
    assert json.loads(Ndjson().beside(row, {"reasons": "a:b"})) == {"line": row.decode(), "reasons": "a:b"}


def test_what_is_read_in_bulk_is_what_is_read_one_by_one(addresses: Addresses) -> None:
    """Every spelling that the bulk takes has the key of the slow way; the control is that most of them are taken, and these are not."""
    random = Random(1)
    parts = ["jane", "j.doe", "o'neil", "x" * 70, ".dot", "dot.", "a..b", "tag+1", "ÜBER", "a b", "", "A-1", "=x", '"q"']
    hosts = ["example.org", "EXAMPLE.com", "-a.org", "a-.org", "xn--bcher-kva.example", "a--b.org", "x", "example.c1", "sub.a-b.net"]
    hosts += ["localhost", "a.test", "a.tester", "b" * 64 + ".org", ".".join(["abc"] * 70), "ex ample.org", "a.invalid", "example.org."]
    texts = [f"{random.choice(parts)}@{random.choice(hosts)}" for _ in range(3000)]
    rows = [json.dumps({"address": text}).encode() for text in texts]
    keyed = crews.key(addresses, Ndjson(), rows)
    taken = 0
    for n, text in enumerate(texts):
        if keyed.keys[n]:
            taken += 1
            assert keyed.keys[n] == addresses.read(text).key.bytes, text
        elif n in keyed.others:
            assert keyed.others[n] == addresses.asked(text)
    assert 300 < taken < 2500


def test_keys_in_bulk_are_the_keys() -> None:
    for digest in (b"short", b"x" * 32, b"y" * 100):
        addresses = Addresses(digest)
        texts = ["jane@example.org", "", "jérôme@example.org"]
        found = addresses.keys(text.encode() for text in texts)
        assert list(found) == [addresses.key(Channel.EMAIL, text).bytes if text else b"" for text in texts]


@pytest.mark.parametrize("text", [b"", b"name,mail\nx,y\n", b"address,address\n", b"address\x00,\xff\n" * 1, b'"address\n'])
def test_what_has_no_header_with_the_column_is_refused(text: bytes) -> None:
    with pytest.raises(Unreadable):
        cut(text)
    cut(b"mail,x\n", column="mail")  # the control


@pytest.mark.parametrize(
    ("sheet", "rows"),
    [
        (Csv(b"address,name"), [b"ok@example.org,x\r<gone@example.org>", b"ok@example.org,x\rgone@example.org,y"]),
        (Csv(b"name,address"), [b"x\ry,ok@example.org", b'"x"\r"y",ok@example.org']),
        (Ndjson(), [b'{"address": "ok@example.org", "n":\r{"address": "gone@example.org"}\r}']),
        (Ndjson(), [b'{"address": "gone@example.org", "address": "ok@example.org"}']),
        (Ndjson(), ['{"address": "gone@example.org", "address": "ok@example.org"}'.encode(each) for each in ("utf-16-le", "utf-32-be")]),
        (Ndjson(), [b'{"\\u0061ddress": "gone@example.org", "address": "ok@example.org"}']),
    ],
)
def test_a_row_in_which_another_reader_would_find_somebody_else_has_no_address(
    sheet: Sheet, rows: list[bytes], addresses: Addresses
) -> None:
    assert crews.key(addresses, sheet, rows).lost == set(range(len(rows)))
    one = [b'ok@example.org,"x\ry"\r'] if isinstance(sheet, Csv) else [b'{"address": "ok@example.org", "n": {"address": "x"}}\r']
    kept = crews.key(addresses, Csv(b"address,name") if isinstance(sheet, Csv) else sheet, one)
    assert key_of(kept, 0) == addresses.heard("ok@example.org").key, "the control"


def test_a_header_of_too_many_columns_is_refused() -> None:
    """Each short row is filled up to it: a few bytes would come back as megabytes."""
    cut(b"address" + b",x" * (sheets.WIDE - 1) + b"\n")
    with pytest.raises(Unreadable, match="1,000 columns"):
        cut(b"address" + b",x" * sheets.WIDE + b"\n")


def test_a_row_that_never_ends_is_refused_and_not_collected() -> None:
    cutter = Cutter()
    cutter.take(b"address\n")
    cutter.take(b"x" * WIDEST)
    with pytest.raises(Unreadable, match="never ends"):
        cutter.take(b"x")


def test_a_quote_that_never_closes_costs_its_own_row_alone(addresses: Addresses) -> None:
    lines = [b'a@example.org,"open'] + [b"p%d@example.org,x" % n for n in range(5000)]
    sheet, rows = cut(b"address,note\n" + b"\n".join(lines))
    keyed = crews.key(addresses, sheet, rows)
    assert len(keyed.rows) == 5001
    assert keyed.lost == {0}
    assert isinstance(sheet, Csv)
    assert addressing.email("p1@example.org") == "p1@example.org"
