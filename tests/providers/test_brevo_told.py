"""Brevo's own ways when it is told and asked: two blocklists, and what a contact did there by themselves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from mailprefs.errors import Misconfigured
from mailprefs.providers.base import Outcome, Settlement, Unclear, Unsafe
from mailprefs.providers.brevo import CAMPAIGNS, Brevo
from mailprefs.sandbox.app import create_app

from .case_brevo import CASE
from .scripted import GONE, Reply, Script, reply, scripted
from .teller_brevo import TELLER
from .tellers import DONE, PATIENT, Box

BREVO = Brevo()
UNCONFIRMED = Settlement(Outcome.UNKNOWN, "not_confirmed")
LEFT = {"unsubscriptions": {"userUnsubscription": [{"campaignId": 21, "eventTime": "2026-11-20T09:15:30Z"}], "adminUnsubscription": []}}
OURS = {"unsubscriptions": {"userUnsubscription": [], "adminUnsubscription": [{"eventTime": "2026-11-20T09:15:30Z"}]}}


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    async with TestServer(create_app(["brevo"])) as server, ClientSession(timeout=PATIENT) as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, TELLER)


def stopped(**statistics: object) -> dict[str, object]:
    return {"emailBlacklisted": True, "statistics": statistics}


async def test_what_a_person_did_there_is_undone_by_no_go(box: Box) -> None:
    theirs = {
        "left@example.com": stopped(**LEFT),
        "both@example.com": stopped(unsubscriptions={**LEFT["unsubscriptions"], "adminUnsubscription": [{}]}),
        "complained@example.com": stopped(complaints=[{"campaignId": 21}]),
        "bounced@example.com": stopped(hardBounces=[{"campaignId": 21}]),
    }
    await box.put({"contacts": {**theirs, "ours@example.com": stopped(**OURS)}})
    settled = await box.tell(False, [*theirs, "ours@example.com"])
    refused = [Settlement(Outcome.REFUSED, why) for why in ("left_there", "left_there", "left_there", "bounced_there")]
    assert settled == [*refused, DONE]
    assert sorted(await box.holds()) == sorted(theirs)


async def test_a_stop_is_on_the_blocklist_of_campaigns_and_on_no_other(box: Box) -> None:
    before = {"a@example.com": {"emailBlacklisted": False, "smtpBlacklistSender": ["news@example.com"]}}
    await box.put({"contacts": before})
    assert await box.tell(True, ["a@example.com", "new@example.com"]) == [DONE] * 2
    assert {address: contact["smtpBlacklistSender"] for address, contact in (await box.state())["contacts"].items()} == {
        "a@example.com": ["news@example.com"],
        "new@example.com": [],
    }
    sent = [json.loads(each["body"]) for each in await box.requests() if each["body"]]
    assert not [body for body in sent if body.keys() & {"smtpBlacklistSender", "listIds", "unlinkListIds", "attributes"}]


async def test_a_go_makes_nobody_a_contact(box: Box) -> None:
    assert await box.tell(False, ["nobody@example.com"]) == [DONE]
    assert (await box.state())["contacts"] == {}
    assert {each["method"] for each in await box.requests()} == {"GET"}


@pytest.mark.parametrize("stop", [True, False])
async def test_a_lie_is_found_before_it_counts(box: Box, stop: bool) -> None:
    await box.hold(first=[] if stop else ["a@example.com"])
    await box.faults("lying")
    assert await box.tell(stop, ["a@example.com"]) == [UNCONFIRMED]
    assert await box.tell(stop, ["a@example.com"]) == [DONE]


def test_two_scopes_cannot_share_the_one_list_and_a_list_of_contacts_is_none() -> None:
    BREVO.check(replace(CASE.credential, options={"scopes": {"marketing": CAMPAIGNS}}))
    for group in ("7", "newsletter", "CAMPAIGNS", ""):
        with pytest.raises(Misconfigured, match="one blocklist"):
            BREVO.check(replace(CASE.credential, options={"scopes": {"marketing": group}}))


def test_an_account_that_is_only_heard_needs_no_key() -> None:
    secrets = {name: value for name, value in CASE.credential.secrets.items() if name != "api_key"}
    BREVO.check(replace(CASE.credential, secrets=secrets, options={}))
    with pytest.raises(Misconfigured, match="api_key"):
        BREVO.check(replace(CASE.credential, secrets=secrets))


# What it may say

PERSON = r"/v3/contacts/a%40example.com\?identifierType=email_id"
CONTACT = {"id": 1, "email": "a@example.com", "emailBlacklisted": True}
FREE = {**CONTACT, "emailBlacklisted": False}


async def told(script: Script, stop: bool = True) -> Settlement:
    async with scripted(BREVO, CASE.credential, script) as one:
        [settled] = await one.tell(CAMPAIGNS, "a@example.com", stop=stop)
        assert "@" not in settled.detail
        return settled


@pytest.mark.parametrize("changed", [reply({"id": 1}, 201), Reply(b"", 201), Reply(b"", 204)], ids=["made", "made, in silence", "changed"])
async def test_what_counts_is_what_it_shows_afterwards(changed: Reply) -> None:
    script = {"POST /v3/contacts": changed}
    assert await told({**script, f"GET {PERSON}": reply(CONTACT)}) == DONE
    for shown in (reply(FREE), GONE):
        assert await told({**script, f"GET {PERSON}": shown}) == UNCONFIRMED
    for shown in (reply({}), reply([]), reply({"emailBlacklisted": "true"})):
        assert await told({**script, f"GET {PERSON}": shown}) == Settlement(Outcome.UNKNOWN, "other_shape")


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_one_who_is_refused_is_refused_alone(status: int) -> None:
    refused = Settlement(Outcome.REFUSED, f"http_{status}")
    assert await told({"POST /v3/contacts": reply({"code": "invalid_parameter"}, status)}) == refused
    assert await told({f"GET {PERSON}": reply(CONTACT), f"PUT {PERSON}": reply({}, status)}, stop=False) == refused


async def test_too_early_is_neither_a_refusal_nor_done() -> None:
    assert await told({"POST /v3/contacts": reply({"code": "too_early"}, 425)}) == Settlement(Outcome.UNKNOWN, "http_425")


async def test_a_contact_that_is_gone_when_it_is_let_go_is_asserted_again() -> None:
    script: Script = {f"GET {PERSON}": [reply(CONTACT), GONE], f"PUT {PERSON}": GONE}
    assert await told(script, stop=False) == Settlement(Outcome.UNKNOWN, "http_404")
    assert await told({f"GET {PERSON}": GONE}, stop=False) == DONE


async def test_a_long_history_is_read_as_well() -> None:
    long = {**CONTACT, "statistics": {"messagesSent": [{"campaignId": n, "eventTime": "2026-11-20T09:15:30Z"} for n in range(20_000)]}}
    assert await told({"POST /v3/contacts": Reply(b"", 204), f"GET {PERSON}": reply(long)}) == DONE


FIRST = r"GET /v3/contacts\?limit=500&offset=0&sort=asc"


async def pulled(script: Script) -> list[str]:
    async with scripted(BREVO, CASE.credential, script) as one:
        return [listed.address for listed in await one.pulled(CAMPAIGNS)]


async def test_who_has_a_telephone_alone_is_not_listed() -> None:
    phone = {"id": 2, "emailBlacklisted": True, "attributes": {"SMS": "+15005550006"}}
    assert await pulled({FIRST: reply({"contacts": [phone, CONTACT, {**FREE, "id": 3}], "count": 3})}) == ["a@example.com"]


BROKEN: dict[str, Reply] = {
    "no count": reply({"contacts": [CONTACT]}),
    "a count of words": reply({"contacts": [CONTACT], "count": "1"}),
    "fewer than it says": reply({"contacts": [CONTACT], "count": 2}),
    "no contacts": reply({"count": 0}),
    "contacts that are none": reply({"contacts": ["a@example.com"], "count": 1}),
    "no word on the blocklist": reply({"contacts": [{"id": 1, "email": "a@example.com"}], "count": 1}),
    "no id": reply({"contacts": [{"email": "a@example.com", "emailBlacklisted": True}], "count": 1}),
    "an empty address": reply({"contacts": [{**CONTACT, "email": " "}], "count": 1}),
    "nobody there": GONE,
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_a_listing_that_is_not_whole_is_no_listing(answer: Reply) -> None:
    with pytest.raises(Unclear):
        await pulled({FIRST: answer, r"GET /v3/contacts\?limit=500&offset=\d+&sort=asc": answer})


async def test_another_list_is_not_listed() -> None:
    async with scripted(BREVO, CASE.credential, {}) as one:
        with pytest.raises(Unsafe, match="campaigns"):
            await one.pulled("7")
        assert one.asked == []
