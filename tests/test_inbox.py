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

from mailprefs import inbox as inbox_room
from mailprefs import ledger, numbers, telemetry
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Account, Brand, Catalogue
from mailprefs.errors import Forged
from mailprefs.inbox import Inbox
from mailprefs.links import KeyRing, Links
from mailprefs.providers.base import MOST_KEPT, Heard, Kept, Once
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


async def recorded(conn: asyncpg.Connection) -> list[tuple[Any, ...]]:
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


async def test_our_own_token_says_who_it_was(
    conn: asyncpg.Connection,
    inbox: Inbox,
    links: Links,
    shared_catalogue: Catalogue,
    jane: Address,
    now: datetime,
    alarms: Alarms,
) -> None:
    token = links.token(jane.key, shared_catalogue.topic("newsletter"))
    await kept(conn, inbox, now, event(Kind.UNSUBSCRIBED, now, address=" Jane@EXAMPLE.org", token=token, group="12345"))
    await kept(conn, inbox, now, event(Kind.BOUNCED_HARD, now, "e2", None, token=token))
    assert await stops(conn, jane) == [ROOT, NEWSLETTER]
    assert await conn.fetchval("select count(*) from address") == 1
    assert alarms == []


@pytest.mark.parametrize(("kind", "scope"), {Kind.UNSUBSCRIBED: MARKETING, Kind.COMPLAINED: MARKETING, Kind.BOUNCED_HARD: ROOT}.items())
async def test_where_token_and_address_disagree_both_stop_and_it_is_alarmed(
    conn: asyncpg.Connection,
    inbox: Inbox,
    links: Links,
    shared_catalogue: Catalogue,
    addresses: Addresses,
    jane: Address,
    now: datetime,
    alarms: Alarms,
    kind: Kind,
    scope: int,
) -> None:
    other = addresses.read("forwarded@example.net")
    told = event(kind, now, address="forwarded@example.net", token=links.token(jane.key, shared_catalogue.topic("newsletter")))
    assert await kept(conn, inbox, now, told, told) == 2
    assert await kept(conn, inbox, now, told) == 0
    assert (await stops(conn, jane), await stops(conn, other)) == ([scope], [scope])
    assert {line["event"] for line in alarms} == {"token_and_address_disagree"}
    assert not [line for line in alarms if "example" in repr(line)]


async def test_where_token_and_address_disagree_nothing_opens(
    conn: asyncpg.Connection, texts: Inbox, links: Links, shared_catalogue: Catalogue, addresses: Addresses, now: datetime
) -> None:
    one, other = addresses.read("+12025550123"), addresses.read("+12025550124")
    token = links.token(one.key, shared_catalogue.topic("newsletter"))
    before = now - timedelta(minutes=1)
    for number, id in ((one, "s1"), (other, "s2")):
        await kept(conn, texts, before, event(Kind.UNSUBSCRIBED, before, id, number.text))
    await kept(conn, texts, now, event(Kind.RESUBSCRIBED, now, "s3", other.text, token=token))
    assert (await stops(conn, one), await stops(conn, other)) == ([CARE], [CARE])
    await kept(conn, texts, now, event(Kind.RESUBSCRIBED, now, "s4", other.text))
    assert (await stops(conn, one), await stops(conn, other)) == ([CARE], None), "the control"


async def test_a_soft_bounce_of_whom_nobody_is_sure_counts_for_both(
    conn: asyncpg.Connection, inbox: Inbox, links: Links, shared_catalogue: Catalogue, jane: Address, now: datetime
) -> None:
    token = links.token(jane.key, shared_catalogue.topic("newsletter"))
    await kept(conn, inbox, now, event(Kind.BOUNCED_SOFT, now, address="forwarded@example.net", token=token))
    assert await conn.fetchval("select count(distinct key) from soft_bounce") == 2


@pytest.mark.parametrize("kind", [Kind.UNSUBSCRIBED, Kind.COMPLAINED])
async def test_who_leaves_leaves_the_brand_that_wrote_as_well_as_the_accounts(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, ring: KeyRing, links: Links, jane: Address, now: datetime,
    kind: Kind,
) -> None:  # fmt: skip
    second = Brand.model_validate(
        {"name": "other", "title": "Other", "number": 2, "link_host": "go.example.net", "mailto": "u@go.example.net",
         "postal_address": "2 Side Street", "topic": [{"name": "tips", "title": "Tips", "number": 16}]}
    )  # fmt: skip
    wider = Catalogue(brand=(*shared_catalogue.brand, second), account=shared_catalogue.account)
    await numbers.register(conn, wider, [1], {"sendgrid": Channel.EMAIL}, now=now)
    inbox = Inbox(wider.account[0], wider, addresses, ring, Channel.EMAIL)
    await kept(conn, inbox, now, event(kind, now, token=links.token(jane.key, wider.scope("other/tips"))))
    assert await stops(conn, jane) == [MARKETING, 2 * 256 + 1]
    rob = addresses.read("rob@example.org")
    await kept(conn, inbox, now, event(kind, now, "e2", "rob@example.org", token=links.token(rob.key, wider.topic("newsletter"))))
    assert await stops(conn, rob) == [MARKETING], "the control"


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
    assert await conn.fetchval("select count(*) from consent where evidence like 'provider:sendgrid-main/plain-1/%'") == 1


@pytest.mark.parametrize(("kind", "held"), {Kind.UNSUBSCRIBED: NEWSLETTER, Kind.COMPLAINED: MARKETING, Kind.BOUNCED_HARD: ROOT}.items())
async def test_a_resubscribe_hides_no_stop_that_bears_its_id(
    conn: asyncpg.Connection, inbox: Inbox, jane: Address, now: datetime, kind: Kind, held: int
) -> None:
    back, gone = (event(each, now, "one-id", group="12345") for each in (Kind.RESUBSCRIBED, kind))
    assert await kept(conn, inbox, now, back) == 1
    assert await kept(conn, inbox, now, gone) == 1
    assert await stops(conn, jane) == [held]
    assert await kept(conn, inbox, now, gone, back, gone, back) == 0, "the control: what is told again is no new row"


async def test_leaving_two_groups_under_one_id_leaves_both(conn: asyncpg.Connection, inbox: Inbox, jane: Address, now: datetime) -> None:
    left = [event(Kind.UNSUBSCRIBED, now, "one-id", group=group) for group in ("12345", "12346")]
    assert await kept(conn, inbox, now, *left) == 2
    assert await stops(conn, jane) == [NEWSLETTER, OFFERS]
    assert await kept(conn, inbox, now, *left * 46) == 0


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


@pytest.mark.parametrize("kind", [Kind.UNSUBSCRIBED, Kind.COMPLAINED, Kind.RESUBSCRIBED])
@pytest.mark.parametrize("stops_", [None, "care", "connective", "transactional"])
async def test_what_an_account_of_mail_hears_lands_in_marketing_whatever_it_is_told_to_stop(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, ring: KeyRing, now: datetime,
    kind: Kind, stops_: str | None,
) -> None:  # fmt: skip
    account = shared_catalogue.account[0].model_copy(update={"stops": stops_})
    inbox = Inbox(account, shared_catalogue, addresses, ring, Channel.EMAIL)
    for n, address in enumerate(("+15551234567", "+plus", "+1 (202) 555-0123", "jane@example.org")):
        for m, group in enumerate((None, "12345", "", "care", "289", "transactional")):
            await kept(conn, inbox, now, event(kind, now, f"e{n}-{m}", address, group=group))
        assert await conn.fetchval("select count(distinct key) from consent") == n + 1
    assert {row["scope"] for row in await conn.fetch("select scope from consent")} <= {MARKETING, NEWSLETTER}
    assert {row["effect"] for row in await conn.fetch("select effect from consent")} <= {"stop", "note"}
    assert await conn.fetchval("select array_agg(distinct channel::text) from address") == ["email"]


async def test_start_without_a_stop_from_that_number_is_no_consent(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, ring: KeyRing, now: datetime
) -> None:
    """YES may have answered a question: only after STOP is it a wish to hear again."""
    texts = Inbox(
        Account(name="texts", provider="twilio", brand="connective", stops="offers"), shared_catalogue, addresses, ring, Channel.SMS
    )
    yes = event(Kind.RESUBSCRIBED, now, "s1", "+12025550123", detail="YES")
    assert await kept(conn, texts, now, yes) == 1
    assert await kept(conn, texts, now, yes) == 0
    assert [tuple(row) for row in await conn.fetch("select stops, goes, grants, claims from address")] == [(None, None, None, None)]
    assert await recorded(conn) == [(OFFERS, "choice", "note", "sms", "texts")]
    await kept(conn, texts, now, event(Kind.UNSUBSCRIBED, now, "s2", "+12025550123"))
    later = now + timedelta(minutes=1)
    await kept(conn, texts, later, event(Kind.RESUBSCRIBED, later, "s3", "+12025550123", detail="YES"))
    assert await conn.fetchval("select stops from address") is None, "the control: after STOP it opens again"


@pytest.mark.parametrize(
    ("scope", "door", "by"),
    [(MARKETING, Door.PAGE, None), (OFFERS, Door.PAGE, None), (OFFERS, Door.SMS, "other-number"), (MARKETING, Door.IMPORT, None)],
)
@pytest.mark.parametrize("first", [True, False], ids=["before the STOP", "after it"])
async def test_start_lifts_no_other_choice_than_its_own_stop(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, ring: KeyRing, now: datetime,
    scope: int, door: Door, by: str | None, first: bool,
) -> None:  # fmt: skip
    texts = Inbox(
        Account(name="texts", provider="twilio", brand="connective", stops="offers"), shared_catalogue, addresses, ring, Channel.SMS
    )
    phone = addresses.read("+12025550123")
    times = [now, now + timedelta(minutes=1)]
    elsewhere, by_text = times if first else times[::-1]
    other = Change(phone, scope, Cause.CHOICE, Effect.STOP, door, "p", elsewhere, by=by)
    for at in times:
        if at is elsewhere:
            await ledger.record(conn, [other], now=at)
        else:
            await kept(conn, texts, by_text, event(Kind.UNSUBSCRIBED, by_text, "s1", "+12025550123"))
    held, later = await stops(conn, phone), now + timedelta(minutes=2)
    await kept(conn, texts, later, event(Kind.RESUBSCRIBED, later, "s2", "+12025550123"))
    assert [tuple(row) for row in await conn.fetch("select stops, goes, grants from address")] == [(held, None, None)]


async def test_start_lifts_no_stop_that_is_being_recorded_at_that_moment(
    conn: asyncpg.Connection, database: str, shared_catalogue: Catalogue, addresses: Addresses, ring: KeyRing, now: datetime
) -> None:
    account = Account(name="texts", provider="twilio", brand="connective", stops="offers")
    texts = Inbox(account, shared_catalogue, addresses, ring, Channel.SMS)
    phone, minute = addresses.read("+12025550123"), timedelta(minutes=1)
    await kept(conn, texts, now, event(Kind.UNSUBSCRIBED, now, "s1", "+12025550123"))
    pressed = Change(phone, OFFERS, Cause.CHOICE, Effect.STOP, Door.PAGE, "p", now + minute)
    start = event(Kind.RESUBSCRIBED, now + 2 * minute, "s2", "+12025550123")
    other = await asyncpg.connect(database)
    async with other.transaction():
        await ledger.record(other, [pressed], now=now + minute)
        starting = asyncio.create_task(kept(conn, texts, now + 2 * minute, start))
        while not await other.fetchval(
            "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')"
        ):
            assert not starting.done()
            await asyncio.sleep(0.01)
    await other.close()
    assert await starting == 1
    assert await conn.fetchval("select effect from consent where evidence like '%/s2/%'") == "note"
    assert await stops(conn, phone) == [OFFERS]


async def test_start_lifts_its_own_stop_though_somebody_else_is_recorded_at_that_moment(
    conn: asyncpg.Connection, database: str, shared_catalogue: Catalogue, addresses: Addresses, ring: KeyRing, now: datetime
) -> None:
    """The control."""
    account = Account(name="texts", provider="twilio", brand="connective", stops="offers")
    texts = Inbox(account, shared_catalogue, addresses, ring, Channel.SMS)
    await kept(conn, texts, now, event(Kind.UNSUBSCRIBED, now, "s1", "+12025550123"))
    later = now + timedelta(minutes=2)
    other = await asyncpg.connect(database)
    async with other.transaction():
        pressed = Change(addresses.read("+12025550124"), OFFERS, Cause.CHOICE, Effect.STOP, Door.PAGE, "p", now)
        await ledger.record(other, [pressed], now=now)
        assert await kept(conn, texts, later, event(Kind.RESUBSCRIBED, later, "s2", "+12025550123")) == 1
    await other.close()
    assert await stops(conn, addresses.read("+12025550123")) is None


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


async def test_a_flood_of_one_trouble_is_one_row_and_one_alarm_that_says_how_often_it_came(
    conn: asyncpg.Connection, inbox: Inbox, now: datetime, alarms: Alarms
) -> None:
    many = MOST_KEPT + 1
    before = _counted("mailprefs_alarms_total", alarm="unmapped_group", account="sendgrid-main")
    nobody = [event(Kind.COMPLAINED, now, f"n{n}", None) for n in range(many)]
    strange = [event(Kind.UNSUBSCRIBED, now, f"g{n}", f"p{n}@example.org", group="777") for n in range(many)]
    assert await kept(conn, inbox, now, *nobody, *strange) == many
    [row] = await conn.fetch("select reason, raw from event")
    assert (row["reason"], len(row["raw"].split(b"\n"))) == ("too_many", many), "nothing of it is lost"
    assert [(line["event"], line["times"]) for line in alarms] == [("unmapped_group", many), ("kept_aside", 1)]
    assert _counted("mailprefs_alarms_total", alarm="unmapped_group", account="sendgrid-main") == before + many
    await kept(conn, inbox, now, *nobody[:MOST_KEPT])
    assert await conn.fetchval("select count(*) from event") == 1 + MOST_KEPT, "the control: up to the bound each has its row"


def test_placing_says_nothing_so_that_a_thread_may_do_it(inbox: Inbox, now: datetime, alarms: Alarms) -> None:
    placed = inbox.placed(Heard((event(Kind.UNSUBSCRIBED, now, group="777", token="x"),), (Kept("unreadable", b"x"),)))
    assert alarms == []
    assert (placed.alarms, placed.foreign_tokens, len(placed.changes), len(placed.kept)) == ({"unmapped_group": 1}, 1, 1, 1)


def _counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_what_is_told_in_one_statement_is_a_commit_of_its_own(
    conn: asyncpg.Connection, database: str, inbox: Inbox, now: datetime
) -> None:
    plain = inbox.placed(Heard((event(Kind.UNSUBSCRIBED, now),), counted={"open": 7}))
    assert plain.in_one
    assert await inbox.record(conn, plain, now=now) == 1  # in nobody's transaction
    other = await asyncpg.connect(database)
    told = await other.fetch("select kind, events from heard order by kind")
    await other.close()
    assert [tuple(row) for row in told] == [("open", 7), ("unsubscribed", 1)]
    soft, odd = Heard((event(Kind.BOUNCED_SOFT, now),)), Heard(kept=(Kept("unknown_kind", b"{}"),))
    assert not any(inbox.placed(each).in_one for each in (soft, odd, Heard(once=Once("nonce", b"digest"))))  # the control


@pytest.mark.parametrize(("at_once", "statements"), [(10, 3), (30, 1)])
async def test_a_large_delivery_is_recorded_in_parts_and_is_one_commit_all_the_same(
    conn: asyncpg.Connection, database: str, inbox: Inbox, now: datetime, monkeypatch: pytest.MonkeyPatch, at_once: int, statements: int
) -> None:
    monkeypatch.setattr(inbox_room, "AT_ONCE", at_once)
    placed = inbox.placed(Heard(tuple(event(Kind.UNSUBSCRIBED, now, f"e{n}", f"p{n}@example.org") for n in range(25))))
    assert placed.in_one is (statements == 1)
    asked: list[str] = []
    other = await asyncpg.connect(database)
    with conn.query_logger(lambda record: asked.append(record.query)):
        async with conn.transaction():
            assert await inbox.record(conn, placed, now=now) == 25
            assert await other.fetchval("select count(*) from consent") == 0, "nothing of it shows before all of it is durable"
    assert sum("record_" in query for query in asked) == statements
    assert await other.fetchval("select count(*) from consent") == 25
    assert await other.fetchval("select count(distinct position::text) from consent") == 1
    assert await other.fetchval("select events from heard") == 25
    await other.close()


async def test_large_deliveries_at_once_do_not_wait_in_a_circle(
    database: str, inbox: Inbox, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_room, "AT_ONCE", 4)
    people = [f"p{n}@example.org" for n in range(40)]
    connections = [await asyncpg.connect(database) for _ in range(3)]

    async def deliver(conn: asyncpg.Connection, order: list[str]) -> None:
        for turn in range(4):
            await kept(conn, inbox, now, *[event(Kind.UNSUBSCRIBED, now, f"{id(conn)}-{turn}-{who}", who) for who in order])

    await asyncio.gather(*(deliver(each, people[n * 13 :] + people[: n * 13]) for n, each in enumerate(connections)))
    assert await connections[0].fetchval("select count(*) from consent") == 3 * 4 * 40
    for each in connections:
        await each.close()
