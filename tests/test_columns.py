"""What is keyed a column at a time is what is keyed row by row, whatever stands in a file; and nothing is lost without the libraries."""

from __future__ import annotations

import subprocess
import sys
from random import Random

import pytest

from mailprefs import crews
from mailprefs.addresses import Addresses, halves
from mailprefs.columns import Columns
from mailprefs.crews import Hand
from mailprefs.sheets import Csv
from mailprefs.words import Channel

DIGEST = b"k" * 32
PLAIN = ["jane@example.org", "Jane.Doe+x@EXAMPLE.com", "o'neil@sub.a-b.net", "a@b.tester", "kim@example.org"]
ODD = ["\u212aim@example.org", "kim@\u212aey.example", "jérôme@bücher.example", "a@b.test", "A@B.LOCAL", "x@localhost", "a..b@example.org"]
ODD += ["a@xn--bcher-kva.example", "a--b@x--y.org", "x" * 60 + "@example.org", "Jane <jane@example.org>", " jane@example.org", "", "nobody"]
ODD += [
    "+12025550123",
    "a@example.c1",
    "jane@example.org\x00",
    "jane@example.org\rx",
    "a@example.org;b@example.org",
    "\u017fam@example.org",
]
BESIDE = [b"1", b"", b"\xff\xfe", "ü".encode(), b"x.test", b"tab\there", b"nul\x00", b"\xe2\x82", b"=1+1"]


def rows(seed: int, at: int, wide: int, odd: int) -> list[bytes]:
    """Make rows of so many columns, one of so many with something odd in it."""
    random = Random(seed)
    found = []
    for _ in range(400):
        fields = [random.choice(BESIDE) for _ in range(wide)]
        fields[at] = random.choice(PLAIN if random.randrange(odd) else ODD).encode()
        line = b",".join(fields[: random.choice([wide, wide, wide, wide - 1])] if not random.randrange(odd) else fields)
        found.append(line + random.choice([b"", b"\r"]))
    return found


@pytest.mark.parametrize(
    ("header", "at", "wide"), [(b"address", 0, 1), (b"address,n,x", 0, 3), (b"n,address,x", 1, 3), (b"n,address", 1, 2)]
)
def test_a_column_at_a_time_is_row_by_row(header: bytes, at: int, wide: int) -> None:
    addresses, sheet = Addresses(DIGEST), Csv(header)
    hand, found = Hand(DIGEST, sheet), Columns(sheet.plain, *halves(DIGEST, Channel.EMAIL))
    for seed, odd in enumerate([2, 10, 1000]):
        made = rows(seed, at, wide, odd)
        closely = crews.key(addresses, sheet, made)
        quickly, first = hand.key(b"\n".join(made)), found.keyed(b"\n".join(made))
        assert (quickly.keys, quickly.others, quickly.lost, quickly.empty) == (closely.keys, closely.others, closely.lost, closely.empty)
        assert first is not None
        assert len(first.odd) < 300, "the control: plain rows were not read closely"
        assert odd > 2 or first.digests != closely.keys.digests, "and odd ones were"


@pytest.mark.parametrize("text", ODD)
def test_what_is_not_plain_in_every_way_is_read_closely(text: str) -> None:
    found = Columns(Csv(b"n,address").plain, *halves(DIGEST, Channel.EMAIL))
    keyed = found.keyed(f"1,{text}\n1,jane@example.org\n1,jane@example.org,".encode())
    assert keyed is not None
    assert list(keyed.odd) == [0, 2], "the one between them is the control"


def test_rows_with_quotes_are_no_columns() -> None:
    found = Columns(Csv(b"address,name").plain, *halves(DIGEST, Channel.EMAIL))
    assert found.keyed(b'jane@example.org,"Doe, Jane"') is None
    assert found.keyed(b"jane@example.org,Jane Doe") is not None
    hand = Hand(DIGEST, Csv(b"address,name"))
    assert list(hand.key(b'jane@example.org,"Doe, Jane"').keys) == [Addresses(DIGEST).read("jane@example.org").key.bytes]


def test_a_key_of_any_length_is_the_same() -> None:
    for digest in (b"short", b"y" * 100):
        keyed = Hand(digest, Csv(b"address")).key(b"jane@example.org")
        assert list(keyed.keys) == [Addresses(digest).read("jane@example.org").key.bytes]


WITHOUT = 'import sys; sys.modules["datafusion"] = sys.modules["pyarrow"] = None'
ASKED = """
import asyncio
from mailprefs import columns
from mailprefs.addresses import Keys
from mailprefs.candidates import Sieve
from mailprefs.crews import Hand
from mailprefs.sheets import Csv

async def caught():
    taken = [bytes([7]) * 4 + bytes([n]) * 12 for n in range(1, 40)] + [bytes([n]) * 16 for n in range(50, 90)]
    sieve = Sieve()
    await sieve.take(bytes(19) + b"".join(b"\\0\\1\\0\\0\\0\\x10" + key for key in taken))
    asked = [*taken[::2], bytes([7]) * 4 + bytes([40]) * 12, bytes([90]) * 16, bytes(16)]
    return [sorted(sieve.caught(Keys(b"".join(key + bytes(16) for key in some)))) for some in (asked, asked[-1:], [])]

print(columns.installed())
print(list(Hand(b"k" * 32, Csv(b"address")).key(b"jane@example.org\\nnobody").keys))
print(asyncio.run(caught()))
"""


def test_without_the_libraries_all_is_as_with_them_but_slower() -> None:
    ran = [subprocess.run([sys.executable, "-c", first + ASKED], check=True, capture_output=True, timeout=60) for first in ("", WITHOUT)]
    quick, slow = ([line.decode() for line in each.stdout.splitlines()] for each in ran)
    assert (quick[0], slow[0]) == ("True", "False")
    keys = Hand(DIGEST, Csv(b"address")).key(b"jane@example.org\nnobody").keys
    assert quick[1:] == slow[1:] == [str(list(keys)), str([[*range(40)], [], []])]
