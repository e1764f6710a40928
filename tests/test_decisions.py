"""May this address be sent this topic, and every reason why not."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime, timedelta

import asyncpg
import pytest

from mailprefs import decisions, ledger
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.decisions import Question
from mailprefs.errors import UnknownScope
from mailprefs.words import Address, Cause, Change, Channel, Decision, Door, Effect, Reason

pytestmark = pytest.mark.spread

ROOT, BRAND, MARKETING, NEWSLETTER, OFFERS, PARTNERS, CARE = 0, 256, 257, 272, 273, 274, 289
HOUR = timedelta(hours=1)


@pytest.fixture
def jane(addresses: Addresses) -> Address:
    return addresses.read("jane@example.org")


def stop(address: Address, scope: int, cause: Cause, door: Door, at: datetime, until: datetime | None = None) -> Change:
    return Change(address, scope, cause, Effect.STOP, door, f"{scope}-{cause}", at, until)


async def decided(conn: asyncpg.Connection, catalogue: Catalogue, address: Address, topic: str, now: datetime) -> Decision:
    (answer,) = await decisions.decide(conn, [Question(address, "as it was asked", topic)], catalogue, now=now)
    assert (answer.address, answer.topic) == ("as it was asked", topic)
    assert answer.allowed is (answer.reasons == ()), "a no says why, a yes has nothing to say"
    return answer


async def test_of_whom_nothing_is_known_nothing_is_held(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, jane: Address, now: datetime
) -> None:
    assert (await decided(conn, shared_catalogue, jane, "newsletter", now)).allowed
    assert (await decided(conn, shared_catalogue, jane, "connective/orders", now)).allowed
    assert (await decided(conn, shared_catalogue, jane, "partners", now)).reasons == (Reason("connective/partners", "consent_missing"),)


async def test_every_hold_on_the_path_is_a_reason_and_none_beside_it(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, jane: Address, now: datetime
) -> None:
    until = now + 30 * HOUR
    changes = [
        stop(jane, PARTNERS, Cause.CHOICE, Door.PROVIDER, now - 3 * HOUR),
        stop(jane, MARKETING, Cause.COMPLAINT, Door.PROVIDER, now - 2 * HOUR),
        stop(jane, PARTNERS, Cause.PAUSE, Door.PAGE, now, until),
        stop(jane, ROOT, Cause.BOUNCE, Door.PROVIDER, now - HOUR),
        stop(jane, OFFERS, Cause.CHOICE, Door.PROVIDER, now - 5 * HOUR),
    ]
    await ledger.record(conn, changes, now=now)
    answer = await decided(conn, shared_catalogue, jane, "partners", now)
    assert answer.reasons == (
        Reason("connective/partners", "choice", now - 3 * HOUR),
        Reason("connective/marketing", "complaint", now - 2 * HOUR),
        Reason("*", "bounce", now - HOUR),
        Reason("connective/partners", "pause", now, until),
        Reason("connective/partners", "consent_missing"),
    )
    assert [r.cause for r in (await decided(conn, shared_catalogue, jane, "orders", now)).reasons] == ["bounce"]
    after = await decided(conn, shared_catalogue, jane, "partners", until)
    assert "pause" not in {r.cause for r in after.reasons}, "what has ended is no reason"


async def test_ten_thousand_questions_are_answered_in_their_order(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, addresses: Addresses, now: datetime
) -> None:
    people = [addresses.read(f"p{n}@example.org") for n in range(2_500)]
    await ledger.record(conn, [stop(p, NEWSLETTER, Cause.CHOICE, Door.PROVIDER, now) for p in people[::3]], now=now)
    names = ["newsletter", "orders", "no such topic", "connective/marketing"]
    questions = [Question(p, str(p.text), topic) for p in people for topic in names]
    answers = await decisions.decide(conn, questions, shared_catalogue, now=now)
    assert [(a.address, a.topic) for a in answers] == [(q.asked, q.topic) for q in questions]
    assert [a.allowed for a in answers] == [x for n in range(2_500) for x in (n % 3 != 0, True, False, False)]
    assert {r.cause for a in answers[2::4] for r in a.reasons} == {"unknown_topic"}
    assert await decisions.decide(conn, [], shared_catalogue, now=now) == []


async def test_the_same_question_twice_has_the_same_answer_twice(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, jane: Address, now: datetime
) -> None:
    await ledger.record(conn, [stop(jane, NEWSLETTER, Cause.CHOICE, Door.LINK, now)], now=now)
    question = Question(jane, "a", "newsletter")
    first, second = await decisions.decide(conn, [question, question], shared_catalogue, now=now)
    assert first == second
    assert len(first.reasons) == 1


async def test_consent_is_asked_for_by_the_channel_and_the_stricter_where_nobody_knows_it(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, jane: Address, addresses: Addresses, now: datetime
) -> None:
    phone = addresses.read("+12025550123")
    missing = (Reason("connective/newsletter", "consent_missing"),)
    assert (await decided(conn, shared_catalogue, phone, "newsletter", now)).reasons == missing
    assert (await decided(conn, shared_catalogue, replace(jane, channel=None), "newsletter", now)).reasons == missing
    assert (await decided(conn, shared_catalogue, phone, "care", now)).allowed
    grant = Change(phone, NEWSLETTER, Cause.CHOICE, Effect.GRANT, Door.IMPORT, "1", now)
    await ledger.record(conn, [grant], now=now)
    assert (await decided(conn, shared_catalogue, phone, "newsletter", now)).allowed
    assert (await decided(conn, shared_catalogue, jane, "newsletter", now)).allowed, "the control: mail is opt-out"


async def test_everything_behind_the_answers_is_there_as_values_for_json(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, jane: Address, now: datetime
) -> None:
    made = stop(jane, NEWSLETTER, Cause.CHOICE, Door.PAGE, now)
    await ledger.record(conn, [made], now=now)
    await ledger.record(conn, [ledger.withdrawal(made, now=now + HOUR)], now=now + HOUR)
    await ledger.record(conn, [stop(jane, MARKETING, Cause.COMPLAINT, Door.PROVIDER, now - HOUR)], now=now + HOUR)
    await conn.execute("insert into told select bucket, account, key, scope, stop, since, since, since from push where scope = $1", OFFERS)
    whole = await decisions.why(conn, jane, "jane@example.org", shared_catalogue.topics, shared_catalogue, now=now + HOUR)
    assert list(whole) == ["address", "met", "decisions", "history", "told"]
    assert whole["met"]
    assert [d.topic for d in whole["decisions"]] == [topic.name for topic in shared_catalogue.topics]
    assert [(row["effect"], row["cause"], row["scope"], row["door"], row["evidence"]) for row in whole["history"]] == [
        ("stop", "complaint", "connective/marketing", "provider", "provider:257-complaint"),
        ("stop", "choice", "connective/newsletter", "page", "page:272-choice"),
        ("withdraw", "choice", "connective/newsletter", "page", "undo:page:272-choice"),
    ]
    assert set(whole["history"][0]) == {"at", "scope", "cause", "effect", "door", "evidence"}
    assert {(row["account"], row["scope"], row["confirmed_at"] is None) for row in whole["told"]} == {
        ("sendgrid-main", "connective/newsletter", True),
        ("sendgrid-main", "connective/offers", True),
        ("sendgrid-main", "connective/offers", False),
        ("sendgrid-second", "connective/newsletter", True),
    }
    assert all(set(row) == {"account", "scope", "asked_at", "sent_at", "confirmed_at"} for row in whole["told"])
    json.dumps([asdict(d) for d in whole["decisions"]], default=datetime.isoformat)
    json.dumps([whole["history"], whole["told"]], default=datetime.isoformat)


async def test_a_retired_topic_is_unknown_and_keeps_its_name_in_a_history(
    conn: asyncpg.Connection, shared_catalogue: Catalogue, jane: Address, now: datetime
) -> None:
    await ledger.record(conn, [stop(jane, OFFERS, Cause.CHOICE, Door.LINK, now)], now=now)
    brand = shared_catalogue.brand[0]
    topics = tuple(topic.model_copy(update={"retired": topic.name == "offers"}) for topic in brand.topic)
    retired = Catalogue(brand=(brand.model_copy(update={"topic": topics}),))
    assert (await decided(conn, retired, jane, "offers", now)).reasons == (Reason("offers", "unknown_topic"),)
    whole = await decisions.why(conn, jane, "jane", retired.topics, retired, now=now)
    assert whole["history"][0]["scope"] == "connective/offers"
    assert decisions.name_of(retired, 9_999) == "9999"


async def test_a_hold_is_read_back_whatever_consent_says(conn: asyncpg.Connection, jane: Address, now: datetime) -> None:
    assert not await decisions.is_held(conn, jane, PARTNERS, now=now), "nothing holds it, though consent is missing"
    await ledger.record(conn, [stop(jane, MARKETING, Cause.PAUSE, Door.PAGE, now, now + HOUR)], now=now)
    assert await decisions.is_held(conn, jane, PARTNERS, now=now)
    assert not await decisions.is_held(conn, jane, CARE, now=now)
    assert not await decisions.is_held(conn, jane, PARTNERS, now=now + HOUR)


def test_a_channel_is_one_of_two() -> None:
    assert [decisions.channel_of(text) for text in ("email", "sms")] == [Channel.EMAIL, Channel.SMS]
    for text in ("", "fax", "EMAIL", "ads"):
        with pytest.raises(UnknownScope):
            decisions.channel_of(text)
