"""SendGrid is told over real HTTP: the sandbox, with each of its faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout
from aiohttp.test_utils import TestServer

from mailprefs.providers.base import (
    Barred,
    Credential,
    Listed,
    Outcome,
    Settlement,
    Slow,
    Telling,
    Unsafe,
)
from mailprefs.providers.sendgrid import SendGrid
from mailprefs.sandbox.app import create_app

from .case_sendgrid import API_KEY, CASE
from .tellers import PATIENT

SENDGRID = SendGrid()
ADDRESSES = ["a@example.com", "b+c/d?e#f@example.com", "Élise@example.com", "200%@example.com"]


@dataclass
class Sandbox:
    """The simulated SendGrid, and the account that points to it."""

    http: ClientSession
    root: str
    credential: Credential

    async def faults(self, *queue: object) -> None:
        async with self.http.post(f"{self.root}/_sandbox/faults", json={"queue": queue}) as answer:
            assert answer.status == 200

    async def shown(self, what: str) -> Any:
        async with self.http.get(f"{self.root}/_sandbox/{what}") as answer:
            return await answer.json()

    async def holds(self, group: str = "12345") -> list[str]:
        state = (await self.shown("state"))["sendgrid"]
        assert not state["global"]  # in no test that ends well does anyone land there
        held: list[str] = state["groups"][group]
        return held

    async def writes(self) -> list[tuple[str, str]]:
        return [(each["method"], each["path"]) for each in await self.shown("requests") if each["method"] != "GET"]

    async def tell(self, stop: bool, addresses: Sequence[str], group: str = "12345") -> list[Settlement]:
        return await SENDGRID.tell(self.http, self.credential, [Telling(address, group, stop) for address in addresses])

    async def pulled(self, group: str = "12345") -> list[Listed]:
        return [listed async for listed in SENDGRID.pull(self.http, self.credential, group)]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with TestServer(create_app()) as server, ClientSession(timeout=PATIENT) as http:
        root = str(server.make_url("")).rstrip("/")
        yield Sandbox(http, root, replace(CASE.credential, api_base=f"{root}/sendgrid"))


DONE = Settlement(Outcome.DONE)


def unknown(detail: str, count: int = 1) -> list[Settlement]:
    return [Settlement(Outcome.UNKNOWN, detail)] * count


async def test_a_stop_reaches_the_group_and_a_go_takes_it_back(sandbox: Sandbox) -> None:
    assert await sandbox.tell(True, ADDRESSES) == [DONE] * 4
    assert await sandbox.holds() == ADDRESSES
    assert [listed.address for listed in await sandbox.pulled()] == ADDRESSES
    assert await sandbox.tell(False, ADDRESSES[:3]) == [DONE] * 3
    assert await sandbox.holds() == ADDRESSES[3:]
    assert await sandbox.holds("12346") == []


async def test_telling_twice_is_as_good_as_once(sandbox: Sandbox) -> None:
    for stop, held in ((True, ADDRESSES), (True, ADDRESSES), (False, []), (False, [])):
        assert await sandbox.tell(stop, ADDRESSES) == [DONE] * 4
        assert await sandbox.holds() == held


async def test_nothing_but_number_and_address_leaves(sandbox: Sandbox) -> None:
    await sandbox.tell(True, ["a@example.com"])
    await sandbox.tell(False, ["a@example.com"])
    requests = await sandbox.shown("requests")
    assert [(each["method"], each["path"].removeprefix("/sendgrid/v3/asm/groups/12345")) for each in requests] == [
        ("GET", ""),
        ("POST", "/suppressions"),
        ("GET", ""),
        ("GET", ""),
        ("DELETE", "/suppressions/a%40example.com"),
    ]
    assert [json.loads(each["body"]) for each in requests if each["body"]] == [{"recipient_emails": ["a@example.com"]}]
    assert {name for each in requests for name, _ in each["headers"]} <= {
        "Host",
        "Accept",
        "Accept-Encoding",
        "User-Agent",
        "Content-Length",
        "Content-Type",
    }


async def test_a_group_that_is_gone_is_told_nothing(sandbox: Sandbox) -> None:
    await sandbox.http.delete(f"{sandbox.root}/sendgrid/v3/asm/groups/12345", headers={"Authorization": f"Bearer {API_KEY}"})
    for stop in (True, False):
        with pytest.raises(Unsafe, match="12345"):
            await sandbox.tell(stop, ADDRESSES)
    with pytest.raises(Unsafe):
        await sandbox.pulled()
    assert (await sandbox.shown("state"))["sendgrid"]["global"] == []
    assert await sandbox.writes() == [("DELETE", "/sendgrid/v3/asm/groups/12345")]


@pytest.mark.parametrize("group", ["", "newsletter", "12345/suppressions", "..", "1 2", "１２３４５"])
async def test_what_is_no_group_is_told_nothing(sandbox: Sandbox, group: str) -> None:
    with pytest.raises(Unsafe):
        await sandbox.tell(True, ADDRESSES, group)
    assert await sandbox.shown("requests") == []


async def test_an_address_that_is_none_never_stands_in_a_path(sandbox: Sandbox) -> None:
    odd = ["", " ", ".", "..", "/", "@", "a@", "@b", "a b@example.com", "a@example.com\n", "\ud800@example.com", "a" * 250 + "@example.com"]
    for stop in (True, False):
        settled = await sandbox.tell(stop, [*odd, "a@example.com", *odd])
        assert [s.outcome for s in settled] == [Outcome.REFUSED] * 12 + [Outcome.DONE] + [Outcome.REFUSED] * 12
        assert [s.outcome for s in await sandbox.tell(stop, odd)] == [Outcome.REFUSED] * 12
    assert await sandbox.writes() == [
        ("POST", "/sendgrid/v3/asm/groups/12345/suppressions"),
        ("DELETE", "/sendgrid/v3/asm/groups/12345/suppressions/a%40example.com"),
    ]


async def test_an_address_of_dots_and_slashes_stays_one_segment(sandbox: Sandbox) -> None:
    tricky = ["../../12346/suppressions/@example.com", "..%2f..@example.com", "%2e%2e/@example.com", "?a=@example.com", "#@example.com"]
    assert await sandbox.tell(True, tricky) == [DONE] * 5
    assert await sandbox.holds() == tricky
    assert await sandbox.tell(False, tricky) == [DONE] * 5
    assert await sandbox.holds() == []


async def test_nothing_to_tell_asks_nothing(sandbox: Sandbox) -> None:
    assert await sandbox.tell(True, []) == []
    assert await sandbox.shown("requests") == []


async def test_two_groups_or_directions_in_one_call_are_a_mistake_of_ours(sandbox: Sandbox) -> None:
    for other in (Telling("b@example.com", "12346", True), Telling("b@example.com", "12345", False)):
        with pytest.raises(ValueError, match="unpack"):
            await SENDGRID.tell(sandbox.http, sandbox.credential, [Telling("a@example.com", "12345", True), other])
    assert await sandbox.shown("requests") == []


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize(
    ("fault", "shortest", "longest"),
    [("429-seconds", 7, 7), ("429-date", 5, 8), ("429-reset", 5, 8), ("429-bare", 60, 60)],
)
async def test_a_429_says_how_long_to_wait(sandbox: Sandbox, stop: bool, fault: str, shortest: int, longest: int) -> None:
    await sandbox.faults({"fault": fault, "seconds": 7})
    with pytest.raises(Slow) as slow:
        await sandbox.tell(stop, ADDRESSES)
    assert timedelta(seconds=shortest) <= slow.value.wait <= timedelta(seconds=longest)
    assert await sandbox.tell(stop, ADDRESSES) == [DONE] * 4  # the fault is spent


async def test_a_wait_is_never_longer_than_an_hour(sandbox: Sandbox) -> None:
    for fault in ("429-seconds", "429-date", "429-reset"):
        await sandbox.faults({"fault": fault, "seconds": 3600}, {"fault": "429-seconds", "seconds": 0})
        with pytest.raises(Slow) as slow:
            await sandbox.tell(True, ADDRESSES)
        assert timedelta(minutes=59) < slow.value.wait <= timedelta(hours=1)
        with pytest.raises(Slow) as slow:
            await sandbox.tell(True, ADDRESSES)
        assert slow.value.wait == timedelta(seconds=1)


async def test_a_key_that_is_not_accepted_bars_the_account(sandbox: Sandbox) -> None:
    await sandbox.faults("401", "401")
    for stop in (True, False):
        with pytest.raises(Barred):
            await sandbox.tell(stop, ADDRESSES)
    nobody = replace(sandbox.credential, secrets={"webhook_key": "x"})
    with pytest.raises(Barred, match="api_key"):
        await SENDGRID.tell(sandbox.http, nobody, [Telling("a@example.com", "12345", True)])


FAULTS: list[tuple[str, str, bool, bool]] = [  # fault, detail of a stop, applied at once, applied later
    ("500", "http_500", False, False),
    ("html", "http_200", False, False),
    ("applied-then-dropped", "no_answer", True, True),
    ("applied-late", "no_answer", False, True),
    ("half-closed", "no_answer", True, True),
    ("truncated", "broken_json", True, True),
]


@pytest.mark.parametrize(("fault", "detail", "at_once", "later"), FAULTS, ids=[fault for fault, *_ in FAULTS])
async def test_a_stop_whose_outcome_is_unknown_is_never_called_done(
    sandbox: Sandbox, fault: str, detail: str, at_once: bool, later: bool
) -> None:
    await sandbox.faults({"fault": fault, "seconds": 0.2})
    assert await sandbox.tell(True, ADDRESSES) == unknown(detail, 4)
    assert await sandbox.holds() == ADDRESSES * at_once
    await asyncio.sleep(0.4)
    assert await sandbox.holds() == ADDRESSES * later
    assert await sandbox.tell(True, ADDRESSES) == [DONE] * 4  # one more assertion mends it
    assert await sandbox.holds() == ADDRESSES


@pytest.mark.parametrize("fault", ["500", "html", "applied-then-dropped", "applied-late"])
async def test_a_go_whose_outcome_is_unknown_is_not_done_and_holds_up_nobody(sandbox: Sandbox, fault: str) -> None:
    await sandbox.tell(True, ADDRESSES)
    await sandbox.faults({"fault": fault, "seconds": 0.2})
    settled = await sandbox.tell(False, ADDRESSES)
    assert [s.outcome for s in settled] == [Outcome.UNKNOWN] + [Outcome.DONE] * 3
    assert await sandbox.tell(False, ADDRESSES) == [DONE] * 4
    assert await sandbox.holds() == []


async def test_a_go_that_may_still_land_is_told_of_before_a_429_behind_it(sandbox: Sandbox) -> None:
    await sandbox.tell(True, ADDRESSES)
    await sandbox.faults({"fault": "applied-late", "seconds": 0.2}, "429-seconds")
    assert await sandbox.tell(False, ADDRESSES) == [*unknown("no_answer"), *unknown("cut_short", 3)]
    await sandbox.faults({"fault": "slow", "seconds": 0}, "429-seconds")
    assert await sandbox.tell(False, ADDRESSES) == [Settlement(Outcome.DONE), *unknown("cut_short", 3)], "nor is what was done forgotten"
    await sandbox.faults("429-seconds")
    with pytest.raises(Slow):  # the control: with nobody settled the wait goes first
        await sandbox.tell(False, ADDRESSES)


async def test_a_tell_ends_in_its_time_with_what_is_settled_by_then(sandbox: Sandbox) -> None:
    for seconds, settled in ((1, [DONE, *unknown("too_late", 3)]), (60, [DONE] * 4)):
        await sandbox.tell(True, ADDRESSES)
        await sandbox.faults({"fault": "slow", "seconds": 0}, {"fault": "slow", "seconds": 1.2})
        tellings = [Telling(address, "12345", False) for address in ADDRESSES]
        given = SendGrid(budget=timedelta(seconds=seconds))
        assert await given.tell(sandbox.http, sandbox.credential, tellings) == settled


async def test_an_answer_too_late_is_unknown(sandbox: Sandbox) -> None:
    await sandbox.faults({"fault": "slow", "seconds": 0.8})
    async with ClientSession(timeout=ClientTimeout(total=0.5)) as http:
        assert await replace(sandbox, http=http).tell(True, ADDRESSES) == unknown("no_answer", 4)


async def test_a_slow_answer_in_time_is_done(sandbox: Sandbox) -> None:
    await sandbox.faults({"fault": "slow", "seconds": 0.1})
    assert await sandbox.tell(True, ADDRESSES) == [DONE] * 4


async def test_a_write_that_lands_twice_is_as_good_as_once(sandbox: Sandbox) -> None:
    await sandbox.faults({"fault": "duplicated", "seconds": 0.1})
    assert await sandbox.tell(True, ADDRESSES) == [DONE] * 4
    await asyncio.sleep(0.3)
    assert await sandbox.holds() == ADDRESSES


async def test_who_is_missing_in_the_echo_is_not_done(sandbox: Sandbox) -> None:
    await sandbox.faults("per-item")
    assert await sandbox.tell(True, ADDRESSES) == [*unknown("not_echoed"), *[DONE] * 3]
    assert await sandbox.holds() == ADDRESSES[1:]


async def test_a_lie_is_found_by_asking_for_the_list(sandbox: Sandbox) -> None:
    await sandbox.faults("lying")
    assert await sandbox.tell(True, ADDRESSES) == [DONE] * 4
    assert await sandbox.pulled() == []
