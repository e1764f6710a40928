"""MailerSend's own ways when it is told and asked: a list that stops a whole domain, numbers in place of addresses, pages by number."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from mailprefs.errors import Misconfigured
from mailprefs.providers.base import Listed, Outcome, Settlement, Slow, Unclear, Unsafe
from mailprefs.providers.mailersend import MailerSend
from mailprefs.providers.mailersend_unsubscribes import LEFT
from mailprefs.sandbox.app import create_app
from mailprefs.sandbox.mailersend import entry

from .case_mailersend import CASE
from .scripted import GONE, Reply, Script, reply, scripted
from .teller_mailersend import LIST, MARKETING, RECEIPTS, TELLER, holding
from .tellers import DONE, PATIENT, Box

ADDRESS = "a@example.com"
UNCONFIRMED = Settlement(Outcome.UNKNOWN, "not_confirmed")
MAILERSEND = MailerSend()


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    async with TestServer(create_app(["mailersend"])) as server, ClientSession(timeout=PATIENT) as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, TELLER)


async def test_a_go_takes_away_what_is_ours_and_nobody_who_left_by_themselves(box: Box) -> None:
    state = holding({MARKETING: ["ours@example.com", "stays@example.com"], RECEIPTS: ["ours@example.com"]})
    state["domains"][MARKETING]["left@example.com"] = entry("NO_LONGER_WANT")
    await box.put(state)
    assert await box.tell(False, ["ours@example.com", "left@example.com", "never@example.com"]) == [DONE, LEFT, DONE]
    assert {domain: list(held) for domain, held in (await box.state())["domains"].items()} == {
        MARKETING: ["stays@example.com", "left@example.com"],
        RECEIPTS: ["ours@example.com"],
    }


async def test_a_go_that_finds_nobody_removes_nothing(box: Box) -> None:
    await box.hold(first=["stays@example.com"])
    assert await box.tell(False, [ADDRESS]) == [DONE]
    assert await box.writes() == []


async def test_the_simulated_provider_takes_away_everybody_where_it_is_told_so(box: Box) -> None:
    """The control: it does what its documentation says."""
    await box.put(holding({MARKETING: [ADDRESS], RECEIPTS: [ADDRESS]}))
    async with box.http.delete(f"{box.credential.api_base}{LIST}", json={"all": True}, headers={"Authorization": "Bearer x"}) as answer:
        assert answer.status == 200
    assert (await box.state())["domains"] == {MARKETING: {}, RECEIPTS: {}}


async def test_a_stop_leaves_alone_why_somebody_left(box: Box) -> None:
    state = holding({})
    state["domains"][MARKETING] = {ADDRESS: entry("NO_LONGER_WANT")}
    await box.put(state)
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert await box.state() == state


async def let_go(box: Box, people: list[str], bits: int = 9) -> tuple[list[Settlement], int]:
    """Tell a go until it is settled, as the courier does, and return how often it was asked to come back."""
    for asked in range(bits):
        try:
            return await box.tell(False, people), asked
        except Slow:
            pass
    pytest.fail("it never ends")


async def test_a_list_of_any_length_is_looked_through_bit_by_bit(box: Box) -> None:
    people = [f"p{n:04}@example.com" for n in range(2_000)]
    await box.hold(first=people)
    settled, asked = await let_go(box, ["P1999@example.com", "never@example.com"])
    assert settled == [UNCONFIRMED, DONE]
    assert len(await box.requests()) * MAILERSEND.pause <= (asked + 1) * MAILERSEND.budget * 0.8
    assert await box.holds() == people[:-1]
    assert (await let_go(box, ["P1999@example.com"]))[0] == [DONE]  # asked again, it looks through all of it, or goes on with that
    assert await box.undocumented() == []


async def test_a_short_list_is_looked_through_and_read_back_within_one_telling(box: Box) -> None:
    people = [f"p{n:03}@example.com" for n in range(700)]
    await box.hold(first=people)
    assert await box.tell(False, people[-1:]) == [DONE]
    assert len(await box.requests()) * MAILERSEND.pause <= MAILERSEND.budget * 0.8


async def test_a_search_begins_anew_where_somebody_may_have_come_behind_it(box: Box) -> None:
    people = [f"p{n:04}@example.com" for n in range(2_000)]
    await box.hold(first=people)
    with pytest.raises(Slow):
        await box.tell(False, [ADDRESS])
    assert await box.tell(True, [ADDRESS]) == [DONE]
    await box.hold(first=[ADDRESS, *people])  # the order of a list is not documented
    assert await let_go(box, [ADDRESS]) == ([UNCONFIRMED], 1)
    assert await box.holds() == people


@pytest.mark.parametrize("domain", [None, "", "pxkjn41nr6olz781"])
def test_an_account_that_shares_its_domain_refuses_to_start(domain: str | None) -> None:
    MAILERSEND.check(CASE.credential)  # the control
    with pytest.raises(Misconfigured, match="receipts") as refused:
        MAILERSEND.check(replace(CASE.credential, options={**CASE.credential.options, "domain_id": domain}))
    assert "domain_id" in str(refused.value)
    assert "mailersend-main" in str(refused.value)


async def test_an_account_that_shares_its_domain_is_told_nothing(box: Box) -> None:
    options = {"scopes": CASE.credential.options["scopes"]}
    with pytest.raises(Unsafe, match="receipts"):
        await box.tell(True, [ADDRESS], credential=replace(box.credential, options=options))
    assert await box.requests() == []


def test_an_account_that_is_only_heard_needs_no_token() -> None:
    secrets = {name: value for name, value in CASE.credential.secrets.items() if name != "api_token"}
    MAILERSEND.check(replace(CASE.credential, secrets=secrets, options={}))
    with pytest.raises(Misconfigured, match="api_token"):
        MAILERSEND.check(replace(CASE.credential, secrets=secrets))


async def test_the_list_says_when_where_it_says_so_with_a_zone(box: Box) -> None:
    state = holding({})
    written = {ADDRESS: "2026-11-20T12:00:00.000000Z", "b@example.com": "2026-11-20 12:00:00"}
    state["domains"][MARKETING] = {address: {"reason": None, "created_at": at} for address, at in written.items()}
    await box.put(state)
    assert await box.pulled() == [Listed(ADDRESS, MARKETING, datetime(2026, 11, 20, 12, tzinfo=UTC)), Listed("b@example.com", MARKETING)]


@pytest.mark.parametrize("many", [99, 100, 101, 189, 190, 191, 1_003])
async def test_pages_overlap_and_nobody_is_listed_twice(box: Box, many: int) -> None:
    people = [f"p{n:04}@example.com" for n in range(many)]
    await box.hold(first=people)
    assert [listed.address for listed in await box.pulled()] == people
    assert await box.undocumented() == []


async def test_a_removal_names_ids_and_the_domain_and_never_all(box: Box) -> None:
    await box.hold(first=["a@example.com", "b@example.com", "c@example.com"])
    assert await box.tell(False, ["a@example.com", "c@example.com"]) == [DONE] * 2
    [removal] = [json.loads(each["body"]) for each in await box.writes()]
    assert removal.keys() == {"domain_id", "ids"}
    assert (removal["domain_id"], len(removal["ids"])) == (MARKETING, 2)
    assert await box.holds() == ["b@example.com"]


# What it may say

DOMAIN, POST, DELETE = f"GET /v1/domains/{MARKETING}", f"POST {LIST}", f"DELETE {LIST}"
PAGE = rf"GET {LIST}\?domain_id={MARKETING}&page=\d+&limit=\d+"
HERE = {"id": "1", "reason": None, "recipient": {"email": ADDRESS}, "created_at": "2026-11-20T12:00:00Z"}
SOUND: Script = {DOMAIN: reply({"data": {"id": MARKETING}})}


def page(*entries: object, total: int | None = None) -> Reply:
    return reply({"data": entries, "meta": {"total": len(entries) if total is None else total}})


async def told(script: Script, stop: bool = True) -> Settlement:
    async with scripted(MAILERSEND, CASE.credential, {**SOUND, **script}) as one:
        [settled] = await one.tell(MARKETING, ADDRESS, stop=stop)
        assert "@" not in settled.detail
        return settled


@pytest.mark.parametrize("status", [200, 201])
async def test_who_is_in_the_echo_is_told_and_who_is_not_is_looked_for(status: int) -> None:
    upper = HERE | {"recipient": {"email": ADDRESS.upper()}}
    assert await told({POST: reply({"data": [upper]}, status)}) == DONE
    elsewhere = HERE | {"recipient": {"email": ADDRESS, "domain": {"id": RECEIPTS}}}
    for echo in ([], [HERE | {"recipient": {"email": "b@example.com"}}], [elsewhere]):
        silent = {POST: reply({"data": echo}, status)}
        assert await told({**silent, PAGE: page(HERE)}) == DONE
        assert await told({**silent, PAGE: page(elsewhere)}) == UNCONFIRMED


@pytest.mark.parametrize("removed", [Reply(b"", 204), reply({}), Reply(b"", 200)])
async def test_a_removal_counts_once_the_list_shows_it(removed: Reply) -> None:
    assert await told({PAGE: [page(HERE), page()], DELETE: removed}, stop=False) == DONE
    assert await told({PAGE: page(HERE), DELETE: removed}, stop=False) == UNCONFIRMED


@pytest.mark.parametrize("domain", [reply({}), reply({"data": {"id": RECEIPTS}}), reply([]), reply({}, 500)])
async def test_nothing_is_told_until_the_domain_is_known(domain: Reply) -> None:
    async with scripted(MAILERSEND, CASE.credential, {DOMAIN: domain}) as one:
        [settled] = await one.tell(MARKETING, ADDRESS)
        assert settled.outcome is Outcome.UNKNOWN
        assert one.asked == [DOMAIN]


BROKEN: dict[str, Reply] = {
    "no total": reply({"data": [HERE]}),
    "a total of words": reply({"data": [HERE], "meta": {"total": "1"}}),
    "fewer than it says": page(HERE, total=2),
    "no entries": reply({"meta": {"total": 0}}),
    "an entry that is none": page(ADDRESS),
    "an entry without an id": page({"recipient": {"email": ADDRESS}}),
    "an entry of nobody": page({"id": "1", "recipient": {}}),
    "nobody there": GONE,
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_a_listing_that_is_not_whole_is_no_listing(answer: Reply) -> None:
    async with scripted(MAILERSEND, CASE.credential, {**SOUND, PAGE: answer}) as one:
        with pytest.raises(Unclear):
            await one.pulled(MARKETING)
    assert (await told({PAGE: answer}, stop=False)).outcome is Outcome.UNKNOWN
