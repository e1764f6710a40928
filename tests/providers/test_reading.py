"""Strict JSON and forms from bytes that anyone may have written."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path
from random import Random
from time import process_time
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailprefs.errors import Unreadable
from mailprefs.providers import reading

from .test_promises import POISON

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(found=VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
@settings(deadline=None)
def test_lawful_json_reads_as_the_standard_library_reads_it(found: Any, ascii_only: bool, indent: int | None) -> None:
    body = json.dumps(found, ensure_ascii=ascii_only, indent=indent).encode()
    assert reading.value(body) == found == json.loads(body)


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_poison_is_unreadable_and_the_error_says_nothing_of_it(poison: bytes) -> None:
    assert reading.value(b'{"x": 1, "y": 2}') == {"x": 1, "y": 2}  # the control
    with pytest.raises(Unreadable) as refused:
        reading.value(b"{" + poison + b'"y": 2}')
    assert len(str(refused.value)) < 40


@given(backslashes=st.integers(0, 9))
def test_a_nul_is_found_behind_any_number_of_backslashes(backslashes: int) -> None:
    body = b'["' + b"\\" * backslashes + b'u0000"]'
    lawful = backslashes == 0 or (backslashes % 2 == 0)
    if lawful:
        assert "\0" not in reading.value(body)[0]  # an escaped backslash, then four noughts
    else:
        with pytest.raises(Unreadable):
            reading.value(body)


def test_a_member_is_found_in_text_that_is_json_and_in_nothing_else() -> None:
    assert reading.member('{"mailprefs": "our-token", "other": 1}', "mailprefs") == "our-token"
    for other in (
        "our-token",
        "",
        "{",
        '["mailprefs"]',
        '{"x": 1}',
        '{"mailprefs": "a", "mailprefs": "b"}',
        "{\ud800",
        None,
        7,
        {"mailprefs": 1},
    ):
        assert reading.member(other, "mailprefs") is None


@given(found=st.dictionaries(TEXT, VALUES, max_size=5), indent=st.sampled_from([None, 1]))
@settings(deadline=None)
def test_the_members_of_an_object_are_found_as_they_came(found: dict[str, Any], indent: int | None) -> None:
    members = reading.members(b" " + json.dumps(found, indent=indent).encode() + b"\r\n")
    assert [(json.loads(b'"' + name + b'"'), json.loads(text)) for name, text in members] == list(found.items())


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_a_member_that_is_poison_hides_no_other(poison: bytes) -> None:
    broken = b"{" + poison + b'"y": 2}'
    assert reading.members(b'{"a": 1, "b": ' + broken + b', "c": {"d": 3}}') == [(b"a", b"1"), (b"b", broken), (b"c", b'{"d": 3}')]
    assert reading.members(b'{"a": 1, "b": ' + broken)[0] == (b"a", b"1")


def test_what_is_no_object_has_no_members() -> None:
    for body in (b"", b"[]", b"null", b'"a": 1', b'["a"]', b"{}", b"{", b"}", b"{,}", b'{"a"}', b"{1: 2}"):
        assert reading.members(body) == []


@given(values=st.lists(VALUES, min_size=1, max_size=8), indent=st.sampled_from([None, 1]), at=st.integers(0, 8))
@settings(deadline=None)
def test_an_element_is_found_as_it_came_in_either_way_of_reading(values: list[Any], indent: int | None, at: int) -> None:
    elements = [json.dumps(value, indent=indent).encode() for value in values]
    quick = reading.batch(b" [" + b" ,\n".join(elements) + b"]\r\n")
    assert [quick.raw(n) for n in range(len(values))] == elements
    assert not quick.aside
    slow = reading.batch(b"[" + b",".join([*elements[:at], b"NaN", *elements[at:]]) + b"]")
    assert slow.values == quick.values
    assert [slow.raw(n) for n in range(len(values))] == elements
    assert slow.aside == [("unreadable", b"NaN")]


@pytest.mark.parametrize(
    ("body", "values", "aside"),
    [
        (b"[]", [], []),
        (b" [ ] ", [], []),
        (b"", [], [("no_array", b"")]),
        (b"{}", [], [("no_array", b"{}")]),
        (b"7", [], [("no_array", b"7")]),
        (b"\xef\xbb\xbf[]", [], [("no_array", b"\xef\xbb\xbf[]")]),
        (b"[", [], [("unreadable", b"[")]),
        (b"[1,2", [1], [("unreadable", b"2")]),
        (b"[1,", [1], [("unreadable", b"[1,")]),
        (b"[1,,2]", [1, 2], [("unreadable", b"")]),
        (b"[1,2,]", [1, 2], [("unreadable", b"")]),
        (b"[1] 2", [1], [("unreadable", b"2")]),
        (b"[1][2]", [1], [("unreadable", b"[2]")]),
        (b'[{"a": 1]}, 2]', [2], [("unreadable", b'{"a": 1]}')]),
        (b'[{"a": [1}, 2]', [2], [("unreadable", b'{"a": [1}')]),
        (b'[1}, 2, "]", 3]', [2, "]", 3], [("unreadable", b"1}")]),
        (b'["a, 2]', [], [("unreadable", b'"a, 2]')]),
        (rb'["\"]", NaN, "\\"]', ['"]', "\\"], [("unreadable", b"NaN")]),
    ],
)
def test_a_broken_array_gives_what_can_be_read_and_keeps_the_rest(body: bytes, values: list[Any], aside: list[tuple[str, bytes]]) -> None:
    batch = reading.batch(body)
    assert (batch.values, batch.aside) == (values, aside)


@given(values=st.lists(VALUES, max_size=8), indent=st.sampled_from([None, 1]), at=st.integers(0, 8), more=VALUES)
@settings(deadline=None)
def test_an_array_under_a_name_reads_as_an_array_alone(values: list[Any], indent: int | None, at: int, more: Any) -> None:
    elements = [json.dumps(value, indent=indent).encode() for value in values]
    head, tail = b' {"x" : ' + json.dumps({"data": [more]}).encode() + b', "data" :\n[', b'], "meta": {"data": ["no"]}} '
    quick = reading.under("data", head + b" ,\n".join(elements) + tail)
    assert [quick.raw(n) for n in range(len(values))] == elements
    assert (quick.values, quick.aside) == (values, [])
    slow = reading.under("data", head + b",".join([*elements[:at], b"NaN", *elements[at:]]) + tail)
    assert [slow.raw(n) for n in range(len(values))] == elements
    assert (slow.values, slow.aside) == (values, [("unreadable", b"NaN")])


@pytest.mark.parametrize(
    ("body", "values", "aside"),
    [
        (b'{"data": []}', [], []),
        (b'{"data": {}}', [], [("no_array", b'{"data": {}}')]),
        (b'{"x": {"data": [1]}}', [], [("no_array", b'{"x": {"data": [1]}}')]),
        (b'[{"data": [1]}]', [], [("no_array", b'[{"data": [1]}]')]),
        (b'{"x": "data", "data": [1]}', [1], []),
        (b'{"data": [1], "x": NaN}', [1], [("unreadable", b'{"data": [], "x": NaN}')]),
        (b'{"x": NaN, "data": [1, NaN]}', [1], [("unreadable", b"NaN"), ("unreadable", b'{"x": NaN, "data": []}')]),
        (b'{"data": [1], "data": [2]}', [1], [("unreadable", b'{"data": [], "data": [2]}')]),
        (b'{"data": [1,]}', [1], [("unreadable", b"")]),
        (b'{"data": [1, {"y": 2', [1], [("unreadable", b'{"data": []{"y": 2')]),
        (b'{"data": [1,', [1], [("unreadable", b'{"data": []')]),
        (b'{"data": [{"y": 1]}, 2], "meta": {}}', [2], [("unreadable", b'{"y": 1]}')]),
        (b'{"data": [{"y": [1}, 2], "meta": {}}', [2], [("unreadable", b'{"y": [1}')]),
        (b"", [], [("no_array", b"")]),
        (b"{", [], [("no_array", b"{")]),
        (b'{"data', [], [("no_array", b'{"data')]),
    ],
)
def test_a_broken_object_gives_what_can_be_read_of_its_array(body: bytes, values: list[Any], aside: list[tuple[str, bytes]]) -> None:
    found = reading.under("data", body)
    assert (found.values, found.aside) == (values, aside)


@given(body=st.binary(max_size=60) | st.text('[]{}",:\\ 1aN', max_size=40).map(str.encode))
@settings(max_examples=1000, deadline=None)
def test_no_bytes_raise_anything(body: bytes) -> None:
    inside = reading.under("data", b'{"data": [' + body)
    for n in range(len(inside.values)):
        assert inside.raw(n) in body
    assert isinstance(reading.under("data", body), reading.Batch)
    batch = reading.batch(body)
    for n in range(len(batch.values)):
        assert batch.raw(n) in body
    try:
        lawful = reading.value(body)
    except Unreadable:
        assert batch.aside
    else:
        assert batch.values == lawful if isinstance(lawful, list) else batch.aside


def test_salvage_takes_time_that_grows_with_the_body() -> None:
    def seconds(body: bytes) -> float:
        start = process_time()
        reading.batch(body)
        return process_time() - start

    for body in (
        b'[NaN,"' + b'\\"' * 50_000,
        b"[NaN" + b"[{" * 50_000,
        b"[NaN" + b",[}" * 50_000,
        b"[NaN," + b"[" * 50_000 + b"}" * 50_000,
    ):
        assert seconds(body * 8) < 8 * 8 * max(seconds(body), 0.001)  # a square would be 64 times


async def arriving(body: bytes, cuts: Iterable[int]) -> AsyncIterator[bytes]:
    start = 0
    for cut in [*sorted(cuts), len(body)]:
        yield body[start:cut]
        start = max(start, cut)


@given(texts=st.lists(TEXT, max_size=20), indent=st.sampled_from([None, 2]), data=st.data())
@settings(deadline=None)
async def test_a_listing_reads_the_same_however_it_arrives(texts: list[str], indent: int | None, data: st.DataObject) -> None:
    body = json.dumps(texts, indent=indent).encode() + b"\n"
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=10))
    assert [text async for text in reading.strings(arriving(body, cuts))] == texts


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{}",
        b'"a"',
        b"[",
        b'["a"',
        b'["a",',
        b'["a"]]',
        b'["a"] x',
        b'["a",]',
        b"[,]",
        b"[1]",
        b'["a", 1]',
        b'["a", null, "b"]',
        b'["\xff"]',
        b'["\\u0000"]',
        b"<html>",
        b'["a" "b"]',
        b'["' + b"a" * (reading.LONGEST + 1),
        b'["' + b"a" * 4 * reading.LONGEST + b'"]',
    ],
)
async def test_a_listing_that_is_not_whole_is_never_taken_for_one(body: bytes) -> None:
    random = Random(4)
    for _ in range(20):
        cuts = [random.randrange(len(body) + 1) for _ in range(3)] + [3 * reading.LONGEST]
        with pytest.raises(Unreadable):
            [_ async for _ in reading.strings(arriving(body, cuts))]


async def test_a_listing_is_not_held_in_memory() -> None:
    import tracemalloc

    async def long() -> AsyncIterator[bytes]:
        yield b'["a@example.com"'
        for n in range(2_000):
            yield b"".join(b', "person%d@example.com"' % (n * 100 + m) for m in range(100))
        yield b"]"

    tracemalloc.start()
    count = 0
    async for _ in reading.strings(long()):
        count += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 200_001  # 5 MB of text
    assert peak < 500_000


@pytest.mark.parametrize("body", [b' {"a": 1} ', b' [{"a": 1}]\n'])
def test_one_value_reads_as_an_array_of_it(body: bytes) -> None:
    read = reading.one_or_more(body)
    assert (read.values, read.aside) == ([{"a": 1}], [])
    assert read.raw(0).strip() == b'{"a": 1}'


def test_one_value_that_is_poison_is_kept_whole() -> None:
    for body in (b"", b" ", b"<html>", b'{"a": NaN}', b'{"a": 1}{'):
        read = reading.one_or_more(body)
        assert (read.values, read.aside) == ([], [("unreadable", body)])


# Forms

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = 'multipart/form-data; boundary="b-1"'
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=8)


def parted(pairs: Iterable[tuple[str, str]], *more: str) -> bytes:
    """Return a multipart form with these fields, and more parts as they stand."""
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}' for name, text in pairs]
    return "".join(f"--b-1\r\n{part}\r\n" for part in [*parts, *more]).encode() + b"--b-1--\r\n"


@given(pairs=PAIRS)
def test_a_form_reads_as_it_was_written_blanks_and_repeats_too(pairs: list[tuple[str, str]]) -> None:
    doubled = [*pairs, *pairs, ("blank", ""), ("blank", "")]
    assert reading.form(urlencode(doubled).encode(), URLENCODED) == doubled
    assert reading.form(urlencode(doubled).encode(), f"{URLENCODED.upper()}; charset=utf-8") == doubled
    assert reading.form(b"", URLENCODED) == []


@given(texts=st.lists(TEXT, min_size=1, max_size=8))
def test_the_parts_of_a_form_read_as_they_were_written(texts: list[str]) -> None:
    pairs = [("field", text) for text in texts if "\r\n--b-1" not in text]
    assert reading.form(parted([*pairs, ("blank", "")]), MULTIPART) == [*pairs, ("blank", "")]


def test_a_file_is_no_field_and_may_hold_any_bytes() -> None:
    file = 'Content-Disposition: form-data; name="attachment-1"; filename="a.bin"\r\nContent-Type: application/octet-stream\r\n\r\n@'
    body = parted([("event", "bounced")], file).replace(b"@", b"\x00\xff\r\n\r\n--b-2\r\n")
    assert reading.form(body, MULTIPART) == [("event", "bounced")]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"event", URLENCODED),
        (b"event=bounced&&token=1", URLENCODED),
        (b"event=%", URLENCODED),
        (b"event=%4", URLENCODED),
        (b"event=%zz", URLENCODED),
        (b"event=%00", URLENCODED),
        (b"event=\x00", URLENCODED),
        (b"event=%ff", URLENCODED),
        (b"event=\xed\xa0\x80", URLENCODED),
        (b"a=1&" * 1_000 + b"a=1", URLENCODED),
        (b"event=bounced", "application/json"),
        (b"event=bounced", ""),
        (b"event=bounced", None),
        (b"event=bounced", MULTIPART),
        (b"", MULTIPART),
        (parted([("event", "bounced")]), "multipart/form-data"),
        (parted([("event", "bounced")]), 'multipart/form-data; boundary=""'),
        (parted([("event", "bounced")]), 'multipart/form-data; boundary="\ud800"'),
        (parted([("event", "bounced")]), "multipart/mixed; boundary=b-1"),
        (parted([("event", "bounced")])[:-8], MULTIPART),
        (parted([("event", "bounced")]).replace(b"bounced", b"\xff"), MULTIPART),
        (parted([("event", "bounced")]).replace(b"bounced", b"\x00"), MULTIPART),
        (parted([("event", "bounced")]).replace(b'; name="event"', b""), MULTIPART),
        (parted([("event", "bounced")]).replace(b"form-data", b"attachment"), MULTIPART),
        (parted([("event", "bounced")] * 1_001), MULTIPART),
    ],
)
def test_what_is_no_strict_form_is_unreadable(body: bytes, content_type: str | None) -> None:
    assert reading.form(parted([("event", "bounced")]), MULTIPART)  # the control
    with pytest.raises(Unreadable) as refused:
        reading.form(body, content_type)
    assert len(str(refused.value)) < 40


def test_a_field_that_is_poison_does_not_hide_the_others_from_a_verifier() -> None:
    for poison in (b"\xff", b"\x00"):
        body = parted([("token", "t"), ("description", "@")]).replace(b"@", poison)
        assert reading.octets(body, MULTIPART) == [(b"token", b"t"), (b"description", poison)]
    assert reading.octets(b"token=t&description=%ff", URLENCODED) == [(b"token", b"t"), (b"description", b"\xff")]


@given(body=st.binary(max_size=200), content_type=st.sampled_from([URLENCODED, MULTIPART]) | st.text(max_size=60))
@settings(deadline=None)
def test_whatever_bytes_are_no_form_are_unreadable_and_no_more(body: bytes, content_type: str) -> None:
    for given_body in (body, parted([("event", "bounced")])[:60] + body):
        with suppress(Unreadable):
            assert isinstance(reading.form(given_body, content_type), list)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"&" * 5_000_000, URLENCODED),
        (b"%" * 5_000_000, URLENCODED),
        (b"a" * 5_000_000, URLENCODED),
        (b"\r\n" * 2_500_000, MULTIPART),
        (b"--b-1\r\n" * 700_000, MULTIPART),
        (parted([("event", "@")]).replace(b"@", b"\r\n--b-" * 800_000), MULTIPART),
        (b"x", "multipart/form-data" + "; boundary" * 3_000),
        (b"x", "multipart/form-data; a=" + '"\\' * 15_000),
    ],
    ids=["ampersands", "escapes", "letters", "lines", "boundaries", "half boundaries", "parameters", "quotes"],
)
def test_a_huge_form_is_read_in_time_that_grows_with_it(body: bytes, content_type: str) -> None:
    begun = process_time()
    with suppress(Unreadable):
        reading.form(body, content_type)
    assert process_time() - begun < 2


ENTRY = st.dictionaries(TEXT, st.one_of(TEXT, st.none(), st.integers(-5, 5), st.booleans()), max_size=4)


@given(told=st.lists(ENTRY, max_size=12), indent=st.sampled_from([None, 2]), data=st.data())
@settings(deadline=None)
async def test_a_listing_of_objects_reads_the_same_however_it_arrives(
    told: list[dict[str, object]], indent: int | None, data: st.DataObject
) -> None:
    body = json.dumps({"Suppressions": told, "TotalCount": len(told)}, indent=indent).encode()
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=10))
    assert [entry async for entry in reading.entries(arriving(body, cuts), "Suppressions")] == told


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"Other": []}',
        b'{"Suppressions": {}}',
        b'{"Suppressions": null}',
        b'{"Suppressions": [',
        b'{"Suppressions": []',
        b'{"Suppressions": [{"a": 1}',
        b'{"Suppressions": [{"a": 1},',
        b'{"Suppressions": [{"a": 1}]',
        b'{"Suppressions": [{"a": 1},]}',
        b'{"Suppressions": [{"a": 1}]} x',
        b'{"Suppressions": [{"a": 1} {"a": 1}]}',
        b'{"Suppressions": ["a"]}',
        b'{"Suppressions": [{"a": 1}, 7]}',
        b'{"Suppressions": [{"a": 1, "a": 1}, {}]}',
        b'{"Suppressions": [{"a": "\xff"}, {}]}',
        b'{"Suppressions": [{"a": 1}], "Suppressions": []}',
        b'{"Suppressions": [{"a": "' + b"a" * (reading.LONGEST + 1),
        b"<html>",
    ],
)
async def test_a_listing_of_objects_that_is_not_whole_is_never_taken_for_one(body: bytes) -> None:
    random = Random(4)
    for _ in range(20):
        cuts = [random.randrange(len(body) + 1) for _ in range(3)] + [3 * reading.LONGEST]
        with pytest.raises(Unreadable):
            [_ async for _ in reading.entries(arriving(body, cuts), "Suppressions")]


async def test_a_listing_of_objects_is_not_held_in_memory() -> None:
    import tracemalloc

    async def long() -> AsyncIterator[bytes]:
        yield b'{"Suppressions": [{"EmailAddress": "a@example.com"}'
        for n in range(1_000):
            yield b"".join(b', {"EmailAddress": "person%d@example.com", "Origin": "Customer"}' % (n * 100 + m) for m in range(100))
        yield b"]}"

    tracemalloc.start()
    count = 0
    async for _ in reading.entries(long(), "Suppressions"):
        count += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 100_001  # 6 MB of text
    assert peak < 500_000


def test_no_pattern_repeats_a_group_possessively() -> None:
    """Python 3.11.0 to 3.11.4 misread them (gh-106052): a list of two came out as broken."""
    package = Path(reading.__file__).parent.parent
    risky = re.compile(r"\)[*+?]\+|\(\?>")
    assert risky.search(r"(?:[^\"]++|\\.)*+"), "the control"
    found = [
        f"{path.name}: {node.value!r}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
        if risky.search(node.value if isinstance(node.value, str) else node.value.decode("latin-1"))
    ]
    assert found == []
