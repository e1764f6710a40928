"""Mandrill's own ways when it is told and asked: a denylist that must be a subaccount's, that forgets, and that ends at a thousand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from mailprefs import outbox
from mailprefs.errors import Misconfigured
from mailprefs.providers.base import Barred, Listed, Outcome, Settlement, Unclear, Unlisted, Unsafe
from mailprefs.providers.mandrill import Mandrill
from mailprefs.sandbox.app import create_app
from mailprefs.sandbox.mandrill import entry
from mailprefs.words import Kind

from .case_mandrill import CASE, SUBACCOUNT
from .scripted import Reply, Script, reply, scripted
from .teller_mandrill import OTHER, TELLER, holding
from .tellers import DONE, PATIENT, Box

ADDRESS = "a@example.com"
UNCONFIRMED = Settlement(Outcome.UNKNOWN, "not_confirmed")
MANDRILL = Mandrill()
REASONS = {
    "custom": DONE,
    "hard-bounce": DONE,
    "soft-bounce": DONE,
    "spam": Settlement(Outcome.REFUSED, "complaint"),
    "unsub": Settlement(Outcome.REFUSED, "left_there"),
    "odd": Settlement(Outcome.REFUSED, "other_reason"),
}


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    async with TestServer(create_app(["mandrill"])) as server, ClientSession(timeout=PATIENT) as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, TELLER)


async def put(box: Box, **reasons: str) -> list[str]:
    """Put people on the subaccount's denylist, each for a reason, and return their addresses."""
    state = holding({})
    state["subaccounts"][SUBACCOUNT] = {f"{name}@example.com": entry(reason) for name, reason in reasons.items()}
    await box.put(state)
    return list(state["subaccounts"][SUBACCOUNT])


async def reason(box: Box) -> Any:
    return (await box.state())["subaccounts"][SUBACCOUNT][ADDRESS]["reason"]


async def test_a_go_takes_away_what_is_ours_and_nothing_else(box: Box) -> None:
    people = await put(box, **{f"p{n}": each for n, each in enumerate(REASONS)})
    assert await box.tell(False, people) == list(REASONS.values())
    assert await box.holds() == people[1:]


@pytest.mark.parametrize("there", ["custom", "spam", "unsub"])
async def test_who_is_there_to_stay_is_stopped_already_and_stays_as_they_are(box: Box, there: str) -> None:
    await put(box, a=there)
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert await reason(box) == there
    assert await box.writes() == []


@pytest.mark.parametrize("there", ["hard-bounce", "soft-bounce"])
async def test_a_stop_does_not_lean_on_a_bounce_that_is_forgotten_in_days(box: Box, there: str) -> None:
    await put(box, a=there)
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert await reason(box) == "custom"
    await put(box, a=there)
    await box.faults("lying")
    assert await box.tell(True, [ADDRESS]) == [UNCONFIRMED]


async def test_what_mandrill_forgot_is_added_anew_and_for_good(box: Box) -> None:
    state = holding({})
    state["subaccounts"][SUBACCOUNT] = {ADDRESS: entry("unsub", age=366)}
    await box.put(state)
    assert await box.pulled() == []  # so the comparison of the night finds it missing
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert await reason(box) == "custom"
    assert [listed.address for listed in await box.pulled()] == [ADDRESS]


@pytest.mark.parametrize("there", ["unsub", "spam"])
async def test_what_mandrill_forgets_soon_is_told_anew_while_it_still_holds(box: Box, there: str) -> None:
    state = holding({})
    for age, lasts in ((300, True), (310, False), (364, False)):
        state["subaccounts"][SUBACCOUNT] = {ADDRESS: entry(there, age=age)}
        await box.put(state)
        assert [listed.address for listed in await box.pulled()] == [ADDRESS] * lasts  # else the comparison of the night tells it anew
        assert await box.tell(True, [ADDRESS]) == [DONE]
        assert await reason(box) == (there if lasts else "custom")
        assert [listed.address for listed in await box.pulled()] == [ADDRESS]


@pytest.mark.parametrize("there", ["unsub", "spam"])
async def test_who_is_told_again_in_time_is_never_forgotten(box: Box, there: str) -> None:
    """However many there are: beyond a thousand no list shows it, and the courier tells it again after 45 days."""
    step = (outbox.AGAIN + timedelta(days=2)).days  # with a day until it is its bucket's turn, and one of trouble
    state = holding({})
    for age in range(0, 3 * 365, step):
        state["subaccounts"][SUBACCOUNT] = {ADDRESS: entry(there, age=age)}
        assert not state["subaccounts"][SUBACCOUNT][ADDRESS]["expired"]
        await box.put(state)
        assert await box.tell(True, [ADDRESS]) == [DONE]
        if await reason(box) == "custom":
            return
    pytest.fail("it was forgotten")


async def test_who_is_on_the_allowlist_is_never_called_stopped(box: Box) -> None:
    await box.put({**holding({}), "allowed": [ADDRESS]})
    assert await box.tell(True, [ADDRESS, "b@example.com"]) == [UNCONFIRMED, DONE]
    assert await box.holds() == ["b@example.com"]


async def test_the_denylist_of_the_account_and_of_the_other_subaccount_stay_as_they_are(box: Box) -> None:
    state = {**holding({SUBACCOUNT: [ADDRESS], OTHER: [ADDRESS]}), "account": {ADDRESS: entry("spam")}}
    await box.put(state)
    assert await box.tell(False, [ADDRESS]) == [DONE]
    after = await box.state()
    assert (after["account"].keys(), after["subaccounts"][OTHER].keys()) == ({ADDRESS}, {ADDRESS})
    assert after["subaccounts"][SUBACCOUNT] == {}


async def test_the_simulated_provider_stops_all_mail_where_no_subaccount_is_named(box: Box) -> None:
    """The control: it does what its documentation says."""
    told = {"key": "x", "email": ADDRESS}
    async with box.http.post(f"{box.credential.api_base}/api/1.4/rejects/add", json=told) as answer:
        assert (answer.status, await answer.json()) == (200, {"email": ADDRESS, "added": True})
    assert TELLER.blocked(await box.state()) == [ADDRESS]


async def test_every_write_names_the_subaccount_and_no_request_a_comment(box: Box) -> None:
    for stop in (True, False):
        await box.tell(stop, TELLER.addresses)
    bodies = [json.loads(each["body"]) for each in await box.writes()]
    assert len(bodies) == 2 * len(TELLER.addresses)
    assert {each["subaccount"] for each in bodies} == {SUBACCOUNT}
    assert not [each for each in bodies if "comment" in each]


@pytest.mark.parametrize("subaccount", [None, "", "another"])
def test_an_account_that_shares_its_denylist_refuses_to_start(subaccount: str | None) -> None:
    MANDRILL.check(CASE.credential)  # the control
    shared = {**CASE.credential.options, "subaccount": subaccount}
    with pytest.raises(Misconfigured, match="receipts") as refused:
        MANDRILL.check(replace(CASE.credential, options=shared))
    assert "subaccount" in str(refused.value)
    assert "mandrill-main" in str(refused.value)


async def test_an_account_that_shares_its_denylist_is_told_nothing(box: Box) -> None:
    options = {name: value for name, value in CASE.credential.options.items() if name != "subaccount"}
    with pytest.raises(Unsafe, match="receipts"):
        await box.tell(True, [ADDRESS], credential=replace(box.credential, options=options))
    assert await box.requests() == []


def test_an_account_that_is_only_heard_needs_no_key() -> None:
    secrets = {name: value for name, value in CASE.credential.secrets.items() if name != "api_key"}
    MANDRILL.check(replace(CASE.credential, secrets=secrets, options={"public_url": CASE.credential.options["public_url"]}))
    with pytest.raises(Misconfigured, match="api_key"):
        MANDRILL.check(replace(CASE.credential, secrets=secrets))


async def test_the_list_says_when_and_why(box: Box) -> None:
    state = holding({})
    times = {"created_at": "2026-11-20 12:00:00"}
    held = {f"p{n}@example.com": {**entry(each), **times} for n, each in enumerate(REASONS)}
    state["subaccounts"][SUBACCOUNT] = {**held, "odd@example.com": {**entry(), "created_at": None}}
    await box.put(state)
    kinds = {"hard-bounce": Kind.BOUNCED_HARD, "spam": Kind.COMPLAINED}
    when = datetime(2026, 11, 20, 12, tzinfo=UTC)
    expected = [Listed(f"p{n}@example.com", SUBACCOUNT, when, kinds.get(each, Kind.UNSUBSCRIBED)) for n, each in enumerate(REASONS)]
    passing = list(REASONS).index("soft-bounce")  # it says nothing of anybody, and is gone tomorrow
    assert await box.pulled() == [*expected[:passing], *expected[passing + 1 :], Listed("odd@example.com", SUBACCOUNT)]


async def test_a_listing_of_a_thousand_may_have_left_somebody_out(box: Box) -> None:
    for many in (999, 1000, 1001):
        await box.hold(first=[f"p{n}@example.com" for n in range(many)])
        if many < 1000:
            assert len(await box.pulled()) == many
            continue
        with pytest.raises(Unlisted, match="a thousand entries"):
            await box.pulled()


# What it may say

HERE = {"email": ADDRESS, "reason": "custom", "created_at": "2026-11-20 12:00:00", "expired": False, "subaccount": SUBACCOUNT}
INFO, LIST = "POST /api/1.4/subaccounts/info", "POST /api/1.4/rejects/list"
ADD, DELETE = "POST /api/1.4/rejects/add", "POST /api/1.4/rejects/delete"
ADDED, DELETED = reply({"email": ADDRESS, "added": True}), reply({"email": ADDRESS, "deleted": True})
SOUND: Script = {INFO: reply({"id": SUBACCOUNT, "status": "active"})}


def error(name: str, status: int = 500) -> Reply:
    return reply({"status": "error", "code": -1, "name": name, "message": f"Something about {ADDRESS}"}, status)


async def told(script: Script, stop: bool = True) -> Settlement:
    async with scripted(MANDRILL, CASE.credential, {**SOUND, **script}) as one:
        [settled] = await one.tell(SUBACCOUNT, ADDRESS, stop=stop)
        assert "@" not in settled.detail
        return settled


async def test_what_counts_is_what_it_shows_afterwards() -> None:
    assert await told({LIST: [reply([]), reply([HERE])], ADD: ADDED}) == DONE
    others: tuple[dict[str, object], ...] = (
        {"email": "aa@example.com"},
        {"subaccount": OTHER},
        {"subaccount": None},
        {"expired": True},
        {"reason": "hard-bounce"},
        {"reason": "unsub"},
        {"reason": "unsub", "expires_at": "soon"},
    )
    for other in others:
        assert await told({LIST: [reply([]), reply([HERE | other])], ADD: ADDED}) == UNCONFIRMED
    assert await told({LIST: reply([HERE]), DELETE: DELETED}, stop=False) == UNCONFIRMED
    assert await told({LIST: [reply([HERE]), reply([])], DELETE: DELETED}, stop=False) == DONE


async def test_an_address_may_come_back_in_any_case() -> None:
    upper = ADDRESS.upper()
    assert await told({LIST: [reply([]), reply([HERE | {"email": upper}])], ADD: reply({"email": upper, "added": True})}) == DONE


@pytest.mark.parametrize("status", [400, 401, 500])
@pytest.mark.parametrize("call", [INFO, LIST, ADD])
async def test_a_key_that_is_none_bars_the_account_whatever_the_status(call: str, status: int) -> None:
    with pytest.raises(Barred):
        await told({LIST: reply([]), call: error("Invalid_Key", status)})


@pytest.mark.parametrize("call", [INFO, ADD])
async def test_a_subaccount_that_is_gone_is_told_nothing_more(call: str) -> None:
    with pytest.raises(Unsafe, match="subaccount"):
        await told({LIST: reply([]), call: error("Unknown_Subaccount")})


@pytest.mark.parametrize("info", [reply({}), reply({"id": OTHER}), reply([]), error("GeneralError")])
async def test_nothing_is_told_until_the_subaccount_is_known(info: Reply) -> None:
    async with scripted(MANDRILL, CASE.credential, {INFO: info}) as one:
        [settled] = await one.tell(SUBACCOUNT, ADDRESS)
        assert settled.outcome is Outcome.UNKNOWN
        assert one.asked == [INFO]


async def test_one_who_is_refused_is_refused_alone() -> None:
    assert await told({LIST: reply([]), ADD: error("ValidationError")}) == Settlement(Outcome.REFUSED, "invalid")
    assert await told({LIST: reply([HERE]), DELETE: error("ValidationError", 422)}, stop=False) == Settlement(Outcome.REFUSED, "invalid")
    assert await told({LIST: reply([]), ADD: reply({}, 400)}) == Settlement(Outcome.REFUSED, "http_400")
    assert await told({LIST: reply([]), ADD: reply({"email": ADDRESS, "added": False})}) == Settlement(Outcome.REFUSED, "not_added")
    assert await told({LIST: reply([]), ADD: error("GeneralError")}) == Settlement(Outcome.UNKNOWN, "http_500")


@pytest.mark.parametrize(
    "said", [{}, {"email": ADDRESS}, {"email": "b@example.com", "added": True}, {"email": ADDRESS, "added": "yes"}, []]
)
async def test_an_answer_about_somebody_else_is_none(said: object) -> None:
    assert await told({LIST: reply([]), ADD: reply(said)}) == Settlement(Outcome.UNKNOWN, "other_shape")


@pytest.mark.parametrize("shown", [reply({}), reply([ADDRESS]), reply([{"reason": "custom"}]), error("GeneralError"), reply([HERE] * 1000)])
async def test_a_listing_that_is_not_whole_is_no_listing(shown: Reply) -> None:
    assert (await told({LIST: shown})).outcome is Outcome.UNKNOWN
    async with scripted(MANDRILL, CASE.credential, {**SOUND, LIST: shown}) as one:
        with pytest.raises((Unclear, Unlisted)):
            await one.pulled(SUBACCOUNT)
