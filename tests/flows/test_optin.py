"""The question whether mail is wanted: asked by mail, answered by a press, yes and no alike."""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import UUID

import pytest

from mailprefs import ledger, passes, post
from mailprefs.passes import Purpose
from mailprefs.words import Address, Cause, Change, Door, Effect

from .between import Cut, between
from .test_manage import allowed
from .visitor import ELSEWHERE, SCRIPTED, Visitor, visiting

STUDIES, MARKETING, RECOVERY = 275, 257, 276


async def asked(visitor: Visitor, text: str, topic: int = STUDIES) -> tuple[Address, str]:
    """Let an application ask whether an address wants a topic, and return the path of the link that it would be mailed."""
    address, now = visitor.addresses.read(text), visitor.clock[-1]
    assert await post.ask(visitor.conn, Purpose.CONFIRM, address, topic, language=None, now=now, to=text)
    id_: UUID = await visitor.conn.fetchval("select id from mail where key = $1 order by asked_at desc limit 1", address.key)
    return address, "/c/" + passes.write(visitor.ring, passes.Pass(Purpose.CONFIRM, address.key, topic, id_, now))


async def test_nobody_is_sent_or_known_before_they_say_yes(visitor: Visitor) -> None:
    new, path = await asked(visitor, "new@example.org")
    await visitor.get(path)
    assert "Studies you can join" in visitor.text
    assert "new@example.org" not in visitor.text
    for fields in ({}, {"answer": "maybe"}):
        await visitor.post(path, **fields)
    for headers in (SCRIPTED, ELSEWHERE):
        await visitor.post(path, headers, answer="yes")
    assert "Do you want these emails?" in visitor.text
    assert await visitor.conn.fetchval("select count(*) from address") == 0
    await visitor.post(path, answer="yes")
    assert "You will get these emails." in visitor.text
    assert await visitor.conn.fetchval("select plaintext from address where key = $1", new.key) == "new@example.org"
    assert "studies" in await allowed(visitor, new)


async def test_yes_and_no_are_one_press_each_of_buttons_that_are_alike(visitor: Visitor) -> None:
    _, path = await asked(visitor, "new@example.org")
    buttons = re.findall(r"<button([^>]*)>", await visitor.get(path))
    answers = [each for each in buttons if "answer" in each]
    assert [re.sub(r'value="\w+"', "", each) for each in answers] == [' name="answer" '] * 2


async def test_no_is_a_stop_and_the_last_answer_counts(visitor: Visitor) -> None:
    new, path = await asked(visitor, "new@example.org")
    for answer, sent in (("no", False), ("no", False), ("yes", True), ("no", False), ("yes", True)):
        await visitor.get(path)
        form = visitor.hidden("form")
        await visitor.post(path, answer=answer)
        assert ("studies" in await allowed(visitor, new)) is sent
    await visitor.post(path, form=form, answer="yes")
    assert len(await visitor.rows(new)) == 5, "a reload adds nothing"


async def test_a_question_ends_after_a_week(visitor: Visitor) -> None:
    new, path = await asked(visitor, "new@example.org")
    await visitor.get(path)
    visitor.clock.append(visitor.clock[-1] + timedelta(days=7, seconds=1))
    await visitor.post(path, answer="yes")
    assert "This link has ended" in visitor.text
    assert await visitor.rows(new) == []


async def test_yes_lifts_a_stop_of_ones_own_and_no_complaint_that_is_final(visitor: Visitor) -> None:
    jane, kim = await visitor.known("jane@example.org", "kim@example.org")
    for who, cause, door in ((jane, Cause.CHOICE, Door.LINK), (kim, Cause.COMPLAINT, Door.PROVIDER)):
        change = Change(who, MARKETING, cause, Effect.STOP, door, "1", visitor.clock[-1])
        await ledger.record(visitor.conn, [change], now=visitor.clock[-1])
    for text, said, sent in (("jane@example.org", "You will get", {"studies"}), ("kim@example.org", "We cannot send you these", set())):
        who, path = await asked(visitor, text)
        await visitor.get(path)
        await visitor.post(path, answer="yes")
        assert said in visitor.text
        assert await allowed(visitor, who) == sent


@pytest.mark.parametrize("visitor", [{"page": "private"}], indirect=True)
async def test_a_private_brand_names_no_topic_in_its_question(visitor: Visitor) -> None:
    _, path = await asked(visitor, "new@example.org")
    assert "Studies" not in await visitor.get(path)


async def test_a_sensitive_topic_is_named_in_no_question_and_no_proof(visitor: Visitor) -> None:
    new, path = await asked(visitor, "new@example.org", RECOVERY)
    assert "A subject of its own" not in await visitor.get(path)
    await visitor.post(path, answer="yes")
    assert "A subject of its own" not in visitor.text
    assert [row[0] for row in await visitor.rows(new)] == [RECOVERY]
    assert await visitor.conn.fetchval("select count(*) from proof where notice <> ''") == 0


async def test_no_by_the_form_that_said_yes_is_no(visitor: Visitor) -> None:
    new, path = await asked(visitor, "new@example.org")
    await visitor.get(path)
    form = visitor.hidden("form")
    for answer, sent in (("yes", True), ("no", False), ("yes", False)):  # the last is the first once more, and opens nothing
        visitor.clock.append(visitor.clock[-1] + timedelta(seconds=1))
        await visitor.post(path, form=form, answer=answer)
        assert ("studies" in await allowed(visitor, new)) is sent


async def test_no_counts_however_often_it_is_said(visitor: Visitor) -> None:
    new, path = await asked(visitor, "new@example.org")
    for _ in range(20):
        await visitor.get(path)
        await visitor.post(path, answer="yes")
    await visitor.post(path, answer="no")
    assert "We will not send you these emails." in visitor.text
    assert "studies" not in await allowed(visitor, new)


async def test_who_says_no_is_forgotten_at_once(visitor: Visitor) -> None:
    new, path = await asked(visitor, "new@example.org")
    other, _ = await asked(visitor, "other@example.org")
    await visitor.get(path)
    await visitor.post(path, answer="no")
    assert "We will not send you these emails." in visitor.text
    held = "select plaintext from mail where plaintext is not null union all select plaintext from address where plaintext is not null"
    assert [row[0] for row in await visitor.conn.fetch(held)] == ["other@example.org"], "the control: who has not answered is remembered"
    assert [row[:3] for row in await visitor.rows(new)] == [(STUDIES, "choice", "stop")]
    await visitor.get(path)
    assert "The address that email was sent to" in visitor.text
    await visitor.post(path, answer="yes")
    assert "studies" in await allowed(visitor, new), "the last answer counts all the same"
    assert await visitor.conn.fetchval("select count(*) from mail where key = $1", other.key) == 1


async def test_who_said_yes_is_shown_which_address_that_was(visitor: Visitor) -> None:
    _, path = await asked(visitor, "new@example.org")
    await visitor.get(path)
    shown = visitor.text.count("n•••@e•••.org")
    await visitor.post(path, answer="yes")
    await visitor.get(path)
    assert (shown, visitor.text.count("n•••@e•••.org")) == (1, 1)


async def test_yes_by_an_old_form_after_a_no_is_asked_again(visitor: Visitor) -> None:
    new, path = await asked(visitor, "new@example.org")
    await visitor.get(path)
    form = visitor.hidden("form")
    for answer in ("yes", "yes"):
        await visitor.post(path, form=form, answer=answer)
        assert "You will get these emails." in visitor.text, "a reload says what holds"
    visitor.clock.append(visitor.clock[-1] + timedelta(seconds=1))
    await visitor.post(path, form=form, answer="no")
    await visitor.post(path, form=form, answer="yes")
    assert "Do you want these emails?" in visitor.text
    visitor.clock.append(visitor.clock[-1] + timedelta(seconds=1))
    await visitor.post(path, answer="yes")
    assert "You will get these emails." in visitor.text
    assert "studies" in await allowed(visitor, new)


@pytest.mark.parametrize(
    ("cut", "status", "said"),
    [
        (Cut.UNHEARD, 503, "We could not confirm your request"),
        (Cut.HEARD, 200, "Your request is saved. We could not load the rest of this page."),
    ],
)
async def test_what_is_said_of_a_yes_is_true_when_the_database_goes_away(
    visitor: Visitor, database: str, cut: Cut, status: int, said: str
) -> None:
    """It committed both times. Where nobody can know, the page says so; pressed again, it counts once."""
    new, path = await asked(visitor, "new@example.org")
    async with (
        between(database) as wire,
        visiting(wire.url, visitor.conn, visitor.catalogue, visitor.ring, visitor.addresses, visitor.clock[-1]) as there,
    ):
        await there.get(path)
        form, wire.cut = there.hidden("form"), cut
        await there.post(path, form=form, answer="yes")
        assert (there.status, said in there.text, "Nothing was changed" in there.text) == (status, True, False)
        assert len(await visitor.rows(new)) == 1
        wire.mended()
        await there.post(path, form=form, answer="yes")
        assert "You will get these emails." in there.text
    assert len(await visitor.rows(new)) == 1
    assert await visitor.conn.fetchval("select plaintext from address where key = $1", new.key) == "new@example.org"
