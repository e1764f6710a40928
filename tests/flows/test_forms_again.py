"""A form that is pressed again: after Back, twice, or days later. Whatever it is pressed for is done, and nobody else's stop is opened."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from mailprefs import ledger
from mailprefs.words import Cause, Change, Door, Effect

from .visitor import PRESSED, Visitor

NEWSLETTER, MARKETING = 272, 257
DAY = timedelta(hours=26)

PRIVATE = pytest.mark.parametrize("visitor", [{"page": "private"}], indirect=True)


async def test_another_act_by_the_same_form_is_done_too(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    page = await visitor.get(visitor.link(jane))
    form = visitor.hidden("form")
    assert form in page
    await visitor.post(visitor.link(jane), form=form, do="pause.30")
    await visitor.post(visitor.link(jane), form=form, do="all")
    assert await visitor.conn.fetchval("select stops from address where key = $1", jane.key) == [MARKETING]
    await visitor.post(visitor.link(jane), form=form, do="all")  # the control: the same act by the same form is one press
    assert [row[1:3] for row in await visitor.rows(jane)] == [("pause", "stop"), ("choice", "stop")]


@pytest.mark.parametrize("door", ["/p/", "/u/"])
async def test_a_form_that_is_pressed_again_after_somebody_opened_the_topic_stops_it(visitor: Visitor, door: str) -> None:
    (jane,) = await visitor.known("jane@example.org")
    path = visitor.link(jane).replace("/p/", door)
    act = {"do": "stop.16.email"} if door == "/p/" else {"stop": "this"}
    await visitor.get(path)
    form = visitor.hidden("form")
    await visitor.post(path, form=form, **act)
    visitor.clock.append(visitor.clock[-1] + timedelta(minutes=1))
    go = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.GO, Door.MANAGE, "1", visitor.clock[-1])
    await ledger.record(visitor.conn, [go], now=visitor.clock[-1])
    visitor.clock.append(visitor.clock[-1] + timedelta(minutes=1))
    await visitor.post(path, form=form, **act)
    assert await visitor.conn.fetchval("select stops from address where key = $1", jane.key) == [NEWSLETTER]
    assert await visitor.conn.fetchval("select goes from address where key = $1", jane.key) is None


@PRIVATE
@pytest.mark.parametrize(("door", "act"), [("/p/", {"do": "all"}), ("/u/", {"stop": "all"})])
async def test_an_old_form_takes_back_no_stop_that_is_older_than_half_an_hour(visitor: Visitor, door: str, act: dict[str, str]) -> None:
    (jane,) = await visitor.known("jane@example.org")
    path = visitor.link(jane).replace("/p/", door)
    await visitor.get(path)
    old = visitor.hidden("form")
    await visitor.post(path, form=old, **act)
    before = await visitor.conn.fetchval("select at from consent") - DAY
    await visitor.conn.execute("update consent set received_at = $1, at = $1", before)
    await visitor.get(path)
    await visitor.post(path, form=visitor.hidden("form"), **act)  # somebody else's press, acknowledged, which adds no row
    await visitor.post(path, form=old, **act)
    assert visitor.undo, "the control: a private page offers it to everybody"
    await visitor.post(path, PRESSED, undo=visitor.undo)
    assert await visitor.conn.fetchval("select stops from address where key = $1", jane.key) == [MARKETING]


@PRIVATE
async def test_an_undo_that_comes_before_its_stop_takes_nothing_from_it(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    path = visitor.link(jane)
    stop = Change(jane, MARKETING, Cause.CHOICE, Effect.STOP, Door.PAGE, "1", visitor.clock[-1] - DAY)
    await ledger.record(visitor.conn, [stop], now=visitor.clock[-1] - DAY)
    await visitor.get(path)
    form = visitor.hidden("form")
    await visitor.post(path, form=form, do="all")
    await visitor.post(path, undo=visitor.undo)
    assert [row[2] for row in await visitor.rows(jane)] == ["stop"], "there was nothing of this press to take back"
    visitor.clock.append(visitor.clock[-1] + timedelta(minutes=1))
    go = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.GO, Door.MANAGE, "2", visitor.clock[-1])
    await ledger.record(visitor.conn, [go], now=visitor.clock[-1])
    await visitor.post(path, form=form, do="all")
    assert await visitor.conn.fetchval("select goes from address where key = $1", jane.key) is None


async def test_who_is_held_by_mail_that_came_back_can_stop_all_the_same(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    bounce = Change(jane, 0, Cause.BOUNCE, Effect.STOP, Door.PROVIDER, "1", visitor.clock[-1])
    await ledger.record(visitor.conn, [bounce], now=visitor.clock[-1])
    text = await visitor.get(visitor.link(jane).replace("/p/", "/u/"))
    assert re.search(r'name="stop" value="this"', text)
    assert "already stopped" not in text
    stop = Change(jane, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.LINK, "2", visitor.clock[-1])
    await ledger.record(visitor.conn, [stop], now=visitor.clock[-1])
    assert "already stopped" in await visitor.get(visitor.link(jane).replace("/p/", "/u/"))  # the control


@pytest.mark.parametrize(
    ("on", "off", "opened", "shut"),
    [
        ("on.16.email", "stop.16.email", "You get this", "Stopped"),
        ("ads-on", "ads", "Sharing allowed", "Sharing stopped"),
        ("resume", "pause.30", "You get this", "Paused"),
    ],
)
async def test_an_old_form_that_opens_nothing_any_more_says_so(visitor: Visitor, on: str, off: str, opened: str, shut: str) -> None:
    (jane,) = await visitor.known("jane@example.org")
    path = visitor.managed(jane)
    await visitor.post(path, open="1")
    session, first = visitor.hidden("session"), visitor.hidden("form")

    async def press(do: str, form: str) -> str:
        visitor.clock.append(visitor.clock[-1] + timedelta(seconds=1))
        text = await visitor.post(path, do=do, form=form, session=session)
        return " ".join(re.sub(r"<[^>]+>", " ", text[text.index("<main>") : text.index('id="choices"')]).split())

    await press(off, first)
    old = visitor.hidden("form")
    for _ in range(2):
        said = await press(on, old)
        assert (said.startswith("Saved"), opened in said) == (True, True), "once more, while it holds, is the same press"
    await press(off, visitor.hidden("form"))
    said = await press(on, old)
    assert (said.startswith("Not saved"), shut in said, "Nothing was changed." in said) == (True, True, True)
    assert "<title>Not saved · " in visitor.text
    said = await press(on, visitor.hidden("form"))
    assert (said.startswith("Saved"), opened in said) == (True, True), "by the form of that page it is a press of its own"
