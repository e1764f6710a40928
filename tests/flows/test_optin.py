"""The question whether mail is wanted: asked by mail, answered by a press, yes and no alike."""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import UUID

import pytest

from mailprefs import ledger, passes, post
from mailprefs.passes import Purpose
from mailprefs.words import Address, Cause, Change, Door, Effect

from .test_manage import allowed
from .visitor import ELSEWHERE, SCRIPTED, Visitor

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
