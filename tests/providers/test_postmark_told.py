"""What is Postmark's own way with a suppression list, told over real HTTP: complaints stay, bounces are left alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from mailprefs.providers.base import Listed, Outcome, Settlement
from mailprefs.sandbox.app import create_app
from mailprefs.sandbox.postmark import entry
from mailprefs.words import Kind

from .teller_postmark import TELLER, holding
from .tellers import DONE, Box

ADDRESS = "a@example.com"


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    async with TestServer(create_app(["postmark"])) as server, ClientSession() as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, TELLER)


async def held_for(box: Box, reason: str) -> None:
    state = holding({})
    state["streams"]["broadcasts"]["suppressions"] = {ADDRESS: entry(ADDRESS, reason, "Recipient")}
    await box.put(state)


async def writes(box: Box) -> list[str]:
    return [each["path"] for each in await box.requests() if each["method"] != "GET"]


async def test_a_complaint_cannot_be_taken_back_and_that_is_said(box: Box) -> None:
    await held_for(box, "SpamComplaint")
    assert await box.tell(False, [ADDRESS]) == [Settlement(Outcome.REFUSED, "complaint")]
    assert await box.holds() == [ADDRESS]
    assert await writes(box) == []


async def test_who_complained_is_stopped_already(box: Box) -> None:
    await held_for(box, "SpamComplaint")
    assert await box.tell(True, [ADDRESS, "b@example.com"]) == [DONE, DONE]  # Postmark calls the first one Failed
    assert await box.holds() == [ADDRESS, "b@example.com"]


async def test_a_go_never_reactivates_who_bounced(box: Box) -> None:
    await held_for(box, "HardBounce")
    assert await box.tell(False, [ADDRESS]) == [DONE]
    assert await box.holds() == [ADDRESS]
    assert await writes(box) == []
    await held_for(box, "ManualSuppression")  # the control
    assert await box.tell(False, [ADDRESS]) == [DONE]
    assert await box.holds() == []


async def test_of_several_each_is_taken_back_for_what_it_is(box: Box) -> None:
    state = holding({"broadcasts": ["chose@example.com"]})
    for address, reason in (("bounced@example.com", "HardBounce"), ("complained@example.com", "SpamComplaint"), ("odd@example.com", "Odd")):
        state["streams"]["broadcasts"]["suppressions"][address] = entry(address, reason)
    await box.put(state)
    settled = await box.tell(False, [*state["streams"]["broadcasts"]["suppressions"], "never@example.com"])
    refused = [Settlement(Outcome.REFUSED, why) for why in ("complaint", "other_reason")]
    assert settled == [DONE, DONE, *refused, DONE]
    assert await box.holds() == ["bounced@example.com", "complained@example.com", "odd@example.com"]


async def test_who_postmark_will_not_stop_is_put_aside(box: Box) -> None:
    await box.faults("per-item")
    assert await box.tell(True, [ADDRESS, "b@example.com"]) == [Settlement(Outcome.REFUSED, "failed"), DONE]
    assert await box.holds() == ["b@example.com"]


async def test_the_list_says_when_and_why(box: Box) -> None:
    at = {"CreatedAt": "2026-11-20T08:58:33-05:00"}
    told = {
        "a@example.com": entry("a@example.com") | at,
        "b@example.com": entry("b@example.com", "SpamComplaint") | at,
        "c@example.com": entry("c@example.com", "HardBounce") | {"CreatedAt": "soon"},
        "d@example.com": entry("d@example.com", "Odd") | {"CreatedAt": "2026-11-20T08:58:33"},
    }
    state = holding({})
    state["streams"]["broadcasts"]["suppressions"] = told
    await box.put(state)
    when = datetime(2026, 11, 20, 13, 58, 33, tzinfo=UTC)
    assert await box.pulled() == [
        Listed("a@example.com", "broadcasts", when, Kind.UNSUBSCRIBED),
        Listed("b@example.com", "broadcasts", when, Kind.COMPLAINED),
        Listed("c@example.com", "broadcasts", None, Kind.BOUNCED_HARD),
        Listed("d@example.com", "broadcasts", None, Kind.UNSUBSCRIBED),
    ]
