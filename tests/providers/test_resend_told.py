"""Resend's own ways when it is told and asked: contacts, topics, and the one word that is about everything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from mailprefs.errors import Misconfigured
from mailprefs.providers.base import Outcome, Settlement, Unclear, Unlisted
from mailprefs.providers.resend import Resend
from mailprefs.sandbox.app import create_app

from .case_resend import CASE
from .scripted import GONE, Reply, Script, reply, scripted
from .teller_resend import FIRST, SECOND, TELLER
from .tellers import DONE, PATIENT, Box

RESEND = Resend()
LEFT = Settlement(Outcome.REFUSED, "left_there")
UNCONFIRMED = Settlement(Outcome.UNKNOWN, "not_confirmed")
CONTACT = {"object": "contact", "id": "c-1", "email": "a@example.com", "unsubscribed": False}
PERSON = "/contacts/a%40example.com"


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    async with TestServer(create_app(["resend"])) as server, ClientSession(timeout=PATIENT) as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, TELLER)


def contacts(**held: Mapping[str, object]) -> Any:
    """Return the state of a sandbox with these contacts, by the name before the @."""
    known = {f"{name}@example.com": {"unsubscribed": False, "topics": {}, **contact} for name, contact in held.items()}
    return {"topics": {FIRST: "opt_in", SECOND: "opt_in"}, "contacts": known, "suppressions": []}


async def test_who_left_everything_there_is_brought_back_by_no_go(box: Box) -> None:
    before = contacts(a={"unsubscribed": True, "topics": {FIRST: "opt_out"}}, b={"topics": {FIRST: "opt_out"}})
    await box.put(before)
    assert await box.tell(False, ["a@example.com", "b@example.com"]) == [LEFT, DONE]
    after = (await box.state())["contacts"]
    assert after["a@example.com"] == before["contacts"]["a@example.com"]
    assert after["b@example.com"]["topics"] == {FIRST: "opt_in"}  # the control


async def test_a_stop_is_about_its_topic_and_never_about_everything(box: Box) -> None:
    await box.put(contacts(a={"unsubscribed": True}, b={"topics": {SECOND: "opt_out"}}))
    assert await box.tell(True, ["a@example.com", "b@example.com", "new@example.com"]) == [DONE] * 3
    state = await box.state()
    assert {address: contact["unsubscribed"] for address, contact in state["contacts"].items()} == {
        "a@example.com": True,
        "b@example.com": False,
        "new@example.com": False,
    }
    assert state["contacts"]["b@example.com"]["topics"] == {FIRST: "opt_out", SECOND: "opt_out"}
    assert state["suppressions"] == []
    sent = [json.loads(each["body"]) for each in await box.requests() if each["body"]]
    assert not [body for body in sent if "unsubscribed" in body]  # false would take back what somebody chose


async def test_a_go_makes_nobody_a_contact(box: Box) -> None:
    assert await box.tell(False, ["nobody@example.com"]) == [DONE]
    assert (await box.state())["contacts"] == {}
    assert {each["method"] for each in await box.requests()} == {"GET"}


@pytest.mark.parametrize("stop", [True, False])
async def test_a_lie_is_found_before_it_counts(box: Box, stop: bool) -> None:
    await box.put(contacts(a={"topics": {FIRST: "opt_in" if stop else "opt_out"}}))
    await box.faults("lying")
    assert await box.tell(stop, ["a@example.com"]) == [UNCONFIRMED]
    assert await box.tell(stop, ["a@example.com"]) == [DONE]


async def test_who_left_everything_is_listed_in_every_topic(box: Box) -> None:
    await box.put(contacts(a={"unsubscribed": True}, b={"topics": {SECOND: "opt_out"}}, c={}, d={"topics": {FIRST: "opt_in"}}))
    assert {listed.address for listed in await box.pulled(FIRST)} == {"a@example.com"}
    assert {listed.address for listed in await box.pulled(SECOND)} == {"a@example.com", "b@example.com"}


async def test_a_topic_that_nobody_is_in_by_default_is_told_and_not_listed(box: Box) -> None:
    await box.put({**contacts(a={}), "topics": {FIRST: "opt_out", SECOND: "opt_in"}})
    assert await box.tell(True, ["a@example.com"]) == [DONE]
    with pytest.raises(Unlisted, match="by default"):
        await box.pulled(FIRST)


@pytest.mark.parametrize("topic", ["newsletter", FIRST.upper(), f" {FIRST}"])
def test_what_is_no_topic_is_refused_at_the_start(topic: str) -> None:
    with pytest.raises(Misconfigured, match="scopes"):
        RESEND.check(replace(CASE.credential, options={"scopes": {"newsletter": topic}}))
    with pytest.raises(Misconfigured, match="api_key"):
        RESEND.check(replace(CASE.credential, secrets={"webhook_secret": CASE.credential.secrets["webhook_secret"]}))


def test_an_account_that_is_only_heard_needs_no_key() -> None:
    RESEND.check(replace(CASE.credential, secrets={"webhook_secret": CASE.credential.secrets["webhook_secret"]}, options={}))


# What it may say


def chosen(subscription: object, topic: str = FIRST) -> Reply:
    return reply({"object": "list", "has_more": False, "data": [{"id": topic, "subscription": subscription}]})


TOPIC = {f"GET /topics/{FIRST}": reply({"id": FIRST, "default_subscription": "opt_in"})}
CHOICES, PAGE = rf"GET {PERSON}/topics\?limit=100", r"GET /contacts\?limit=100"
FULL = [{**CONTACT, "id": f"c-{n}", "email": f"p{n}@example.com", "unsubscribed": True} for n in range(100)]


async def told(script: Script, stop: bool = True) -> Settlement:
    async with scripted(RESEND, CASE.credential, {**TOPIC, **script}) as one:
        [settled] = await one.tell(FIRST, "a@example.com", stop=stop)
        assert "@" not in settled.detail
        return settled


@pytest.mark.parametrize("patched", [{"id": "c-1"}, {"object": "contact_topics", "contact_id": "c-1", "topics": []}, {}])
async def test_what_counts_is_what_it_shows_afterwards(patched: object) -> None:
    changed = {f"PATCH {PERSON}/topics": reply(patched)}
    assert await told({**changed, CHOICES: chosen("opt_out")}) == DONE
    for shown in (chosen("opt_in"), chosen(None), chosen("opt_out", SECOND), GONE):
        assert await told({**changed, CHOICES: shown}) == UNCONFIRMED


@pytest.mark.parametrize("takes", ["object", "array", "either"])
async def test_a_choice_is_taken_however_it_wants_to_be_spelt(box: Box, takes: str) -> None:
    """Its OpenAPI document and its SDKs differ. What it refused once is not tried first for the others of the batch."""
    people = [f"{name}@example.com" for name in "abc"]
    await box.put({**contacts(a={}, b={}), "takes": takes})
    for stop, wanted in ((True, "opt_out"), (False, "opt_in")):
        await box.http.delete(f"{box.root}/_sandbox/requests")
        assert await box.tell(stop, people) == [DONE] * 3
        state = await box.state()
        assert [state["contacts"][each]["topics"] for each in people] == [{FIRST: wanted}] * 3
        refused = sum(each["method"] == "PATCH" for each in await box.requests()) - 3
        assert refused == (takes == "array")


async def test_a_choice_is_spelt_twice_only_where_the_spelling_may_be_to_blame() -> None:
    for status, times in ((400, 2), (413, 1), (422, 2), (500, 1), (200, 1)):
        script = {**TOPIC, f"PATCH {PERSON}/topics": reply({}, status), CHOICES: chosen("opt_out")}
        async with scripted(RESEND, CASE.credential, script) as one:
            await one.tell(FIRST, "a@example.com")
            assert sum(each.startswith("PATCH") for each in one.asked) == times


@pytest.mark.parametrize("status", [200, 201])
async def test_a_contact_that_is_made_may_be_called_ok_or_created(status: int) -> None:
    made = {f"PATCH {PERSON}/topics": GONE, "POST /contacts": reply({"id": "c-1"}, status)}
    assert await told({**made, CHOICES: chosen("opt_out")}) == DONE


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_one_who_is_refused_is_refused_alone(status: int) -> None:
    refusal = reply({"statusCode": status, "name": "validation_error"}, status)
    refused = Settlement(Outcome.REFUSED, f"http_{status}")
    assert await told({f"PATCH {PERSON}/topics": refusal}) == refused
    assert await told({f"PATCH {PERSON}/topics": GONE, "POST /contacts": refusal}) == refused
    assert await told({f"GET {PERSON}": reply(CONTACT), f"PATCH {PERSON}/topics": refusal}, stop=False) == refused


@pytest.mark.parametrize("contact", [{}, {"unsubscribed": None}, {"unsubscribed": "false"}, []])
async def test_a_contact_that_does_not_say_whether_it_left_is_told_no_go(contact: object) -> None:
    script = {f"GET {PERSON}": reply(contact), f"PATCH {PERSON}/topics": reply({}), CHOICES: chosen("opt_in")}
    assert await told(script, stop=False) == Settlement(Outcome.UNKNOWN, "other_shape")
    assert await told({**script, f"GET {PERSON}": reply(CONTACT)}, stop=False) == DONE  # the control


async def pulled(script: Script) -> list[str]:
    async with scripted(RESEND, CASE.credential, {**TOPIC, **script}) as one:
        return [listed.address for listed in await one.pulled(FIRST)]


async def test_a_page_without_has_more_is_the_last_one_unless_it_is_full() -> None:
    everyone = [each["email"] for each in FULL]
    assert await pulled({PAGE: reply({"data": FULL[:99]})}) == everyone[:99]
    one_more = {**CONTACT, "unsubscribed": True}
    assert await pulled({PAGE: reply({"data": FULL}), f"{PAGE}&after=c-99": reply({"data": [one_more]})}) == [*everyone, "a@example.com"]
    assert await pulled({PAGE: reply({"data": FULL}), f"{PAGE}&after=c-99": reply({"data": []})}) == everyone


async def test_a_contact_that_is_gone_when_it_is_asked_for_is_passed_over() -> None:
    assert await pulled({PAGE: reply({"data": [CONTACT, FULL[0]], "has_more": False}), CHOICES: GONE}) == ["p0@example.com"]


BROKEN: dict[str, Script] = {
    "no contacts there": {PAGE: GONE},
    "the same page again": {
        PAGE: reply({"data": FULL, "has_more": True}),
        f"{PAGE}&after=c-99": reply({"data": FULL, "has_more": True}),
    },
    "more, and nobody": {PAGE: reply({"data": [], "has_more": True})},
    "more, and no id": {PAGE: reply({"data": [{**CONTACT, "id": None, "unsubscribed": True}], "has_more": True})},
    "more or less": {PAGE: reply({"data": FULL[:1], "has_more": "false"})},
    "no array": {PAGE: reply({"data": {}})},
    "no objects": {PAGE: reply({"data": ["a@example.com"]})},
    "no address": {PAGE: reply({"data": [{**CONTACT, "email": None}], "has_more": False})},
    "no word on everything": {PAGE: reply({"data": [{**CONTACT, "unsubscribed": 1}], "has_more": False})},
    "a bare array": {PAGE: reply([CONTACT])},
    "choices that do not come": {PAGE: reply({"data": [CONTACT], "has_more": False}), CHOICES: reply({}, 500)},
    "a cut": {PAGE: Reply(b'{"data": [')},
    "a created one": {PAGE: reply({"data": [], "has_more": False}, 201)},
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
async def test_a_listing_that_is_not_whole_is_no_listing(script: Script) -> None:
    with pytest.raises(Unclear):
        await pulled(script)


async def test_another_topic_than_asked_for_is_unclear() -> None:
    script = {f"GET /topics/{FIRST}": reply({"id": SECOND, "default_subscription": "opt_in"}), PAGE: reply({"data": []})}
    assert await told(script) == Settlement(Outcome.UNKNOWN, "other_topic")
    with pytest.raises(Unclear):
        await pulled(script)
