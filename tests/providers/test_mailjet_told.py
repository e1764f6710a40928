"""Mailjet's own ways when it is told and asked: memberships, people who were never in, filters that may not be heeded, pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from mailprefs.errors import Misconfigured
from mailprefs.providers.base import Listed, Outcome, Settlement, Unclear, Unsafe
from mailprefs.providers.mailjet import Mailjet
from mailprefs.sandbox.app import create_app

from .case_mailjet import CASE
from .scripted import GONE, Script, reply, scripted
from .teller_mailjet import FIRST, SECOND, TELLER, holding
from .tellers import DONE, PATIENT, Box

MAILJET = Mailjet()
ADDRESS = "a@example.com"
UNCONFIRMED = Settlement(Outcome.UNKNOWN, "not_confirmed")
WAS_IN, LEFT = "2026-01-05T09:00:00Z", "2026-11-20T08:58:33Z"


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    async with TestServer(create_app(["mailjet"])) as server, ClientSession(timeout=PATIENT) as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, TELLER)


def member(*, left: bool, since: str = WAS_IN) -> dict[str, object]:
    return {"left": left, "since": since, "until": LEFT if left else ""}


def state(**more: Any) -> Any:
    return {"lists": {FIRST: {}, SECOND: {}}, **more}


async def members(box: Box) -> dict[str, bool]:
    """Return who is in the list, and whether each has left it."""
    return {address: held["left"] for address, held in (await box.state())["lists"][FIRST].items()}


async def writes(box: Box) -> list[str]:
    return [f"{each['method']} {each['path'].removeprefix('/v3/REST')}" for each in await box.requests() if each["method"] != "GET"]


# Who was in, and who never was


async def test_who_was_in_is_subscribed_again_by_a_go_and_who_never_was_is_taken_out(box: Box) -> None:
    await box.put(state(lists={FIRST: {ADDRESS: member(left=False)}, SECOND: {}}))
    people = [ADDRESS, "stranger@example.com"]
    assert await box.tell(True, people) == [DONE, DONE]
    assert await members(box) == dict.fromkeys(people, True)
    assert await box.tell(False, people) == [DONE, DONE]
    assert await members(box) == {ADDRESS: False}


@pytest.mark.parametrize("adds", [True, False])
async def test_who_is_in_no_list_stands_in_it_as_one_who_left_whatever_unsub_does(box: Box, adds: bool) -> None:
    await box.put(state(adds=adds))
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert await members(box) == {ADDRESS: True}
    assert len(await writes(box)) == (1 if adds else 2)
    assert await box.tell(False, [ADDRESS]) == [DONE]
    assert await members(box) == {}


async def test_who_has_left_already_is_left_as_it_is(box: Box) -> None:
    await box.put(state(lists={FIRST: {ADDRESS: member(left=True)}, SECOND: {}}))
    before = await box.state()
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert await box.state() == before
    assert await writes(box) == []


async def test_a_go_says_nothing_of_who_is_excluded_from_all_campaigns_or_unknown(box: Box) -> None:
    told = state(contacts=[ADDRESS], excluded=[ADDRESS])
    await box.put(told)
    assert await box.tell(False, [ADDRESS, "unknown@example.com"]) == [DONE, DONE]
    assert (await box.state())["excluded"] == [ADDRESS]
    assert await writes(box) == []


async def test_a_lie_about_a_contact_that_was_not_made_is_not_confirmed(box: Box) -> None:
    await box.faults("lying")
    assert await box.tell(True, [ADDRESS]) == [UNCONFIRMED]
    assert (await box.state())["contacts"] == []


# What it may answer


def entry(number: int = 7, **more: object) -> dict[str, object]:
    listed = {"ID": 70 + number, "ContactID": number, "ListID": int(FIRST), "IsUnsubscribed": True}
    return {**listed, "SubscribedAt": WAS_IN, "UnsubscribedAt": LEFT, **more}


def data(*entries: object, total: object = None) -> Any:
    return reply({"Count": len(entries), "Data": entries, "Total": len(entries) if total is None else total})


LIST = {rf"GET /v3/REST/contactslist/{FIRST}": data({"ID": int(FIRST), "IsDeleted": False})}
PERSON = {r"GET /v3/REST/contact/a%40example\.com": data({"ID": 7, "Email": ADDRESS})}
MEMBERSHIP = rf"GET /v3/REST/listrecipient\?Contact=7&ContactsList={FIRST}&Limit=1000"


@pytest.mark.parametrize(
    "strange",
    [
        [entry(8)],
        [entry(), entry(8)],
        [entry(ListID=int(SECOND))],
        [entry(), entry()],
        [entry(IsUnsubscribed="true")],
        [entry(ID="77")],
        ["entry"],
    ],
    ids=["another's", "also another's", "of another list", "twice", "no boolean", "no number", "no object"],
)
@pytest.mark.parametrize("stop", [True, False])
async def test_a_filter_that_is_not_heeded_never_makes_one_person_another(strange: list[Any], stop: bool) -> None:
    async with scripted(MAILJET, CASE.credential, {**LIST, **PERSON, MEMBERSHIP: data(*strange)}) as one:
        assert (await one.tell(FIRST, ADDRESS, stop=stop))[0].outcome is Outcome.UNKNOWN
        assert one.writes == []


async def test_a_contact_with_another_address_is_not_the_one_that_was_asked_for() -> None:
    script = {**LIST, r"GET /v3/REST/contact/.*": data({"ID": 7, "Email": "b@example.com"}), MEMBERSHIP: data(entry())}
    async with scripted(MAILJET, CASE.credential, script) as one:
        assert await one.tell(FIRST, ADDRESS, stop=False) == [Settlement(Outcome.UNKNOWN, "other_contact")]
        assert one.writes == []


@pytest.mark.parametrize("dates", [{"SubscribedAt": ""}, {"SubscribedAt": LEFT}, {"SubscribedAt": None}, {"UnsubscribedAt": "soon"}])
async def test_without_proof_that_somebody_was_in_a_go_subscribes_nobody(dates: dict[str, Any]) -> None:
    script: Script = {**LIST, **PERSON, MEMBERSHIP: [data(entry(**dates)), data()], r"DELETE .*": reply(None, 204)}
    async with scripted(MAILJET, CASE.credential, script) as one:
        assert await one.tell(FIRST, ADDRESS, stop=False) == [DONE]
        assert one.writes == ["DELETE /v3/REST/listrecipient/77"]


@pytest.mark.parametrize(
    ("shown", "error"),
    [
        (data({"ID": int(FIRST), "IsDeleted": True}), Unsafe),
        (data(), Unsafe),
        (GONE, Unsafe),
        (data({"ID": int(SECOND)}), Unclear),
        (reply({"ID": int(FIRST)}), Unclear),
    ],
)
async def test_a_list_that_is_deleted_or_another_is_asked_for_nothing_more(shown: Any, error: type[Exception]) -> None:
    async with scripted(MAILJET, CASE.credential, {r"GET .*": shown}) as one:
        with pytest.raises(error):
            await one.pulled(FIRST)
        assert len(one.asked) == 1


# What is listed


@pytest.mark.parametrize("many", [0, 1, 10, 11, 999, 1000, 1001, 1990, 1991])
@pytest.mark.parametrize("totals", [True, False])
async def test_a_listing_is_whole_whatever_total_counts(box: Box, many: int, totals: bool) -> None:
    people = [f"p{n:04}@example.com" for n in range(many)]
    await box.put({**holding({FIRST: people}), "totals": totals})
    assert sorted(listed.address for listed in await box.pulled()) == people


async def test_the_list_says_since_when_and_not_who_is_still_in(box: Box) -> None:
    lists = {FIRST: {ADDRESS: member(left=True), "b@example.com": member(left=False)}, SECOND: {"c@example.com": member(left=True)}}
    await box.put(state(lists=lists))
    assert await box.pulled() == [Listed(ADDRESS, FIRST, datetime(2026, 11, 20, 8, 58, 33, tzinfo=UTC))]


UNSUBSCRIBED, CONTACTS = r"GET /v3/REST/listrecipient\?ContactsList=.*", r"GET /v3/REST/contact\?ContactsList=.*"


async def test_whom_the_contacts_of_the_list_do_not_show_is_asked_for_one_by_one() -> None:
    everyone = [entry(7), entry(8), entry(9, IsUnsubscribed=False), entry(10, ListID=int(SECOND)), entry(11)]
    script: Script = {
        **LIST,
        UNSUBSCRIBED: data(*everyone),
        CONTACTS: data({"ID": 7, "Email": ADDRESS}, {"ID": 9, "Email": "in@example.com"}),
        r"GET /v3/REST/contact/8": data({"ID": 8, "Email": "b@example.com"}),
        r"GET /v3/REST/contact/11": GONE,  # deleted for good: there is nobody to mail
    }
    async with scripted(MAILJET, CASE.credential, script) as one:
        assert [listed.address for listed in await one.pulled(FIRST)] == [ADDRESS, "b@example.com"]


@pytest.mark.parametrize(
    "strange",
    [
        {UNSUBSCRIBED: data(entry(), total=5)},
        {UNSUBSCRIBED: data(entry(), total="1")},
        {UNSUBSCRIBED: reply({"Count": 0})},
        {UNSUBSCRIBED: data(entry(ContactID="7"))},
        {CONTACTS: data({"ID": 7, "Email": ""})},
        {CONTACTS: data({"ID": 7, "Email": ADDRESS}, total=5)},
        {CONTACTS: GONE},
    ],
    ids=["fewer than it counts", "no count", "no entries", "no number", "no address", "fewer contacts", "no contacts"],
)
async def test_a_listing_of_another_shape_is_unclear(strange: Script) -> None:
    sound: Script = {**LIST, UNSUBSCRIBED: data(entry()), CONTACTS: data({"ID": 7, "Email": ADDRESS})}
    async with scripted(MAILJET, CASE.credential, {**sound, **strange}) as one:
        with pytest.raises(Unclear):
            await one.pulled(FIRST)
    async with scripted(MAILJET, CASE.credential, sound) as one:  # the control
        assert len(await one.pulled(FIRST)) == 1


# What refuses to start


@pytest.mark.parametrize("name", ["api_key", "api_secret"])
def test_an_account_that_is_told_needs_both_keys(name: str) -> None:
    for wrong in ({}, {name: "short"}):
        secrets = {key: value for key, value in CASE.credential.secrets.items() if key != name} | wrong
        with pytest.raises(Misconfigured, match=name):
            MAILJET.check(replace(CASE.credential, secrets=secrets))
    heard = {key: value for key, value in CASE.credential.secrets.items() if key.startswith("webhook")}
    MAILJET.check(replace(CASE.credential, secrets=heard, options={}))  # the control: heard alone it needs neither
