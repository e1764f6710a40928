"""Imports: every row is taken or said to be refused, twice is once, a rehearsal is the play, and nothing is ever lifted."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from mailprefs import bulk, decisions, ledger, rows
from mailprefs.addresses import Addresses
from mailprefs.bulk import Import, Tally
from mailprefs.catalogue import Catalogue
from mailprefs.words import Address, Cause, Change, Door, Effect

MARKETING, NEWSLETTER, OFFERS, PARTNERS, STUDIES, CARE, ADS = 257, 272, 273, 274, 275, 289, 259


class Importer:
    """Imports a text as a command does, and keeps what was refused."""

    def __init__(self, conn: asyncpg.Connection, addresses: Addresses, catalogue: Catalogue, now: datetime) -> None:
        self.conn = conn
        self.now = now
        self.refused: dict[int, str] = {}
        self._import = Import(addresses, catalogue, now)

    async def __call__(self, kind: str, content: str, *, ndjson: bool = False, dry: bool = False) -> Tally:
        readers: dict[str, tuple[Any, Any]] = {
            "addresses": (self._import.address, bulk.entries),
            "suppressions": (self._import.suppression, bulk.changes),
            "consents": (self._import.consent, bulk.claims),
        }
        self.refused = {}
        found = rows.read(io.StringIO(content, newline=""), ndjson=ndjson)[1]
        reader, writer = readers[kind]
        return await bulk.run(self.conn, found, reader, writer, now=self.now, reject=self._reject, progress=lambda more: None, dry=dry)

    def _reject(self, row: rows.Row, reason: str) -> None:
        self.refused[row.number] = reason

    async def stops(self, address: Address) -> list[int] | None:
        found: list[int] | None = await self.conn.fetchval("select stops from address where key = $1", address.key)
        return found


@pytest.fixture
def imported(conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime) -> Importer:
    return Importer(conn, addresses, shared_catalogue, now)


@pytest.fixture
def jane(addresses: Addresses) -> Address:
    return addresses.read("jane@example.org")


STATE = (
    "select * from address order by bucket, key",
    "select * from consent order by bucket, key, evidence",
    "select * from push order by bucket, account, key, scope",
    "select * from proof order by digest",
)


async def everything(conn: asyncpg.Connection) -> list[list[asyncpg.Record]]:
    return [await conn.fetch(query) for query in STATE]


# Addresses


async def test_addresses_are_kept_as_they_are_spelled_and_found_as_they_are_meant(imported: Importer, jane: Address) -> None:
    tally = await imported(
        "addresses",
        "party,address,locale,region,plan\np1, Jane@Example.org ,en,US,gold\np1,+1 (202) 555-0123,,,\np2,jérôme@bücher.example.com,fr,,\n",
    )
    assert tally == Tally(read=3, accepted=3, added=3, rejected=0)
    found = await imported.conn.fetch("select channel, plaintext, locale, region, party from address order by plaintext")
    assert [tuple(row) for row in found] == [
        ("sms", "+12025550123", None, None, "p1"),
        ("email", "Jane@Example.org", "en", "US", "p1"),
        ("email", "jérôme@bücher.example.com", "fr", None, "p2"),
    ]
    assert await imported.conn.fetchval("select count(*) from address where key = $1", jane.key) == 1


async def test_an_address_that_is_none_is_refused_and_the_next_is_taken(imported: Importer) -> None:
    tally = await imported(
        "addresses",
        "address,channel\nnot an address,\n,\njane@example.org,sms\n+12025550123,email\njohn@example.org,fax\nkim@example.org,email\n",
    )
    assert (tally.read, tally.accepted, tally.added, tally.rejected) == (6, 1, 1, 5)
    assert list(imported.refused) == [1, 2, 3, 4, 5]
    assert not any("example.org" in reason or "5550123" in reason for reason in imported.refused.values())


async def test_an_address_first_known_by_key_wakes_what_waits_for_it(imported: Importer, jane: Address, now: datetime) -> None:
    stop = Change(Address(jane.key), NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)
    await ledger.record(imported.conn, [stop], now=now)
    asleep = "select count(*) from push where due_at = 'infinity'"
    assert await imported.conn.fetchval(asleep) == 2
    await imported("addresses", "address\njane@example.org\n")
    assert await imported.conn.fetchval(asleep) == 0
    assert await imported.conn.fetchval("select count(*) from push where due_at = $1", now) == 2


# Suppressions


MAIL, PHONE = "p{}@example.org", "+120255501{:02}"
SITS = [
    (MAIL, "connective/newsletter", "choice", NEWSLETTER),
    (MAIL, "newsletter", "choice", NEWSLETTER),
    (MAIL, "connective/marketing", "choice", MARKETING),
    (MAIL, "connective/marketing", "complaint", MARKETING),
    (MAIL, "connective/marketing", "minor", MARKETING),
    (MAIL, "connective/ads", "minor", ADS),
    (MAIL, "connective/ads", "choice", ADS),
    (MAIL, "*", "bounce", 0),
    (MAIL, "*", "invalid", 0),
    (PHONE, "connective/care", "choice", CARE),
    (PHONE, "connective", "choice", 256),
]
SITS_NOT = [
    (MAIL, "*", "choice"),  # the root is for bounce, invalid, soft and staff alone
    (PHONE, "*", "choice"),
    (MAIL, "*", "complaint"),
    (MAIL, "connective", "choice"),
    (MAIL, "connective/transactional", "choice"),  # the wall
    (MAIL, "orders", "choice"),
    (MAIL, "newsletter", "complaint"),
    (MAIL, "newsletter", "bounce"),
    (MAIL, "orders", "minor"),
    (MAIL, "newsletter", "staff"),  # staff's own door makes these
    (MAIL, "*", "soft"),  # ends by itself
    (MAIL, "newsletter", "pause"),
    (MAIL, "newsletter", "whim"),
    (MAIL, "newsletter", ""),
    (MAIL, "", "choice"),
    (MAIL, "gossip", "choice"),
    ("", "newsletter", "choice"),
    (" ", "newsletter", "choice"),
]


async def test_a_cause_is_kept_on_the_nodes_it_may_sit_on(imported: Importer, addresses: Addresses) -> None:
    lines = [f"{each.format(n)},{scope},{cause}\n" for n, (each, scope, cause, _) in enumerate(SITS)]
    assert (await imported("suppressions", "address,scope,cause\n" + "".join(lines))).added == len(SITS)
    for n, (each, _, _, number) in enumerate(SITS):
        assert await imported.stops(addresses.read(each.format(n))) == [number], SITS[n]


async def test_a_cause_that_does_not_sit_there_is_refused_and_the_next_row_is_taken(imported: Importer) -> None:
    lines = [f"{each.format(n)},{scope},{cause}\nkim{n}@example.org,newsletter,choice\n" for n, (each, scope, cause) in enumerate(SITS_NOT)]
    tally = await imported("suppressions", "address,scope,cause\n" + "".join(lines))
    assert list(imported.refused) == list(range(1, 2 * len(SITS_NOT), 2))
    assert (tally.added, tally.rejected) == (len(SITS_NOT), len(SITS_NOT))
    assert await imported.conn.fetchval("select count(*) from address where stops = $1", [NEWSLETTER]) == len(SITS_NOT)


async def test_a_suppression_is_kept_whatever_its_address_looks_like(imported: Importer, addresses: Addresses) -> None:
    tally = await imported("suppressions", "address,scope,cause\nNot an address @ all,*,invalid\n")
    assert tally.added == 1
    assert await imported.stops(addresses.heard("not an address @ all")) == [0]
    assert await imported.conn.fetchval("select plaintext from address") is None, "nobody gave us that text to write to"


async def test_a_suppression_beside_a_name_stops_the_address_that_is_meant(imported: Importer, jane: Address) -> None:
    written = ("Jane Doe <JANE@example.org>", "Jane <jane@example.org>, Kim <kim@example.org>")
    tally = await imported("suppressions", "address,scope,cause\n" + "".join(f'"{w}",newsletter,choice\n' for w in written))
    assert (tally.added, list(imported.refused)) == (1, [2])
    assert await imported.stops(jane) == [NEWSLETTER]
    assert await imported.conn.fetchval("select count(*) from address") == 1, "and nobody under a key that no one has"


async def test_one_evidence_behind_many_stops_of_an_address_loses_none(imported: Importer, jane: Address) -> None:
    content = (
        "address,scope,cause,at,evidence\n"
        "jane@example.org,newsletter,choice,2026-01-01T00:00:00Z,moved from the old tool\n"
        "jane@example.org,offers,choice,2026-01-01T00:00:00Z,moved from the old tool\n"
        "jane@example.org,connective/marketing,complaint,2026-01-01T00:00:00Z,moved from the old tool\n"
        "jane@example.org,offers,choice,2026-03-01T00:00:00Z,moved from the old tool\n"
    )
    assert (await imported("suppressions", content)).added == 4
    assert await imported.stops(jane) == [MARKETING, NEWSLETTER, OFFERS]


async def test_importing_again_adds_nothing(imported: Importer) -> None:
    content = (
        "address,scope,cause,at,evidence\n"
        "jane@example.org,newsletter,choice,,\n"
        "jane@example.org,newsletter,choice,2026-01-01T00:00:00+02:00,\n"
        "jane@example.org,newsletter,choice,2026-01-01T00:00:00+02:00,ticket 7\n"
    )
    assert (await imported("suppressions", content)).added == 3
    before = await everything(imported.conn)
    imported.now += timedelta(days=1)
    for again in (content, content.replace("newsletter", "connective/newsletter")):
        tally = await imported("suppressions", again)
        assert (tally.accepted, tally.added) == (3, 0)
    assert await everything(imported.conn) == before


async def test_the_same_moment_in_another_zone_is_the_same_fact(imported: Importer) -> None:
    row = "address,scope,cause,at\njane@example.org,newsletter,choice,{}\n"
    assert (await imported("suppressions", row.format("2026-01-01T02:00:00+02:00"))).added == 1
    assert (await imported("suppressions", row.format("2026-01-01T00:00:00Z"))).added == 0
    assert (await imported("suppressions", row.format("2026-01-01T00:00:00-05:00"))).added == 1, "the control: another moment"
    counted = await imported.conn.fetch("select at from consent order by at")
    assert [each["at"] for each in counted] == [datetime(2026, 1, 1, 0, tzinfo=UTC), datetime(2026, 1, 1, 5, tzinfo=UTC)]


async def test_a_time_that_could_mean_another_hour_is_refused(imported: Importer) -> None:
    odd = ["2026-01-01", "2026-01-01T00:00:00", "yesterday", "1767225600", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:00"]
    lines = [f"jane@example.org,newsletter,choice,{at}\n" for at in odd]
    tally = await imported("suppressions", "address,scope,cause,at\n" + "".join(lines))
    assert (tally.rejected, tally.added) == (len(odd), 0)
    assert all("'at'" in reason for reason in imported.refused.values())


async def test_a_time_to_come_counts_from_now(imported: Importer, now: datetime) -> None:
    await imported("suppressions", "address,scope,cause,at\njane@example.org,newsletter,choice,2099-01-01T00:00:00Z\n")
    assert await imported.conn.fetchval("select at from consent") == now


async def test_an_old_stop_does_not_close_what_a_person_has_opened_since(imported: Importer, jane: Address, now: datetime) -> None:
    go = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.GO, Door.MANAGE, "g", now)
    await ledger.record(imported.conn, [go], now=now)
    row = "address,scope,cause,at\njane@example.org,newsletter,choice,{}\n"
    await imported("suppressions", row.format("2020-01-01T00:00:00Z"))
    assert await imported.stops(jane) is None
    imported.now += timedelta(days=1)
    await imported("suppressions", row.format("2099-01-01T00:00:00Z"))
    assert await imported.stops(jane) == [NEWSLETTER], "the control: a later one does"


async def test_a_line_break_in_a_column_of_ours_is_refused(imported: Importer) -> None:
    content = 'address,scope,cause,evidence\njane@example.org,newsletter,choice,"t\nkim@example.org,newsletter,choice,"\n'
    tally = await imported("suppressions", content)
    assert (tally.added, tally.rejected) == (0, 1), "the row it swallowed is not passed over: it stands in the rejects"


async def test_numbers_in_objects_are_not_passed_over(imported: Importer) -> None:
    lines = (
        '{"address": "jane@example.org", "scope": "newsletter", "cause": "choice", "at": 1767225600}\n'
        '{"address": "kim@example.org", "scope": "newsletter", "cause": "choice", "at": null, "evidence": 7, "more": {}}\n'
    )
    tally = await imported("suppressions", lines, ndjson=True)
    assert (tally.added, list(imported.refused)) == (1, [1])


# Consents


async def test_a_consent_is_a_claim_that_satisfies_opt_in_alone(imported: Importer, jane: Address) -> None:
    content = (
        "address,scope,at,source,notice\n"
        'jane@example.org,partners,2026-01-01T00:00:00Z,form 7,"Yes, ""write"" to me\nabout partners"\n'
        "jane@example.org,studies,2026-01-01T00:00:00Z,form 7,\n"
    )
    assert (await imported("consents", content)).added == 2
    row = await imported.conn.fetchrow("select stops, goes, grants, claims from address where key = $1", jane.key)
    assert row is not None
    assert tuple(row) == (None, None, None, [PARTNERS, STUDIES])


async def test_a_consent_lifts_nothing(imported: Importer, jane: Address, now: datetime) -> None:
    stop = Change(jane, PARTNERS, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)
    await ledger.record(imported.conn, [stop], now=now)
    imported.now += timedelta(days=1)
    await imported("consents", "address,scope,at,source\njane@example.org,partners,2026-11-23T00:00:00Z,form 7\n")
    assert await imported.stops(jane) == [PARTNERS]


async def test_a_consent_without_its_evidence_is_refused(imported: Importer) -> None:
    lines = [
        "jane@example.org,partners,,form 7",
        "jane@example.org,partners,2026-01-01,form 7",
        "jane@example.org,partners,2026-01-01T00:00:00Z,",
        "jane@example.org,connective/marketing,2026-01-01T00:00:00Z,form 7",
        "jane@example.org,*,2026-01-01T00:00:00Z,form 7",
        "not an address,partners,2026-01-01T00:00:00Z,form 7",
    ]
    tally = await imported("consents", "address,scope,at,source\n" + "\n".join(lines))
    assert (tally.added, tally.rejected) == (0, len(lines))


async def test_what_a_consent_said_can_be_shown_and_is_kept_once(
    imported: Importer, jane: Address, shared_catalogue: Catalogue, now: datetime
) -> None:
    rows_of = ("jane@example.org,partners,2026-01-01T00:00:00Z", "kim@example.org,partners,2026-02-01T00:00:00Z")
    said = 'form 7,"Yes, ""write"" to me\nabout partners"'
    await imported("consents", "address,scope,at,source,notice\n" + "".join(f"{row},{said}\n" for row in rows_of))
    stop = Change(jane, PARTNERS, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)
    await ledger.record(imported.conn, [stop], now=now)
    whole = await decisions.why(imported.conn, jane, "jane@example.org", (), shared_catalogue, now=now)
    claim, press = whole["history"]
    assert (claim["effect"], claim["source"], claim["notice"]) == ("grant", "form 7", 'Yes, "write" to me\nabout partners')
    assert "source" not in press
    assert await imported.conn.fetchval("select count(*) from proof") == 1, "what many people were shown is one proof"
    await imported("consents", "address,scope,at,source\njane@example.org,partners,2026-01-01T00:00:00Z,form 8\n")
    assert await imported.conn.fetchval("select count(*) from proof") == 2


@pytest.mark.parametrize(
    ("source", "notice", "said"),
    [
        ("form of jane@example.org", "", "may name nobody"),
        ("told by kim@example.com", "", "may name nobody"),
        ("form 7", "Jane@Example.org agreed", "may name nobody"),
        ("x" * 201, "", "200 characters"),
        ("form 7", "x" * 2001, "2,000"),
    ],
)
async def test_a_proof_that_would_keep_a_person_for_ever_is_refused(imported: Importer, source: str, notice: str, said: str) -> None:
    row = "address,scope,at,source,notice\njane@example.org,partners,2026-01-01T00:00:00Z,{},{}\n"
    assert (await imported("consents", row.format(source, notice))).rejected == 1
    assert said in imported.refused[1]
    assert "@" not in imported.refused[1]
    assert (await imported("consents", row.format("x" * 200, "Write to privacy@example.com to leave"))).added == 1, "the control"


# All of them

MANY = 2_300  # rows: three transactions
FILES = {
    "addresses": "address,locale\n" + "".join(f"p{n % 1_500}@example.org,en\n" for n in range(MANY)) + "nobody\n",
    "suppressions": "address,scope,cause\n" + "".join(f"p{n % 1_500}@example.org,newsletter,choice\n" for n in range(MANY)) + "nobody,,\n",
    "consents": "address,scope,at,source\n"
    + "".join(f"p{n % 1_500}@example.org,partners,2026-01-01T00:00:00Z,form\n" for n in range(MANY))
    + "nobody,,,\n",
}


@pytest.mark.parametrize("kind", list(FILES))
async def test_a_dry_run_says_what_the_real_one_will_and_keeps_nothing(imported: Importer, kind: str) -> None:
    before = await everything(imported.conn)
    rehearsed = await imported(kind, FILES[kind], dry=True)
    refused = imported.refused
    assert await everything(imported.conn) == before
    assert await imported(kind, FILES[kind]) == rehearsed == Tally(MANY + 1, MANY, 1_500, 1)
    assert imported.refused == refused
    assert await everything(imported.conn) != before, "the control: the real run keeps something"
    assert (await imported(kind, FILES[kind], dry=True)).added == 0


async def test_an_import_that_is_broken_off_keeps_the_transactions_before_and_can_be_run_again(imported: Importer, database: str) -> None:
    other = await asyncpg.connect(database)
    await other.execute("alter table address add constraint full_up check (plaintext <> 'p1100@example.org')")
    with pytest.raises(asyncpg.CheckViolationError):
        await imported("addresses", FILES["addresses"])
    assert await other.fetchval("select count(*) from address") == bulk.BATCH
    await other.execute("alter table address drop constraint full_up")
    await other.close()
    assert (await imported("addresses", FILES["addresses"])).added == 1_500 - bulk.BATCH, "and the rest comes when it is run again"


async def test_no_field_brings_the_end_of_a_line_with_it(imported: Importer) -> None:
    """An audience's file has one row a line, for whoever reads it."""
    tally = await imported("addresses", 'address,party\na@example.org,"p\r1"\nb@example.org,"p\n2"\nc@example.org,p3\r\n')
    assert (tally.added, imported.refused) == (1, {1: "a line break in a field", 2: "a line break in a field"})
