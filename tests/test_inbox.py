"""What a provider told: each fact becomes the Change it means, of the person it means, once; and what cannot be placed is kept aside."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog
from prometheus_client import REGISTRY

from mailprefs import ledger, telemetry
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Account, Catalogue
from mailprefs.errors import Forged
from mailprefs.inbox import Inbox
from mailprefs.links import KeyRing, Links
from mailprefs.providers.base import Heard, Kept, Once
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect, Event, Kind

ROOT, MARKETING, NEWSLETTER, OFFERS, RECOVERY, CARE = 0, 257, 272, 273, 276, 289
Alarms = list[MutableMapping[str, Any]]


@pytest.fixture
def jane(addresses: Addresses) -> Address:
    return addresses.read("jane@example.org")


@pytest.fixture
def inbox(shared_catalogue: Catalogue, addresses: Addresses, ring: KeyRing) -> Inbox:
    return Inbox(shared_catalogue.account[0], shared_catalogue, addresses, ring, Channel.EMAIL)


@pytest.fixture
def texts(shared_catalogue: Catalogue, addresses: Addresses, ring: KeyRing) -> Inbox:
    account = Account(name="texts", provider="twilio", brand="connective", stops="care")
    return Inbox(account, shared_catalogue, addresses, ring, Channel.SMS)


@pytest.fixture
def alarms() -> Iterator[Alarms]:
    """What is logged meanwhile."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def event(kind: Kind, at: datetime, id: str = "e1", address: str | None = "jane@example.org", **more: Any) -> Event:
    return Event(kind, id, at, address, **more)


async def kept(conn: asyncpg.Connection, inbox: Inbox, now: datetime, *events: Event, **more: Any) -> int:
    async with conn.transaction():
        return await inbox.keep(conn, Heard(events, **more), now=now)


async def recorded(conn: asyncpg.Connection) -> list[tuple[str, ...]]:
    rows = await conn.fetch("select scope, cause, effect, door, teller from consent order by received_at, evidence")
    return [tuple(row) for row in rows]


async def stops(conn: asyncpg.Connection, address: Address) -> list[int] | None:
    found: list[int] | None = await conn.fetchval("select stops from address where key = $1", address.key)
    return found


async def test_every_kind_becomes_the_change_it_means(conn: asyncpg.Connection, inbox: Inbox, addresses: Addresses, now: datetime) -> None:
    meant: dict[Kind, list[tuple[Any, ...]]] = {
        Kind.BOUNCED_HARD: [(ROOT, "bounce", "stop", "provider")],
        Kind.COMPLAINED: [(MARKETING, "complaint", "stop", "provider")],
        Kind.COMPLAINT_RETRACTED: [(MARKETING, "complaint", "note", "provider")],
        Kind.UNSUBSCRIBED: [(MARKETING, "choice", "stop", "provider")],
        Kind.RESUBSCRIBED: [(MARKETING, "choice", "note", "provider")],
    }
    for kind in Kind:
        whom = f"{kind}@example.org".replace("_", "-")
        changes = meant.get(kind, [])
        assert await kept(conn, inbox, now, event(kind, now, kind, whom)) == len(changes), kind
        rows = await conn.fetch("select scope, cause, effect, door from consent where key = $1", addresses.read(whom).key)
        assert [tuple(row) for row in rows] == changes, kind
    assert await conn.fetchval("select count(*) from consent where teller = 'sendgrid-main' and happened_at = $1", now) == len(meant)


async def test_a_group_that_was_left_is_the_scope_it_is_mapped_to(
    conn: asyncpg.Connection, inbox: Inbox, jane: Address, now: datetime, alarms: Alarms
) -> None:
    await kept(conn, inbox, now, event(Kind.UNSUBSCRIBED, now, group="12345"), event(Kind.UNSUBSCRIBED, now, "e2", group="12346"))
    assert await stops(conn, jane) == [NEWSLETTER, OFFERS]
    assert alarms == []


async def test_a_complaint_stops_all_marketing_whatever_group_it_names(
    conn: asyncpg.Connection, inbox: Inbox, jane: Address, now: datetime
) -> None:
    await kept(conn, inbox, now, event(Kind.COMPLAINED, now, group="12345"))
    assert await stops(conn, jane) == [MARKETING]


@pytest.mark.parametrize("group", ["", "777", "12345 ", "newsletter"])
async def test_a_group_that_nobody_mapped_stops_all_marketing_and_is_alarmed(
    conn: asyncpg.Connection, inbox: Inbox, jane: Address, now: datetime, alarms: Alarms, group: str
) -> None:
    await kept(conn, inbox, now, event(Kind.UNSUBSCRIBED, now, group=group))
    assert await stops(conn, jane) == [MARKETING]
    assert [(line["event"], line["account"]) for line in alarms] == [("unmapped_group", "sendgrid-main")]


async def test_a_sensitive_topic_is_heard_though_it_is_never_told(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, ring: KeyRing, jane: Address, now: datetime
) -> None:
    account = shared_catalogue.account[0].model_copy(update={"scopes": {"recovery": "5"}})
    await kept(conn, Inbox(account, shared_catalogue, addresses, ring, Channel.EMAIL), now, event(Kind.UNSUBSCRIBED, now, group="5"))
    assert await stops(conn, jane) == [RECOVERY]


async def test_our_own_token_beats_the_address(
    conn: asyncpg.Connection, inbox: Inbox, links: Links, shared_catalogue: Catalogue, addresses: Addresses, jane: Address, now: datetime
) -> None:
    token = links.token(jane.key, shared_catalogue.topic("newsletter"))
    await kept(conn, inbox, now, event(Kind.UNSUBSCRIBED, now, address="forwarded@example.net", token=token, group="12345"))
    assert await stops(conn, jane) == [NEWSLETTER]
    assert await conn.fetchval("select count(*) from address") == 1
    await kept(conn, inbox, now, event(Kind.BOUNCED_HARD, now, "e2", None, token=token))
    assert await stops(conn, jane) == [ROOT, NEWSLETTER]


async def test_a_token_that_is_not_ours_leaves_the_address_its_say(
    conn: asyncpg.Connection, inbox: Inbox, jane: Address, addresses: Addresses, shared_catalogue: Catalogue, now: datetime
) -> None:
    foreign = Links(KeyRing.new(date(2026, 1, 1)), "go.example.com", "u@go.example.com")
    before = _counted("mailprefs_foreign_tokens_total", account="sendgrid-main")
    for n, token in enumerate(
        (foreign.token(addresses.read("x@example.org").key, shared_catalogue.topic("newsletter")), "x", "\ud800", "é" * 45)
    ):
        assert await kept(conn, inbox, now, event(Kind.UNSUBSCRIBED, now, f"e{n}", token=token)) == 1
    assert await stops(conn, jane) == [MARKETING]
    assert await conn.fetchval("select count(*) from address") == 1
    assert _counted("mailprefs_foreign_tokens_total", account="sendgrid-main") == before + 4


async def test_a_person_we_never_met_is_kept_by_key_without_the_text(
    conn: asyncpg.Connection, inbox: Inbox, addresses: Addresses, now: datetime
) -> None:
    strange = ["new@example.org", "not an address", "x" * 2_000, "half\ud800@example.org", "nul\0@example.org"]
    assert await kept(conn, inbox, now, *(event(Kind.BOUNCED_HARD, now, f"e{n}", each) for n, each in enumerate(strange))) == len(strange)
    for each in strange:
        assert await stops(conn, addresses.heard(each)) == [ROOT]
    assert await conn.fetchval("select count(plaintext) from address") == 0


async def test_what_names_nobody_is_kept_aside_and_the_rest_is_recorded(
    conn: asyncpg.Connection, inbox: Inbox, jane: Address, now: datetime, alarms: Alarms
) -> None:
    before = _counted("mailprefs_alarms_total", alarm="kept_aside", account="sendgrid-main")
    nobody = [event(Kind.UNSUBSCRIBED, now, f"n{n}", address) for n, address in enumerate((None, "", " \t"))]
    assert await kept(conn, inbox, now, *nobody, event(Kind.COMPLAINED, now)) == 1
    assert await stops(conn, jane) == [MARKETING]
    rows = await conn.fetch("select account, reason, raw, received_at from event order by raw")
    assert [tuple(row) for row in rows] == [("sendgrid-main", "no_recipient", f"unsubscribed n{n}".encode(), now) for n in range(3)]
    assert [line["event"] for line in alarms] == ["kept_aside"], "one line, and a count that misses none"
    assert _counted("mailprefs_alarms_total", alarm="kept_aside", account="sendgrid-main") == before + 3


async def test_what_could_not_be_read_is_kept_once(conn: asyncpg.Connection, inbox: Inbox, now: datetime) -> None:
    aside = (Kept("unknown_kind", b"\xff\0{"), Kept("unknown_kind", b"\xff\0{"), Kept("unreadable", b"other"))
    for _ in range(2):
        assert await kept(conn, inbox, now, kept=aside) == 0
    rows = await conn.fetch("select reason, raw from event order by reason")
    assert [tuple(row) for row in rows] == [("unknown_kind", b"\xff\0{"), ("unreadable", b"other")]


async def test_the_same_event_twice_is_one_row(conn: asyncpg.Connection, inbox: Inbox, now: datetime) -> None:
    once = event(Kind.UNSUBSCRIBED, now)
    assert await kept(conn, inbox, now, once, once) == 1
    assert await kept(conn, inbox, now + timedelta(days=1), once) == 0
    assert await kept(conn, inbox, now, replace(once, id="e2")) == 1, "the control: another event is another row"


async def test_an_id_of_any_spelling_names_one_fact_of_one_account(
    conn: asyncpg.Connection, inbox: Inbox, shared_catalogue: Catalogue, addresses: Addresses, ring: KeyRing, now: datetime
) -> None:
    odd = ["", "a b", "x" * 50_000, "half\ud800", "nul\0", "é", "plain-1"]
    events = [event(Kind.UNSUBSCRIBED, now, id) for id in odd]
    assert await kept(conn, inbox, now, *events) == len(odd)
    assert await kept(conn, inbox, now, *events) == 0
    other = Inbox(shared_catalogue.account[1], shared_catalogue, addresses, ring, Channel.EMAIL)
    assert await kept(conn, other, now, *events) == len(odd), "an id is unique at the account that told it, nowhere else"
    assert await conn.fetchval("select max(length(evidence)) from consent") < 200
    assert await conn.fetchval("select count(*) from consent where evidence = 'provider:sendgrid-main/plain-1'") == 1


async def test_a_resubscribe_is_a_note_that_lifts_nothing_and_is_answered(
    conn: asyncpg.Connection, inbox: Inbox, jane: Address, now: datetime
) -> None:
    await kept(conn, inbox, now, event(Kind.UNSUBSCRIBED, now, group="12345"))
    await conn.execute("delete from push")  # whoever had to hear has heard
    await kept(conn, inbox, now, event(Kind.RESUBSCRIBED, now + timedelta(hours=1), "e2", group="12345"))
    assert await stops(conn, jane) == [NEWSLETTER]
    owed = await conn.fetch("select name, scope, stop from push join account using (account)")
    assert [tuple(row) for row in owed] == [("sendgrid-main", NEWSLETTER, True)], "who says so is told stop again, and nobody else"


async def test_the_teller_is_not_told_what_it_said_and_the_others_are(conn: asyncpg.Connection, inbox: Inbox, now: datetime) -> None:
    await kept(conn, inbox, now, event(Kind.UNSUBSCRIBED, now, group="12345"))
    owed = await conn.fetch("select name, scope, stop from push join account using (account)")
    assert [tuple(row) for row in owed] == [("sendgrid-second", NEWSLETTER, True)]


async def test_an_echo_is_counted_and_changes_nothing(conn: asyncpg.Connection, inbox: Inbox, now: datetime) -> None:
    assert await kept(conn, inbox, now, event(Kind.DROPPED, now, group="12345"), event(Kind.DELIVERED, now, "e2")) == 0
    assert await conn.fetchval("select count(*) from address") == 0
    rows = await conn.fetch("select kind, events from heard order by kind")
    assert [tuple(row) for row in rows] == [("delivered", 1), ("dropped", 1)]


async def test_all_that_was_heard_is_tallied(conn: asyncpg.Connection, inbox: Inbox, now: datetime) -> None:
    later = now + timedelta(hours=1)
    before = _counted("mailprefs_events_total", account="sendgrid-main", kind="delivered")
    counted = {"delivered": 40, "opened": 7}
    await kept(conn, inbox, later, event(Kind.UNSUBSCRIBED, now), event(Kind.BOUNCED_SOFT, now, "e2"), counted=counted)
    await kept(conn, inbox, now, event(Kind.UNSUBSCRIBED, now), counted=counted)
    rows = await conn.fetch("select kind, events, last_at from heard where account = 'sendgrid-main' order by kind")
    assert [tuple(row) for row in rows] == [
        ("bounced_soft", 1, later),
        ("delivered", 80, later),
        ("opened", 14, later),
        ("unsubscribed", 2, later),
    ]
    assert _counted("mailprefs_events_total", account="sendgrid-main", kind="delivered") == before + 80


async def test_a_text_stops_what_its_account_names_and_start_opens_just_that(
    conn: asyncpg.Connection, texts: Inbox, addresses: Addresses, now: datetime
) -> None:
    phone = addresses.read("+12025550123")
    marketing = Change(phone, MARKETING, Cause.CHOICE, Effect.STOP, Door.PAGE, "p", now)
    await ledger.record(conn, [marketing], now=now)
    await kept(conn, texts, now, event(Kind.UNSUBSCRIBED, now, "s1", "+1 202 555 0123", group="whatever"))
    assert await stops(conn, phone) == [MARKETING, CARE]
    await kept(conn, texts, now, event(Kind.RESUBSCRIBED, now + timedelta(minutes=5), "s2", "+1 202 555 0123"))
    assert await stops(conn, phone) == [MARKETING, CARE], "a time to come counts from now, and ties hold"
    later = now + timedelta(minutes=9)
    await kept(conn, texts, later, event(Kind.RESUBSCRIBED, now + timedelta(minutes=5), "s3", "+1 202 555 0123"))
    assert await stops(conn, phone) == [MARKETING]
    assert {row[3] for row in await recorded(conn)} == {"page", "sms"}


async def test_a_proof_that_counts_once_is_taken_again_with_the_same_body_alone(
    conn: asyncpg.Connection, inbox: Inbox, jane: Address, now: datetime, alarms: Alarms
) -> None:
    first = Once("nonce", b"a" * 32)
    await kept(conn, inbox, now, event(Kind.UNSUBSCRIBED, now, group="12345"), once=first)
    await kept(conn, inbox, now, event(Kind.UNSUBSCRIBED, now, group="12345"), once=first)
    assert alarms == []
    with pytest.raises(Forged):
        await kept(conn, inbox, now, event(Kind.COMPLAINED, now, "e2"), once=Once("nonce", b"b" * 32))
    assert await stops(conn, jane) == [NEWSLETTER]
    assert [line["event"] for line in alarms] == ["proof_used_again"]
    await kept(conn, inbox, now, event(Kind.COMPLAINED, now, "e2"), once=Once("another", b"b" * 32))
    assert await stops(conn, jane) == [MARKETING, NEWSLETTER], "the control: with a proof of its own it counts"


async def test_nothing_is_kept_of_a_delivery_that_is_not_committed(conn: asyncpg.Connection, inbox: Inbox, now: datetime) -> None:
    transaction = conn.transaction()
    await transaction.start()
    heard = Heard((event(Kind.UNSUBSCRIBED, now),), (Kept("unreadable", b"x"),), {"opened": 1}, Once("nonce", b"a" * 32))
    assert await inbox.keep(conn, heard, now=now) == 1
    await transaction.rollback()
    tables = (
        "select (select count(*) from consent) + (select count(*) from push) + (select count(*) from event) + (select count(*) from heard)"
    )
    assert await conn.fetchval(tables) == 0
    assert await conn.fetchval("select count(*) from once") == 0


async def test_deliveries_at_once_lose_nothing_and_do_not_wait_in_a_circle(database: str, inbox: Inbox, now: datetime) -> None:
    connections = [await asyncpg.connect(database) for _ in range(4)]
    people = [f"p{n}@example.org" for n in range(60)]

    async def deliver(conn: asyncpg.Connection, offset: int) -> None:
        for turn in range(6):
            order = people[offset * 7 :] + people[: offset * 7]
            if turn % 2:
                order.reverse()
            kinds = (Kind.UNSUBSCRIBED, Kind.BOUNCED_SOFT, Kind.COMPLAINED)
            events = [event(kinds[n % 3], now, f"{offset}-{turn}-{n}", each) for n, each in enumerate(order)]
            await kept(conn, inbox, now, *events, counted={"opened": 1, "delivered": 1}, kept=(Kept("unreadable", b"x"),))

    await asyncio.gather(*(deliver(each, n) for n, each in enumerate(connections)))
    assert (
        await connections[0].fetchval("select sum(events) from heard where kind in ('unsubscribed', 'bounced_soft', 'complained')")
        == 4 * 6 * 60
    )
    assert await ledger.differing(connections[0]) == 0
    for each in connections:
        await each.close()


async def test_no_alarm_and_no_metric_says_who(
    conn: asyncpg.Connection, inbox: Inbox, now: datetime, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    telemetry.start(json=True)
    secret = "canary-person"
    await kept(
        conn,
        inbox,
        now,
        event(Kind.UNSUBSCRIBED, now, f"{secret}-id", f"{secret}@example.org", group=f"{secret}-group", token=f"{secret}-token"),
        event(Kind.COMPLAINED, now, f"{secret}-id", None),
        kept=(Kept("unreadable", secret.encode()),),
    )
    structlog.reset_defaults()
    said = capfd.readouterr()
    assert "unmapped_group" in said.err, "the control: the alarms were written"
    assert secret not in said.out + said.err
    assert not any(secret in str(sample) for metric in REGISTRY.collect() for sample in metric.samples)


def _counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0
