"""Everyone who may be sent a topic: the Decision for each of them, in the columns and the form that were asked for."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations
from uuid import UUID

import asyncpg
import pytest

from mailprefs import audience, db, decisions, directory, ledger
from mailprefs.addresses import Addresses
from mailprefs.audience import Format
from mailprefs.catalogue import Catalogue
from mailprefs.decisions import Question
from mailprefs.directory import Entry
from mailprefs.errors import NotMintable, UnknownScope
from mailprefs.links import Links
from mailprefs.spelling import COLUMNS, MINTED, Speller
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect

pytestmark = pytest.mark.spread

ROOT, MARKETING, NEWSLETTER, PARTNERS, STUDIES, TRANSACTIONAL = 0, 257, 272, 274, 275, 258
ODD = ("comma, quote \" and apostrophe '", "line\r\nbreak", "\\.", "\x01\x02\t\x1f\x7f", "emoji \U0001f600 and é", "{}", "=1+1", " padded ")


@pytest.fixture
async def people(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> list[Address]:
    """Everyone: mail and phones, stopped, opened again, paused, bounced, claimed, granted, known by key alone."""
    emails = [addresses.read(f"p{n}@example.org") for n in range(12)]
    phones = [addresses.read(f"+120255501{n:02}") for n in range(6)]
    unknown = addresses.read("unknown@example.org")
    await directory.know(conn, [Entry(each, "en", "US", f"party {n}") for n, each in enumerate([*emails, *phones])], now=now)
    later = now + timedelta(days=30)
    changes = [
        Change(emails[1], NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now),
        Change(emails[2], MARKETING, Cause.CHOICE, Effect.STOP, Door.MANAGE, "1", now),
        Change(emails[2], NEWSLETTER, Cause.CHOICE, Effect.GO, Door.MANAGE, "2", now),
        Change(emails[3], ROOT, Cause.BOUNCE, Effect.STOP, Door.PROVIDER, "1", now),
        Change(emails[4], MARKETING, Cause.COMPLAINT, Effect.STOP, Door.PROVIDER, "1", now),
        Change(emails[5], NEWSLETTER, Cause.PAUSE, Effect.STOP, Door.PAGE, "1", now, until=later),
        Change(emails[6], PARTNERS, Cause.CHOICE, Effect.GRANT, Door.IMPORT, "1", now),
        Change(emails[7], PARTNERS, Cause.CHOICE, Effect.GRANT, Door.MANAGE, "1", now),
        Change(emails[7], STUDIES, Cause.CHOICE, Effect.GRANT, Door.MANAGE, "2", now),
        Change(emails[8], STUDIES, Cause.CHOICE, Effect.GRANT, Door.IMPORT, "1", now),
        Change(emails[9], TRANSACTIONAL, Cause.STAFF, Effect.STOP, Door.STAFF, "1", now),
        Change(phones[1], NEWSLETTER, Cause.CHOICE, Effect.GRANT, Door.IMPORT, "1", now),
        Change(phones[2], NEWSLETTER, Cause.CHOICE, Effect.GRANT, Door.SMS, "1", now),
        Change(phones[2], MARKETING, Cause.CHOICE, Effect.STOP, Door.SMS, "2", now),
        Change(phones[3], 256, Cause.CHOICE, Effect.STOP, Door.SMS, "1", now),
        Change(unknown, PARTNERS, Cause.CHOICE, Effect.GRANT, Door.MANAGE, "1", now),
    ]
    await ledger.record(conn, changes, now=now)
    return [*emails, *phones, unknown]


class Sink(list[bytes]):
    async def __call__(self, chunk: bytes) -> None:
        self.append(chunk)


async def streamed(
    conn: asyncpg.Connection,
    catalogue: Catalogue,
    topic: str,
    now: datetime,
    channel: Channel = Channel.EMAIL,
    columns: Sequence[str] = ("address",),
    format: Format = Format.CSV,
) -> tuple[int, str]:
    sink = Sink()
    count = await audience.stream(conn, catalogue.topic(topic), channel, sink, now=now, columns=columns, format=format)
    return count, b"".join(sink).decode()


async def sent(conn: asyncpg.Connection, catalogue: Catalogue, topic: str, now: datetime, channel: Channel = Channel.EMAIL) -> set[str]:
    count, text = await streamed(conn, catalogue, topic, now, channel)
    header, *found = text.splitlines()
    assert header == "address"
    assert count == len(found) == len(set(found))
    return set(found)


async def test_it_is_the_decision_for_everyone(
    conn: asyncpg.Connection, people: list[Address], shared_catalogue: Catalogue, now: datetime
) -> None:
    answers = set()
    for at in (now, now + timedelta(days=31)):
        for topic in shared_catalogue.topics:
            questions = [Question(each, str(each.text), topic.name) for each in people]
            allowed = {d.address for d in await decisions.decide(conn, questions, shared_catalogue, now=at) if d.allowed}
            for channel in Channel:
                known = {str(each.text) for each in people[:-1] if each.channel is channel}
                assert await sent(conn, shared_catalogue, topic.name, at, channel) == allowed & known, (topic.name, channel)
                answers.add(frozenset(allowed & known))
    assert len(answers) > 8, "the control: the topics differ"


async def test_consent_is_per_channel(conn: asyncpg.Connection, people: list[Address], shared_catalogue: Catalogue, now: datetime) -> None:
    assert await sent(conn, shared_catalogue, "partners", now) == {"p6@example.org", "p7@example.org"}
    assert await sent(conn, shared_catalogue, "studies", now) == {"p7@example.org"}, "a claim is no double opt-in"
    assert await sent(conn, shared_catalogue, "newsletter", now, Channel.SMS) == {"+12025550101"}, "by text, marketing wants consent"
    assert len(await sent(conn, shared_catalogue, "newsletter", now)) == 8, "the control: by mail it is opt-out"
    assert len(await sent(conn, shared_catalogue, "care", now, Channel.SMS)) == 5


async def test_a_text_that_is_not_known_is_in_no_audience(
    conn: asyncpg.Connection, people: list[Address], shared_catalogue: Catalogue, now: datetime
) -> None:
    whole = [
        await streamed(conn, shared_catalogue, topic.name, now, channel, COLUMNS)
        for topic in shared_catalogue.topics
        for channel in Channel
    ]
    assert not any("unknown@example.org" in text or "\n," in text for _, text in whole)
    await directory.know(conn, [Entry(people[-1])], now=now)
    assert "unknown@example.org" in await sent(conn, shared_catalogue, "partners", now), "the control: once it is known, it is"


async def test_the_columns_come_in_the_order_that_was_asked_for(
    conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime
) -> None:
    values = {"address": "jane@example.org", "locale": "es", "region": "US", "party": "p1"}
    await directory.know(conn, [Entry(addresses.read("jane@example.org"), "es", "US", "p1")], now=now)
    for size in range(1, 5):
        for columns in permutations(COLUMNS, size):
            _, text = await streamed(conn, shared_catalogue, "newsletter", now, columns=columns)
            assert text == ",".join(columns) + "\n" + ",".join(values[name] for name in columns) + "\n"
            _, text = await streamed(conn, shared_catalogue, "newsletter", now, columns=columns, format=Format.NDJSON)
            assert json.loads(text) == {name: values[name] for name in columns}


@pytest.mark.parametrize("format", list(Format))
async def test_whatever_a_column_holds_comes_out_as_it_went_in(
    conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime, format: Format
) -> None:
    given = {f"p{n}@example.org": odd for n, odd in enumerate(ODD)} | {"none@example.org": None}
    await directory.know(conn, [Entry(addresses.read(text), party=odd) for text, odd in given.items()], now=now)
    columns = ("party", "address")
    count, text = await streamed(conn, shared_catalogue, "newsletter", now, columns=columns, format=format)
    assert count == len(given)
    if format is Format.CSV:
        found = {row["address"]: row["party"] or None for row in csv.DictReader(io.StringIO(text, newline=""))}
    else:
        found = {row["address"]: row.get("party") for row in map(json.loads, text.removesuffix("\n").split("\n"))}
    assert found == given


@pytest.mark.parametrize("format", list(Format))
async def test_nobody_is_an_audience_too(conn: asyncpg.Connection, shared_catalogue: Catalogue, now: datetime, format: Format) -> None:
    assert await streamed(conn, shared_catalogue, "newsletter", now, format=format) == (0, "address\n" if format is Format.CSV else "")


async def test_what_cannot_be_asked_for_is_refused_before_anything_is_sent(
    conn: asyncpg.Connection, people: list[Address], shared_catalogue: Catalogue, now: datetime
) -> None:
    newsletter = shared_catalogue.topic("newsletter")
    scopes = [shared_catalogue.scope(name) for name in ("*", "connective", "connective/marketing", "connective/ads")]
    for topic, columns in (
        *((scope, ("address",)) for scope in scopes),
        (replace(newsletter, retired=True), ("address",)),
        (newsletter, ()),
        (newsletter, ("address", "address")),
        (newsletter, ("plaintext",)),
        (newsletter, ("address; drop table address",)),
    ):
        sink = Sink()
        with pytest.raises(UnknownScope):
            await audience.stream(conn, topic, Channel.EMAIL, sink, now=now, columns=columns)
        assert sink == []
    sink = Sink()
    assert await audience.stream(conn, newsletter, Channel.EMAIL, sink, now=now) > 0, "the control"


async def test_who_stops_reading_gets_no_whole_audience(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, now: datetime
) -> None:
    await directory.know(conn, [Entry(addresses.read(f"{n}-{'x' * 50}@example.org")) for n in range(3_000)], now=now)

    async def closed(chunk: bytes) -> None:
        if b"@" in chunk:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await audience.stream(conn, shared_catalogue.topic("newsletter"), Channel.EMAIL, closed, now=now)
    assert len(await sent(conn, shared_catalogue, "newsletter", now)) == 3_000, "and the connection is whole"


@pytest.mark.parametrize("format", list(Format))
async def test_links_follow_each_row_and_stop_its_address(
    conn: asyncpg.Connection, addresses: Addresses, links: Links, shared_catalogue: Catalogue, now: datetime, format: Format
) -> None:
    given = {f"p{n}@example.org": odd for n, odd in enumerate(ODD)} | {"none@example.org": None, "empty@example.org": ""}
    await directory.know(conn, [Entry(addresses.read(text), party=odd) for text, odd in given.items()], now=now)
    topic, sink = shared_catalogue.topic("newsletter"), Sink()
    columns = ("party", "address", *MINTED)
    count = await audience.stream(conn, topic, Channel.EMAIL, sink, now=now, columns=columns, format=format, links=links)
    text = b"".join(sink).decode()
    if format is Format.CSV:
        found = list(csv.DictReader(io.StringIO(text, newline="")))
    else:
        found = [json.loads(line) for line in text.removesuffix("\n").split("\n")]
    assert count == len(found) == len(given)
    assert {row["address"]: row.get("party") or None for row in found} == {text: odd or None for text, odd in given.items()}
    for row in found:
        minted = links.mint(addresses.read(row["address"]).key, topic)
        assert tuple(row[name] for name in MINTED) == (minted.url, *minted.headers.values())


async def test_a_topic_without_links_is_refused_before_anything_is_sent(
    conn: asyncpg.Connection, links: Links, shared_catalogue: Catalogue, now: datetime
) -> None:
    sink = Sink()
    with pytest.raises(NotMintable):
        await audience.stream(
            conn, shared_catalogue.topic("orders"), Channel.EMAIL, sink, now=now, columns=("address", "url"), links=links
        )  # fmt: skip
    assert sink == []


async def test_no_spreadsheet_computes_what_the_variant_for_it_holds(
    conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime
) -> None:
    active = ('=HYPERLINK("https://example.org","x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "=1\n=2")
    for n, party in enumerate((*active, "plain", "a=b")):
        await directory.know(conn, [Entry(addresses.read(f"p{n}@example.org"), party=party)], now=now)
    await directory.know(conn, [Entry(addresses.read("+1@example.org"))], now=now)
    sink = Sink()
    topic, columns = shared_catalogue.topic("newsletter"), ("address", "party")
    await audience.stream(conn, topic, Channel.EMAIL, sink, now=now, columns=columns, spreadsheet=True)
    text = b"".join(sink).decode("utf-8-sig")
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@", "＝"))]
    assert {f"'{party}" for party in active} | {"'+1@example.org", "plain", "a=b"} <= set(cells)
    _, plain = await streamed(conn, shared_catalogue, "newsletter", now, columns=columns)
    assert "\n+1@example.org," in plain, "the control: for a machine, nothing is changed"


async def test_whoever_asks_again_in_order_gets_the_same_bytes(
    conn: asyncpg.Connection, people: list[Address], shared_catalogue: Catalogue, now: datetime
) -> None:
    async def asked(order: str | None) -> bytes:
        sink = Sink()
        await audience.stream(conn, shared_catalogue.topic("newsletter"), Channel.EMAIL, sink, now=now, order=order)
        return b"".join(sink)

    before = await asked("ordered")
    assert before.splitlines()[1:] == sorted(before.splitlines()[1:])
    plain = await asked(None)
    await conn.execute("update address set party = 'moved' where plaintext = 'p0@example.org'")  # it lies elsewhere now
    assert await asked(None) != plain, "the control: as they lie, the order is no promise"
    assert await asked("ordered") == before


@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_rows_that_are_cut_anywhere_are_spelt_alike(links: Links, shared_catalogue: Catalogue, size: int) -> None:
    key = "a5318b89-2af3-f654-7ffe-3f3a5602a2eb"
    rows = f'{key},a@example.org,"x ""y"",\nz",,\n{key},b@example.org,,,\n{key},"""q,\n\n"",""@example.org","",,\n'.encode()
    topic = shared_catalogue.topic("newsletter")
    speller = Speller(("address", "party"), ("url",), links, topic)
    spelt = b"".join(speller.spell(rows[n : n + size]) for n in range(0, len(rows), size))
    found = list(csv.reader(io.StringIO(spelt.decode(), newline="")))
    url = links.mint(UUID(key), topic).url
    assert found == [["a@example.org", 'x "y",\nz', url], ["b@example.org", "", url], ['"q,\n\n","@example.org', "", url]]


def test_parquet_without_its_library_says_what_brings_it() -> None:
    script = "import sys; sys.modules['duckdb'] = None; from mailprefs import parquet; parquet.duckdb()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "NotInstalled: Parquet wants DuckDB. In the folder of mailprefs: .venv/bin/pip install '.[parquet]'" in done.stderr


async def test_a_pause_is_what_it_was_when_its_rule_was_a_query(conn: asyncpg.Connection) -> None:
    """Looked at row by row in a loop: nothing, no pause, no path, no end; on the path or beside it; over, at its last moment, for ever."""
    differing = """
        select pauses, path, paused(pauses, path, now) found,
          exists (select from unnest(pauses) p where p.scope = any(path) and p.until > now) meant
        from (values (timestamptz '2026-11-22')) m(now),
          unnest(array[null, '{0,256,257,272}', '{}', '{null,272}']) q(text), cast(q.text as int[]) path,
          unnest(array[null, '{}', '{null}', '{"(272,2026-11-23)"}', '{"(272,2026-11-22)","(272,infinity)"}', '{"(272,2026-11-22)"}',
            '{"(273,2026-11-23)","(,2026-11-23)","(272,)"}', '{null,"(0,2026-11-23)"}']) r(text), cast(r.text as pause[]) pauses"""
    rows = await conn.fetch(differing)
    assert {row["meant"] for row in rows} == {True, False}
    assert [row for row in rows if row["found"] is not row["meant"]] == []


async def test_an_export_of_many_is_scanned_by_two_processes(
    conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime
) -> None:
    await directory.know(conn, [Entry(addresses.read(f"p{n}@example.org")) for n in range(2_000)], now=now)
    await conn.execute("analyze address")
    await conn.execute("set min_parallel_table_scan_size = 0")  # as if it were large
    topic = shared_catalogue.topic("newsletter")
    query, asked = "explain " + db.text("audience", "csv_1"), ("address", list(topic.path), topic.wants(Channel.EMAIL), "email", now)
    assert "Gather" not in str(await conn.fetch(query, *asked)), "the control: left to itself PostgreSQL takes one"

    async def nowhere(chunk: bytes) -> None: ...

    assert await audience.stream(conn, topic, Channel.EMAIL, nowhere, now=now) == 2_000
    assert "Workers Planned: 1" in str(await conn.fetch(query, *asked))
