"""The pages of an unsubscribe link: what will stop, what stopped, what still comes, and what no page gives away."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from mailprefs import ledger
from mailprefs.links import Links
from mailprefs.words import Cause, Change, Door, Effect

from .visitor import Visitor

NEWSLETTER, OFFERS, MARKETING, ADS = 272, 273, 257, 259
PRIVATE = pytest.mark.parametrize("visitor", [{"page": "private"}], indirect=True)


def leave(visitor: Visitor, text: str = "jane@example.org", topic: str = "newsletter") -> str:
    """Return the path of somebody's unsubscribe link."""
    return visitor.link(visitor.addresses.read(text), topic).replace("/p/", "/u/")


def words(page: str) -> str:
    """Return what a page says, as it is read."""
    shown = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown))


async def test_a_the_page_says_what_will_stop_for_whom_how_often_it_comes_and_what_continues(visitor: Visitor) -> None:
    await visitor.known("jane@example.org")
    page = await visitor.get(leave(visitor))
    said = words(page)
    for each in (
        "Stop these emails?",
        "Nothing changes until you press a button.",
        "Monthly newsletter",
        "j•••@e•••.org",
        "account or care",
    ):
        assert each in said
    assert "starts with j, at a domain that starts with e and ends in .org" in said, "read out where the bullets are hidden"
    assert "jane@example.org" not in page
    assert re.findall(r'<button[^>]*value="(this|all)"', page) == ["this", "all"]
    assert page.count('class="first"') == 1
    assert visitor.link(visitor.addresses.read("jane@example.org")) in page, "the way to choose topic by topic"


async def test_b_a_link_to_what_is_not_there_any_more_stops_all_marketing_with_one_button(visitor: Visitor) -> None:
    gone = replace(visitor.catalogue.topic("newsletter"), number=256 + 200)
    path = "/u/" + Links(visitor.ring, "go.example.com", "u@go.example.com").token(visitor.addresses.read("jane@example.org").key, gone)
    page = await visitor.get(path)
    assert "Stop all marketing emails?" in words(page)
    assert "All news, offers and surveys from Connective Care." in words(page)
    assert re.findall(r'<button[^>]*value="(this|all)"', page) == ["all"]
    assert "All marketing emails are stopped" in words(await visitor.post(path, stop="all"))


async def test_d_what_is_stopped_already_is_said_with_its_day_and_offers_all_marketing(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    day = visitor.clock[-1] - timedelta(days=20)
    await ledger.record(visitor.conn, [Change(jane, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.LINK, "1", day)], now=day)
    said = words(await visitor.get(leave(visitor)))
    for each in ("These emails are already stopped", "You do not need to do anything.", "Monthly newsletter", "November 2, 2026"):
        assert each in said
    assert re.findall(r'<button[^>]*value="(this|all)"', visitor.text) == ["all"]
    assert "Stop these emails?" in words(await visitor.get(leave(visitor, topic="offers"))), "the control: another topic goes on"


async def test_d_a_break_that_ends_is_no_stop(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    now = visitor.clock[-1]
    pause = Change(jane, MARKETING, Cause.PAUSE, Effect.STOP, Door.MANAGE, "1", now, now + timedelta(days=90))
    await ledger.record(visitor.conn, [pause], now=now)
    assert "Stop these emails?" in words(await visitor.get(leave(visitor)))
