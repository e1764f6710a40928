"""Mailchimp's own ways when it is told and asked: hashes, people who left there, people deleted for good, people who were never in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import md5
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from mailprefs.errors import Misconfigured
from mailprefs.providers.base import Listed, Outcome, Settlement, Unclear
from mailprefs.providers.mailchimp import Mailchimp
from mailprefs.sandbox.app import create_app

from .case_mailchimp import API_KEY, CASE
from .scripted import GONE, Reply, Script, reply, scripted
from .teller_mailchimp import FIRST, OPTED, SECOND, TELLER
from .tellers import DONE, PATIENT, Box

MAILCHIMP = Mailchimp()
LEFT, DELETED = Settlement(Outcome.REFUSED, "left_there"), Settlement(Outcome.REFUSED, "deleted_there")
UNCONFIRMED = Settlement(Outcome.UNKNOWN, "not_confirmed")


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    async with TestServer(create_app(["mailchimp"])) as server, ClientSession(timeout=PATIENT) as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, TELLER)


def member(status: str, opted: str = OPTED, *, left: bool = False) -> dict[str, object]:
    return {"status": status, "timestamp_opt": opted, "last_changed": OPTED, "left": left}


def holding(deleted: list[str] | None = None, **members: dict[str, object]) -> Any:
    known = {f"{name}@example.com": held for name, held in members.items()}
    return {"lists": {FIRST: known, SECOND: {}}, "deleted": {FIRST: deleted or []}}


async def statuses(box: Box) -> dict[str, str]:
    members = (await box.state())["lists"][FIRST]
    return {address.partition("@")[0]: held["status"] for address, held in members.items()}


async def test_a_member_is_known_by_the_hash_of_its_address_in_lower_case(box: Box) -> None:
    assert await box.tell(True, ["Jane.Doe@Example.com"]) == [DONE]
    assert await box.tell(True, ["jane.doe@example.com"]) == [DONE]
    assert await box.holds() == ["Jane.Doe@Example.com"]
    hashed = md5(b"jane.doe@example.com", usedforsecurity=False).hexdigest()
    assert {each["path"].partition("?")[0].rpartition("/")[2] for each in await box.requests() if "members" in each["path"]} == {hashed}


async def test_who_left_there_by_themselves_is_taken_back_by_no_go(box: Box) -> None:
    await box.put(holding(a=member("unsubscribed", left=True), b=member("unsubscribed")))
    assert await box.tell(False, ["a@example.com", "b@example.com"]) == [LEFT, DONE]
    assert await statuses(box) == {"a": "unsubscribed", "b": "subscribed"}
    assert not [each for each in await box.requests() if "pending" in each["body"]]  # that would mail them


async def test_who_was_never_in_is_not_subscribed_by_a_go(box: Box) -> None:
    assert await box.tell(True, ["new@example.com"]) == [DONE]
    assert await statuses(box) == {"new": "unsubscribed"}
    assert await box.tell(False, ["new@example.com"]) == [DONE]
    assert await statuses(box) == {"new": "archived"}
    assert await box.tell(False, ["nobody@example.com"]) == [DONE]
    assert await statuses(box) == {"new": "archived"}


@pytest.mark.parametrize("status", ["subscribed", "cleaned", "pending", "transactional", "archived"])
async def test_a_go_touches_nobody_who_is_not_unsubscribed(box: Box, status: str) -> None:
    await box.put(holding(a=member(status)))
    assert await box.tell(False, ["a@example.com"]) == [DONE]
    assert await statuses(box) == {"a": status}
    assert {each["method"] for each in await box.requests()} == {"GET"}


@pytest.mark.parametrize("status", ["subscribed", "cleaned", "pending", "transactional", "archived", "unsubscribed"])
async def test_a_stop_unsubscribes_whoever_is_known_in_whatever_way(box: Box, status: str) -> None:
    await box.put(holding(a=member(status)))
    assert await box.tell(True, ["a@example.com"]) == [DONE]
    assert await statuses(box) == {"a": "unsubscribed"}


async def test_who_was_deleted_for_good_is_never_called_told(box: Box) -> None:
    await box.put(holding(["gone@example.com"]))
    assert await box.tell(True, ["gone@example.com", "a@example.com"]) == [DELETED, DONE]
    assert await statuses(box) == {"a": "unsubscribed"}
    assert await box.tell(False, ["gone@example.com"]) == [DONE]
    await box.put(holding())
    assert await box.tell(True, ["gone@example.com"]) == [DONE]  # the control


async def test_nothing_is_deleted_but_a_member_by_its_hash(box: Box) -> None:
    await box.put(holding(a=member("unsubscribed", opted=""), b=member("subscribed")))
    await box.tell(False, ["a@example.com", "b@example.com", "", "/", "..", "a@", "@b"])
    [deleted] = [each["path"] for each in await box.requests() if each["method"] == "DELETE"]
    assert deleted == f"/3.0/lists/{FIRST}/members/{md5(b'a@example.com', usedforsecurity=False).hexdigest()}"


@pytest.mark.parametrize(("stop", "opted"), [(True, OPTED), (False, OPTED), (False, "")])
async def test_a_lie_is_found_before_it_counts(box: Box, stop: bool, opted: str) -> None:
    await box.put(holding(a=member("subscribed" if stop else "unsubscribed", opted)))
    await box.faults("lying")
    assert await box.tell(stop, ["a@example.com"]) == [UNCONFIRMED]
    assert await box.tell(stop, ["a@example.com"]) == [DONE]


@pytest.mark.parametrize("group", ["newsletter", "1a2b3c4d5", FIRST.upper()])
def test_what_is_no_audience_is_refused_at_the_start(group: str) -> None:
    with pytest.raises(Misconfigured, match="no audience"):
        MAILCHIMP.check(replace(CASE.credential, options={"scopes": {"newsletter": group}}))


def test_beside_a_list_id_nothing_is_an_audience_but_that() -> None:
    MAILCHIMP.check(replace(CASE.credential, options={"scopes": {"newsletter": FIRST}, "list_id": FIRST}))
    with pytest.raises(Misconfigured, match="Interest groups and tags are no opt-outs"):
        MAILCHIMP.check(replace(CASE.credential, options={"scopes": {"newsletter": "9143cf3bd1"}, "list_id": FIRST}))


@pytest.mark.parametrize("key", [API_KEY.rpartition("-")[0], API_KEY + "/", "-us19", "a" * 20 + "-us19.example.com"])
def test_a_key_without_its_data_centre_is_refused_at_the_start(key: str) -> None:
    with pytest.raises(Misconfigured, match="api_key"):
        MAILCHIMP.check(replace(CASE.credential, secrets={**CASE.credential.secrets, "api_key": key}))
    only_heard = {name: value for name, value in CASE.credential.secrets.items() if name != "api_key"}
    MAILCHIMP.check(replace(CASE.credential, secrets=only_heard, options={}))


# What it may say

PERSON = rf"/3\.0/lists/{FIRST}/members/{md5(b'a@example.com', usedforsecurity=False).hexdigest()}"
SHOW = rf"GET {PERSON}\?fields=email_address,status,timestamp_opt"
PUT, PATCH = rf"PUT {PERSON}\?skip_merge_validation=true", rf"PATCH {PERSON}\?skip_merge_validation=true"
HERE = {rf"GET /3\.0/lists/{FIRST}\?fields=id": reply({"id": FIRST})}


def problem(title: str, status: int = 400) -> Reply:
    return reply({"title": title, "status": status, "detail": "a@example.com …"}, status, "application/problem+json")


async def told(script: Script, stop: bool = True) -> Settlement:
    async with scripted(MAILCHIMP, CASE.credential, {**HERE, **script}) as one:
        [settled] = await one.tell(FIRST, "a@example.com", stop=stop)
        assert "@" not in settled.detail
        return settled


async def test_what_counts_is_what_it_shows_afterwards() -> None:
    put = {PUT: reply({"status": "unsubscribed"})}
    assert await told({**put, SHOW: reply(member("unsubscribed"))}) == DONE
    for status in ("subscribed", "pending", "cleaned", "archived"):
        assert await told({**put, SHOW: reply(member(status))}) == UNCONFIRMED
    assert await told({**put, SHOW: GONE}) == UNCONFIRMED
    for shown in (reply({}), reply([]), reply({"status": None})):
        assert await told({**put, SHOW: shown}) == Settlement(Outcome.UNKNOWN, "other_shape")


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (problem("Forgotten Email Not Subscribed"), "deleted_there"),
        (problem("Member In Compliance State"), "left_there"),
        (problem("Invalid Resource"), "http_400"),
        (Reply(b"<html>", 400, "text/html"), "http_400"),
        (reply(["Forgotten Email Not Subscribed"], 422), "http_422"),
        (reply({"title": ["Forgotten Email Not Subscribed"]}, 400), "http_400"),
    ],
)
async def test_a_refusal_is_called_what_it_is(answer: Reply, detail: str) -> None:
    assert await told({PUT: answer}) == Settlement(Outcome.REFUSED, detail)
    assert await told({SHOW: reply(member("unsubscribed")), PATCH: answer}, stop=False) == Settlement(Outcome.REFUSED, detail)


async def test_a_large_member_is_read_as_well() -> None:
    large = {**member("unsubscribed"), "merge_fields": {f"F{n}": "x" * 100 for n in range(2_000)}}
    assert await told({PUT: reply(large), SHOW: reply(member("unsubscribed"))}) == DONE


async def test_another_audience_than_asked_for_is_unclear() -> None:
    other = {rf"GET /3\.0/lists/{FIRST}\?fields=id": reply({"id": SECOND})}
    assert await told(other) == Settlement(Outcome.UNKNOWN, "other_audience")


ROW = {"id": "h-1", "email_address": "a@example.com", "status": "unsubscribed", "last_changed": "2026-11-20T09:15:30+00:00"}
LISTING = rf"GET /3\.0/lists/{FIRST}/members\?.*"


async def pulled(answer: Reply) -> list[Listed]:
    async with scripted(MAILCHIMP, CASE.credential, {**HERE, LISTING: answer}) as one:
        return await one.pulled(FIRST)


async def test_an_entry_has_the_latest_time_at_which_it_can_have_stopped() -> None:
    undated = {**ROW, "id": "h-2", "email_address": "b@example.com", "last_changed": "yesterday"}
    assert await pulled(reply({"members": [ROW, undated], "total_items": 2})) == [
        Listed("a@example.com", FIRST, datetime(2026, 11, 20, 9, 15, 30, tzinfo=UTC)),
        Listed("b@example.com", FIRST, None),
    ]


BROKEN: dict[str, Reply] = {
    "no total": reply({"members": [ROW]}),
    "fewer than it says": reply({"members": [ROW], "total_items": 2}),
    "no members": reply({"total_items": 0}),
    "members that are none": reply({"members": ["a@example.com"], "total_items": 1}),
    "others as well": reply({"members": [ROW, {**ROW, "id": "h-2", "status": "subscribed"}], "total_items": 2}),
    "no address": reply({"members": [{**ROW, "email_address": ""}], "total_items": 1}),
    "no hash": reply({"members": [{**ROW, "id": None}], "total_items": 1}),
    "nobody there": GONE,
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_a_listing_that_is_not_whole_is_no_listing(answer: Reply) -> None:
    with pytest.raises(Unclear):
        await pulled(answer)
