"""Whoever filters a file gets what decisions say of each row, in its order, however large the file is."""

from __future__ import annotations

from datetime import datetime, timedelta

import asyncpg
import pytest

from mailprefs import candidates, crews, db, decisions, directory, ledger
from mailprefs.addresses import Addresses, Keys
from mailprefs.candidates import Filter, Sieve
from mailprefs.catalogue import Catalogue
from mailprefs.decisions import Question
from mailprefs.directory import Entry
from mailprefs.errors import UnknownScope
from mailprefs.links import KeyRing
from mailprefs.sheets import Csv
from mailprefs.words import Cause, Change, Door, Effect

pytestmark = pytest.mark.spread

HEADER = b"address"
TEXTS = [f"p{n}@example.org" for n in range(60)] + [
    "+12025550123",
    "+12025550124",
    "jérôme@bücher.example",
    "no address",
    "x@",
    '"q"@example.org',
]


@pytest.fixture
async def past(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    """Some have left, some asked for a topic, some are unknown to us; two are known by their key alone."""
    known = [addresses.read(text) for text in TEXTS[:40]]
    await directory.know(conn, [Entry(each) for each in known[2:]], now=now)
    changes = []
    for n, each in enumerate(known):
        if n % 3 == 0:
            changes.append(Change(each, 272 if n % 2 else 257, Cause.CHOICE, Effect.STOP, Door.LINK, f"s{n}", now))
        if n % 5 == 0:
            changes.append(Change(each, 274, Cause.CHOICE, Effect.GRANT, Door.IMPORT, f"g{n}", now))
        if n % 7 == 0:
            changes.append(
                Change(each, 0, Cause.SOFT, Effect.STOP, Door.PROVIDER, f"b{n}", now, now + timedelta(days=n), by="sendgrid-main")
            )
    changes.append(Change(addresses.read("+12025550123"), 272, Cause.CHOICE, Effect.GRANT, Door.SMS, "c", now))
    await ledger.record(conn, changes, now=now)


@pytest.mark.parametrize("topic", ["newsletter", "partners", "studies", "orders"])
@pytest.mark.parametrize("sifted", [False, True])
async def test_every_row_is_answered_as_decisions_answer(
    conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime, past: None, topic: str, sifted: bool
) -> None:
    scope = shared_catalogue.topic(topic)
    keyed = crews.key(addresses, Csv(HEADER), [f'"{text}"'.encode() if '"' not in text else b'"""q""@example.org"' for text in TEXTS])
    for later in (0, 20):
        at = now + timedelta(days=later)
        asking = Filter(shared_catalogue, scope, reasons=True)
        if sifted:
            await asking.sift(conn, now=at)
        verdict = await asking.judge(conn, keyed, now=at)
        asked = [addresses.asked(text) for text in TEXTS]
        questions = [Question(address, text, topic, not fine) for text, (address, fine) in zip(TEXTS, asked, strict=True)]
        answers = await decisions.decide(conn, questions, shared_catalogue, now=at)
        wanted = {n: ";".join(f"{r.scope}:{r.cause}" for r in a.reasons) for n, a in enumerate(answers) if not a.allowed}
        assert verdict.denied == wanted
        assert 2 < len(wanted) < len(TEXTS) or (topic == "studies" and wanted)
        plain = await Filter(shared_catalogue, scope, sieve=asking.sieve).judge(conn, keyed, now=at)
        assert plain.denied.keys() == wanted.keys()
        assert verdict.allowed(keyed.rows) == [row for n, row in enumerate(keyed.rows) if n not in wanted]


async def test_a_sieve_that_is_full_says_nothing_and_all_are_asked_about(
    conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime, past: None
) -> None:
    asking = Filter(shared_catalogue, shared_catalogue.topic("newsletter"))
    await asking.sift(conn, now=now)
    held = asking.sieve
    assert held is not None
    assert not held.full
    small = Sieve(most=3)
    query = db.text("candidates", "marked").strip().removesuffix(";")
    rule = [0, 256, 257, 272], 0, now, True
    await conn.copy_from_query(query, *rule, output=small.take, format="binary")
    assert small.full
    keyed = crews.key(addresses, Csv(HEADER), [text.encode() for text in TEXTS[:60]])
    full = await Filter(shared_catalogue, shared_catalogue.topic("newsletter"), sieve=small).judge(conn, keyed, now=now)
    assert full.denied == (await asking.judge(conn, keyed, now=now)).denied != {}


async def test_who_is_let_in_again_while_a_large_file_is_filtered_is_not_denied_without_a_reason(
    conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime, past: None
) -> None:
    asking = Filter(shared_catalogue, shared_catalogue.topic("newsletter"), reasons=True)
    await asking.sift(conn, now=now)
    keyed = crews.key(addresses, Csv(HEADER), [b"p3@example.org", b"p9@example.org"])
    assert set((await asking.judge(conn, keyed, now=now)).denied) == {0, 1}
    back = Change(addresses.read("p3@example.org"), 272, Cause.CHOICE, Effect.GO, Door.MANAGE, "back", now)
    await ledger.record(conn, [back], now=now)
    assert set((await asking.judge(conn, keyed, now=now)).denied) == {1}


async def test_the_sieve_takes_what_comes_wherever_it_is_cut(
    conn: asyncpg.Connection, addresses: Addresses, now: datetime, past: None
) -> None:
    whole = bytearray()

    async def sink(chunk: bytes) -> None:
        whole.extend(chunk)

    query = db.text("candidates", "marked").strip().removesuffix(";")
    await conn.copy_from_query(query, [0, 256, 257, 272], 0, now, True, output=sink, format="binary")
    keys = addresses.keys([*(text.encode() for text in TEXTS[:60]), b""])
    found = []
    for size in (1, 7, 22, 1000):
        sieve = Sieve()
        for at in range(0, len(whole), size):
            await sieve.take(bytes(whole[at : at + size]))
        found.append(sieve.caught(keys))
    assert found[0]
    assert all(each == found[0] for each in found)


async def test_keys_that_share_a_slot_are_told_apart() -> None:
    """Twins in the bits that choose a slot: those taken are caught, first and last, and a twin that was not taken is none of them."""
    taken = [bytes([7]) * 4 + bytes([n]) * 12 for n in range(1, 40)] + [bytes([8]) * 16]
    others = [bytes([7]) * 4 + bytes([n]) * 12 for n in (40, 41)] + [bytes([9]) * 16, bytes(16)]
    sieve = Sieve()
    await sieve.take(bytes(19) + b"".join(b"\0\1\0\0\0\x10" + key for key in taken) + b"\xff\xff")
    for asked in ([*taken, *others], taken[:1], others[:1], []):
        keys = Keys(b"".join(key + bytes(16) for key in asked))
        assert sieve.caught(keys) == {n for n, key in enumerate(asked) if key in taken}


async def test_the_bucket_of_a_key_is_the_one_its_address_has(addresses: Addresses) -> None:
    many = [addresses.read(text) for text in TEXTS[:60]]
    together = b"".join(each.key.bytes for each in many)
    assert [head % 1024 for (head,) in candidates._BUCKET.iter_unpack(together)] == [each.bucket for each in many]


async def test_what_is_no_topic_in_use_is_filtered_by_nobody(shared_catalogue: Catalogue) -> None:
    with pytest.raises(UnknownScope):
        Filter(shared_catalogue, shared_catalogue.scope("connective/marketing"))


@pytest.mark.parametrize("large", [0, 100])
async def test_a_large_file_is_keyed_by_several_processes_in_its_order(addresses: Addresses, ring: KeyRing, large: int) -> None:
    blocks = [[f"p{n}-{m}@example.org".encode() for m in range(50)] for n in range(12)]
    blocks[7][3] = b'"two\nlines"'
    crew = crews.Crew(ring.digest, Csv(HEADER), large=large)
    keyed = [each async for each in crew.keyed(iter(blocks))]
    assert [list(each.rows) for each in keyed] == blocks
    blocks[7][3] = b""
    assert [each.keys for each in keyed] == [addresses.keys(block) for block in blocks]
