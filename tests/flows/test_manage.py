"""The link to one's choices: mailed, opened by a press, good for an hour, and the only way to turn anything on."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from mailprefs import db, decisions, ledger, passes
from mailprefs.decisions import Question
from mailprefs.passes import Purpose
from mailprefs.post import Postman, Relay
from mailprefs.words import Address, Cause, Change, Door, Effect

from . import relay as relays
from .between import Cut, between
from .visitor import ELSEWHERE, PRESSED, SCRIPTED, Visitor, visiting

NEWSLETTER, OFFERS, PARTNERS, STUDIES, MARKETING, ADS = 272, 273, 274, 275, 257, 259


async def stopped(visitor: Visitor, address: Address, scope: int, cause: Cause = Cause.CHOICE, door: Door = Door.LINK) -> None:
    change = Change(address, scope, cause, Effect.STOP, door, f"{cause}-{scope}-{door}", visitor.clock[-1])
    await ledger.record(visitor.conn, [change], now=visitor.clock[-1])


async def allowed(visitor: Visitor, address: Address) -> set[str]:
    topics = visitor.catalogue.topics
    questions = [Question(address, "", topic.name) for topic in topics]
    answers = await decisions.decide(visitor.conn, questions, visitor.catalogue, now=visitor.clock[-1])
    return {answer.topic.partition("/")[2] for answer in answers if answer.allowed} - {"orders", "care", "recovery"}


async def test_from_an_address_that_is_typed_to_a_topic_that_is_turned_on(visitor: Visitor, database: str) -> None:
    """The whole way, over HTTP, SMTP and the database."""
    (jane,) = await visitor.known("jane@example.org")
    await stopped(visitor, jane, MARKETING)
    await visitor.post("/preferences", address="Jane@Example.org", brand="connective")
    assert "Check your email" in visitor.text
    pool = await db.pool(database, size=1, command_timeout=5, purpose="post")
    async with relays.running() as relay:
        await Postman(visitor.catalogue, visitor.ring, pool, {1: Relay.of(relay.url)}, lambda: visitor.clock[-1]).round()
    await pool.close()
    found = re.search(r"https://go\.example\.com(/m/\S+)", relay.letters[0].get_content())
    assert found
    path = found[1]
    await visitor.get(path)
    assert "Open my choices" in visitor.text
    assert await visitor.rows(jane) == [(MARKETING, "choice", "stop", "link")], "who looks changes nothing"
    await visitor.post(path, open="1")
    assert "This page stays open for 60 minutes" in visitor.text
    await visitor.post(path, do="on.16.email")
    assert await allowed(visitor, jane) == {"newsletter"}
    assert "stop.16.email" in visitor.deeds
    assert "on.17.email" in visitor.deeds


async def test_a_consent_that_was_given_here_is_kept_with_what_was_shown(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    path = visitor.managed(jane)
    await visitor.post(path, open="1")
    assert {"on.18.email", "on.19.email"} <= visitor.deeds
    for topic in ("18", "19"):
        await visitor.post(path, do=f"on.{topic}.email")
    assert await allowed(visitor, jane) == {"newsletter", "offers", "partners", "studies"}, "double-opt-in too: the address was proven"
    whole = await decisions.why(visitor.conn, jane, "", visitor.catalogue.topics, visitor.catalogue, now=visitor.clock[-1])
    shown = {(row["scope"], row["source"], row["notice"]) for row in whole["history"]}
    page = "https://go.example.com/m/{token}"
    assert shown == {("connective/partners", page, "News from partners"), ("connective/studies", page, "Studies you can join")}


async def test_the_link_ends_after_an_hour_and_the_page_an_hour_after_it_was_opened(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    path, began = visitor.managed(jane), visitor.clock[-1]
    visitor.clock.append(began + timedelta(minutes=59))
    await visitor.post(path, open="1")
    visitor.clock.append(began + timedelta(minutes=118))
    await visitor.post(path, do="stop.16.email")
    assert len(await visitor.rows(jane)) == 1
    visitor.clock.append(began + timedelta(minutes=120))
    await visitor.post(path, do="stop.17.email")
    assert "This link has ended" in visitor.text
    assert "This link has ended" in await visitor.get(path)
    assert len(await visitor.rows(jane)) == 1
    await visitor.post(path, mail="1")
    assert "Check your email" in visitor.text
    assert await visitor.conn.fetchval("select count(*) from mail where key = $1", jane.key) == 1


async def test_what_was_closed_stays_closed(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    path = visitor.managed(jane)
    await visitor.post(path, open="1")
    session = visitor.hidden("session")
    await visitor.post(path, close="1")
    assert "Closed" in visitor.text
    for fields in ({"open": "1"}, {"session": session, "do": "all"}):
        await visitor.post(path, **fields)
        assert "This link has ended" in visitor.text
    assert await visitor.rows(jane) == []


async def test_a_session_is_of_its_own_link_and_no_script_opens_it(visitor: Visitor) -> None:
    jane, kim = await visitor.known("jane@example.org", "kim@example.org")
    await visitor.post(visitor.managed(jane), SCRIPTED, open="1")
    assert "Open my choices" in visitor.text
    assert not visitor.hidden("session")
    await visitor.post(visitor.managed(jane), open="1")
    session = visitor.hidden("session")
    await visitor.post(visitor.managed(kim), session=session, do="all")
    assert "Open my choices" in visitor.text
    assert await visitor.rows(kim) == []
    for headers in (SCRIPTED, ELSEWHERE):
        await visitor.post(visitor.managed(jane), headers, session=session, do="all")
    assert await visitor.rows(jane) == []


async def test_a_final_complaint_and_what_staff_stopped_are_not_turned_on(visitor: Visitor) -> None:
    jane, kim = await visitor.known("jane@example.org", "kim@example.org")
    await stopped(visitor, jane, MARKETING, Cause.COMPLAINT, Door.PROVIDER)
    await stopped(visitor, kim, MARKETING, Cause.MINOR, Door.STAFF)
    for one in (jane, kim):
        path, before = visitor.managed(one), await visitor.rows(one)
        await visitor.post(path, open="1")
        assert not {each for each in visitor.deeds if each.startswith("on")}
        assert "This cannot be turned on here" in visitor.text
        await visitor.post(path, do="on.16.email")
        assert await visitor.rows(one) == before


@pytest.mark.parametrize("visitor", [{"complaint": "liftable"}], indirect=True)
async def test_a_complaint_that_may_be_lifted_opens_the_one_topic_that_was_chosen(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await stopped(visitor, jane, MARKETING, Cause.COMPLAINT, Door.PROVIDER)
    path = visitor.managed(jane)
    await visitor.post(path, open="1")
    await visitor.post(path, do="on.17.email")
    assert await allowed(visitor, jane) == {"offers"}
    assert await ledger.differing(visitor.conn) == 0
    made = [row[:3] for row in await visitor.rows(jane)][1:]
    assert made == [(MARKETING, "complaint", "go"), (MARKETING, "choice", "stop"), (OFFERS, "choice", "go")]


async def test_texts_that_were_stopped_by_a_text_start_by_a_text_alone(visitor: Visitor) -> None:
    jane, phone = await visitor.known("jane@example.org", "+12025550123", party="p1")
    now = visitor.clock[-1]
    await ledger.record(visitor.conn, [Change(phone, NEWSLETTER, Cause.CHOICE, Effect.GRANT, Door.IMPORT, "1", now)], now=now)
    await stopped(visitor, phone, MARKETING, door=Door.SMS)
    path = visitor.managed(jane)
    await visitor.post(path, open="1")
    assert "Stopped at your phone company" in visitor.text
    assert "on.16.sms" not in visitor.deeds
    await visitor.post(path, do="on.16.sms")
    assert [row[2] for row in await visitor.rows(phone)] == ["grant", "stop"]


async def test_texts_that_were_stopped_on_a_page_start_again_there_and_nobody_signs_a_phone_up(visitor: Visitor) -> None:
    jane, phone = await visitor.known("jane@example.org", "+12025550123", party="p1")
    now = visitor.clock[-1]
    await ledger.record(visitor.conn, [Change(phone, NEWSLETTER, Cause.CHOICE, Effect.GRANT, Door.IMPORT, "1", now)], now=now)
    path = visitor.managed(jane)
    await visitor.post(path, open="1")
    await visitor.post(path, do="stop.16.sms")
    await visitor.post(path, do="on.17.sms")
    await visitor.post(path, do="on.16.sms")
    assert [row[0::2] for row in await visitor.rows(phone)] == [(NEWSLETTER, "grant"), (NEWSLETTER, "stop"), (NEWSLETTER, "go")]


async def test_a_break_is_ended_and_ads_are_allowed_again_through_the_link(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    path = visitor.managed(jane)
    await visitor.post(path, open="1")
    for deed in ("pause.30", "ads"):
        await visitor.post(path, do=deed)
    assert await allowed(visitor, jane) == set()
    assert {"resume", "ads-on"} <= visitor.deeds
    for deed in ("resume", "ads-on"):
        await visitor.post(path, do=deed)
    assert await allowed(visitor, jane) == {"newsletter", "offers"}
    assert "ads" in visitor.deeds
    assert {row[3] for row in await visitor.rows(jane)} == {"manage"}


async def test_too_many_presses_in_a_day_stop_all_the_same_and_turn_on_nothing_more(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    path = visitor.managed(jane)
    await visitor.post(path, open="1")
    for _ in range(9):
        await visitor.post(path, do="stop.16.email")
        await visitor.post(path, do="on.16.email")
    assert "Try again tomorrow" in visitor.text
    assert await allowed(visitor, jane) == {"offers"}
    rows = len(await visitor.rows(jane))
    for deed in ("pause.30", "ads", "ads", "all", "all", "all"):
        await visitor.post(path, do=deed)
    assert len(await visitor.rows(jane)) == rows + 2
    assert await allowed(visitor, jane) == set()


@pytest.mark.parametrize("visitor", [{"page": "private"}], indirect=True)
async def test_a_private_brand_shows_topics_once_its_link_was_opened(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    path = visitor.managed(jane)
    assert "Monthly newsletter" not in await visitor.get(path)
    assert "Monthly newsletter" in await visitor.post(path, open="1")
    assert "A subject of its own" not in visitor.text


SIGNAL = {"Sec-GPC": "1"}


async def test_a_privacy_signal_is_recorded_once_and_changes_no_choice_about_mail(visitor: Visitor) -> None:
    jane, phone = await visitor.known("jane@example.org", "+12025550123", party="p1")
    for path in (visitor.link(jane), visitor.managed(jane)):
        for _ in range(3):
            assert "Opt-out request honored" in await visitor.get(path, headers=SIGNAL)
    await visitor.post(visitor.managed(jane), {**SIGNAL, **PRESSED}, open="1")
    assert await visitor.rows(jane) == await visitor.rows(phone) == [(ADS, "choice", "stop", "page")]
    (kim,) = await visitor.known("kim@example.org")
    assert "Opt-out request honored" not in await visitor.get(visitor.link(kim), headers={"DNT": "1", "Sec-GPC": "0"})
    assert await visitor.rows(kim) == []
    one = passes.fresh(Purpose.CONFIRM, kim.key, STUDIES, visitor.clock[-1])
    assert "Opt-out request honored" in await visitor.get("/c/" + passes.write(visitor.ring, one), headers=SIGNAL)
    assert [row[0] for row in await visitor.rows(kim)] == [ADS]


@pytest.mark.parametrize(
    ("cut", "status", "said"), [(Cut.UNHEARD, 503, "We could not confirm"), (Cut.HEARD, 200, "Your request is saved.")]
)
async def test_what_is_said_of_turning_on_is_true_and_in_the_session_when_the_database_goes_away(
    visitor: Visitor, database: str, cut: Cut, status: int, said: str
) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await stopped(visitor, jane, NEWSLETTER)
    path = visitor.managed(jane)
    clock = visitor.clock[-1] + timedelta(seconds=1)
    async with (
        between(database) as wire,
        visiting(wire.url, visitor.conn, visitor.catalogue, visitor.ring, visitor.addresses, clock) as there,
    ):
        await there.post(path, open="1")
        session, form, wire.cut = there.hidden("session"), there.hidden("form"), cut
        await there.post(path, do="on.16.email")
        assert (there.status, said in there.text, "Nothing was changed" in there.text) == (status, True, False)
        assert (there.hidden("again"), "<a href" in there.text) == ("-", False), "another language is chosen within the session"
        wire.mended()
        await there.post(f"{path}?lang=de", session=there.hidden("session"), again="-")
        assert ("stop.16.email" in there.deeds, '<html lang="de"' in there.text) == (True, True), "and there it stands"
        await there.post(path, session=session, form=form, do="on.16.email")
    assert [row[2] for row in await visitor.rows(jane)] == ["stop", "go"], "pressed again, it counts once"
