"""Customer.io's own ways when it is told and asked: several people with one address, people who left everything, late changes, regions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from mailprefs.errors import Misconfigured
from mailprefs.providers.base import Listed, Outcome, Settlement, Unclear, Unlisted
from mailprefs.providers.customerio import CustomerIo
from mailprefs.providers.customerio_people import Lines
from mailprefs.sandbox.app import create_app

from .case_customerio import CASE
from .scripted import GONE, Script, reply, scripted
from .teller_customerio import FIRST, ON, SECOND, TELLER
from .tellers import DONE, PATIENT, Box

CUSTOMERIO = CustomerIo()
ADDRESS = "a@example.com"
LEFT, UNCONFIRMED = Settlement(Outcome.REFUSED, "left_there"), Settlement(Outcome.UNKNOWN, "not_confirmed")
AT = 1_763_628_000  # 2025-11-20 08:40 in UTC


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    async with TestServer(create_app(["customerio"])) as server, ClientSession(timeout=PATIENT) as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, TELLER)


def state(topics: dict[str, bool] | None = None, **people: Mapping[str, object]) -> Any:
    known = {f"{name}@example.com": {"topics": {}, "at": AT, **held} for name, held in people.items()}
    return {"topics": topics or ON, "people": known, "suppressed": []}


async def topics(box: Box) -> dict[str, object]:
    return {address.partition("@")[0]: held["topics"] for address, held in (await box.state())["people"].items()}


async def writes(box: Box) -> list[Any]:
    return [json.loads(each["body"]) for each in await box.requests() if each["path"].startswith("/api/")]


# Who is told


async def test_the_other_topics_and_everything_else_stay_as_they_are(box: Box) -> None:
    await box.put(state(a={"topics": {SECOND: False}, "unsubscribed": False}))
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert await topics(box) == {"a": {SECOND: False, FIRST: False}}
    assert await box.tell(False, [ADDRESS]) == [DONE]
    assert await topics(box) == {"a": {SECOND: False, FIRST: True}}
    assert not [each for each in await writes(box) if "unsubscribed" in str(each)]


async def test_a_go_makes_nobody_and_turns_on_for_nobody_who_never_turned_off(box: Box) -> None:
    await box.put(state(a={}))
    assert await box.tell(False, [ADDRESS, "unknown@example.com"]) == [DONE, DONE]
    assert await topics(box) == {"a": {}}
    assert await writes(box) == []


async def test_who_left_everything_there_is_taken_back_by_no_go(box: Box) -> None:
    await box.put(state(a={"topics": {FIRST: False}, "unsubscribed": True}))
    before = await box.state()
    assert await box.tell(False, [ADDRESS]) == [LEFT]
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert await box.state() == before


async def test_an_address_that_begins_like_an_id_is_no_id(box: Box) -> None:
    assert await box.tell(True, ["cio_a3000001@example.com"]) == [DONE]
    assert [each["identifiers"] for each in await writes(box)] == [{"email": "cio_a3000001@example.com"}]
    assert await box.holds() == ["cio_a3000001@example.com"]


def named(*ids: str, address: str | None = ADDRESS) -> Any:
    return reply({"results": [{"cio_id": each, "email": address, "id": None} for each in ids]})


def person(id_: str, preferences: object = None, *, address: str | None = ADDRESS, **more: object) -> dict[str, object]:
    chosen = {} if preferences is None else {"cio_subscription_preferences": preferences}
    return {"attributes": {"cio_id": id_, "email": address, **chosen}, "unsubscribed": False, "timestamps": {}, **more}


def shown(told: dict[str, object]) -> Any:
    return reply({"customer": told})


OFF, TURNED_ON = f'{{"topics":{{"{FIRST}":false}}}}', f'{{"topics":{{"{FIRST}":true}}}}'
TOPICS = {r"GET /v1/subscription_topics": reply({"topics": [{"identifier": FIRST, "subscribed_by_default": True}]})}
FIND, WRITE = r"GET /v1/customers\?email=.*", r"POST /api/v2/entity"
TAKEN = {WRITE: reply({})}


def attributes(id_: str) -> str:
    return rf"GET /v1/customers/{id_}/attributes\?id_type=cio_id"


async def test_everyone_with_the_address_is_told() -> None:
    script: Script = {
        **TOPICS,
        **TAKEN,
        FIND: named("a1", "a2", "a3"),
        attributes("a1"): [shown(person("a1")), shown(person("a1", OFF))],
        attributes("a2"): shown(person("a2", OFF)),
        attributes("a3"): [shown(person("a3", TURNED_ON)), shown(person("a3", OFF))],
    }
    async with scripted(CUSTOMERIO, CASE.credential, script) as one:
        assert await one.tell(FIRST, ADDRESS) == [DONE]
        assert len(one.writes) == 2


async def test_a_change_that_was_answered_but_is_not_there_is_not_done_until_it_is() -> None:
    late: Script = {**TOPICS, **TAKEN, FIND: named("a1"), attributes("a1"): [*[shown(person("a1"))] * 2, shown(person("a1", OFF))]}
    async with scripted(CUSTOMERIO, CASE.credential, late) as one:
        assert await one.tell(FIRST, ADDRESS) == [UNCONFIRMED]
        assert await one.tell(FIRST, ADDRESS) == [DONE]
        assert len(one.writes) == 1  # the second time it was there


@pytest.mark.parametrize(
    ("preferences", "off"),
    [
        (OFF, True),
        (f'{{"topics":{{"{FIRST}":"false"}}}}', True),
        ({"topics": {FIRST: False}}, True),
        (TURNED_ON, False),
        (f'{{"topics":{{"{FIRST}":""}}}}', False),
        (f'{{"topics":{{"{SECOND}":false}}}}', False),
        ("{}", False),
        ("", False),
        (None, False),
    ],
)
async def test_what_was_chosen_is_read_however_it_is_written(preferences: object, off: bool) -> None:
    script: Script = {**TOPICS, **TAKEN, FIND: named("a1"), attributes("a1"): shown(person("a1", preferences))}
    async with scripted(CUSTOMERIO, CASE.credential, script) as one:
        assert await one.tell(FIRST, ADDRESS) == [DONE if off else UNCONFIRMED]


@pytest.mark.parametrize(
    "strange",
    [
        {attributes("a1"): shown(person("a1", "{"))},
        {attributes("a1"): shown(person("a1", "[]"))},
        {attributes("a1"): shown(person("a1", '{"topics":[]}'))},
        {attributes("a1"): shown(person("a1", f'{{"topics":{{"{FIRST}":"perhaps"}}}}'))},
        {attributes("a1"): shown(person("b1", OFF))},
        {attributes("a1"): shown(person("a1", OFF, address="b@example.com"))},
        {attributes("a1"): reply({"customer": None})},
        {attributes("a1"): GONE},
        {FIND: named("")},
        {FIND: reply({})},
    ],
    ids=["half", "no object", "no topics", "perhaps", "another id", "another address", "nobody", "gone", "no id", "no results"],
)
@pytest.mark.parametrize("stop", [True, False])
async def test_what_is_not_shown_as_documented_leaves_it_unknown(strange: Script, stop: bool) -> None:
    sound: Script = {**TOPICS, **TAKEN, FIND: named("a1"), attributes("a1"): shown(person("a1", OFF))}
    async with scripted(CUSTOMERIO, CASE.credential, {**sound, **strange}) as one:
        assert (await one.tell(FIRST, ADDRESS, stop=stop))[0].outcome is Outcome.UNKNOWN
        assert one.writes == []


async def test_who_is_refused_is_refused_alone() -> None:
    script: Script = {**TOPICS, FIND: named(), WRITE: [reply({"errors": []}, 400), reply({})]}
    async with scripted(CUSTOMERIO, CASE.credential, script) as one:
        assert await one.tell(FIRST, ADDRESS, "b@example.com") == [Settlement(Outcome.REFUSED, "http_400"), UNCONFIRMED]


# What is listed


async def test_the_list_has_who_left_everything_and_the_latest_time_it_can_have_been(box: Box) -> None:
    off, none = {"topics": {FIRST: False}}, {"topics": {FIRST: True}}
    await box.put(state(a=off, b=none, c={"unsubscribed": True}, d={"topics": {SECOND: False}}, e={}))
    when = datetime.fromtimestamp(AT, UTC)
    assert await box.pulled() == [Listed(ADDRESS, FIRST, when), Listed("c@example.com", FIRST, when)]


async def test_a_topic_that_is_off_by_default_is_not_listed_but_told(box: Box) -> None:
    await box.put(state({FIRST: False, SECOND: True}, a={"topics": {FIRST: True}}))
    with pytest.raises(Unlisted, match="off by default"):
        await box.pulled()
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert await box.holds() == [ADDRESS]


SEARCH, SHOW = r"POST /v1/customers\?limit=100(&start=.*)?", r"POST /v1/customers/attributes\?id_type=cio_id"


def listed(*ids: str, following: object = "") -> Any:
    return reply({"identifiers": [{"cio_id": each} for each in ids], "ids": [], "next": following})


async def test_who_has_no_address_is_listed_nowhere() -> None:
    people = [person("a1", OFF), person("a2", OFF, address=None)]
    async with scripted(CUSTOMERIO, CASE.credential, {**TOPICS, SEARCH: listed("a1", "a2"), SHOW: reply({"customers": people})}) as one:
        assert await one.pulled(FIRST) == [Listed(ADDRESS, FIRST)]


@pytest.mark.parametrize(
    "strange",
    [
        {SEARCH: listed("a1", following="again")},
        {SEARCH: listed("a1", following=7)},
        {SEARCH: reply({"identifiers": None})},
        {SEARCH: listed("a1", "a2")},
        {SHOW: reply({"customers": []})},
        {SHOW: reply({"customers": [{}]})},
        {SHOW: reply({})},
    ],
    ids=["a page for ever", "no token", "no people", "one more", "one less", "no attributes", "nothing"],
)
async def test_a_listing_that_is_not_whole_is_unclear(strange: Script) -> None:
    sound: Script = {**TOPICS, SEARCH: listed("a1"), SHOW: reply({"customers": [person("a1", OFF)]})}
    async with scripted(CUSTOMERIO, CASE.credential, {**sound, **strange}) as one:
        with pytest.raises(Unclear):
            await one.pulled(FIRST)
    async with scripted(CUSTOMERIO, CASE.credential, sound) as one:  # the control
        assert len(await one.pulled(FIRST)) == 1


# Where it is, and what refuses to start


@pytest.mark.parametrize(
    ("region", "api_base", "ending"),
    [
        (None, None, ""),
        ("us", None, ""),
        ("eu", None, "-eu"),
        (None, "https://track-eu.customer.io", "-eu"),
        ("eu", "https://api.customer.io", ""),
    ],
)
async def test_a_workspace_is_asked_and_changed_where_it_lives(region: str | None, api_base: str | None, ending: str) -> None:
    account = replace(CASE.credential, options={**CASE.credential.options, "region": region}, api_base=api_base)
    async with ClientSession() as http:
        lines = Lines.of(http, account, CUSTOMERIO.pause)
    assert (lines.track.base, lines.app.base) == (f"https://track{ending}.customer.io", f"https://api{ending}.customer.io")


@pytest.mark.parametrize("name", ["site_id", "api_key", "app_key"])
def test_an_account_that_is_told_needs_every_key(name: str) -> None:
    for wrong in ({}, {name: "short"}):
        secrets = {key: value for key, value in CASE.credential.secrets.items() if key != name} | wrong
        with pytest.raises(Misconfigured, match=name):
            CUSTOMERIO.check(replace(CASE.credential, secrets=secrets))
    heard = {"webhook_key": CASE.credential.secrets["webhook_key"]}
    CUSTOMERIO.check(replace(CASE.credential, secrets=heard, options={}))  # the control: heard alone it needs none


def test_another_region_refuses_to_start() -> None:
    with pytest.raises(Misconfigured, match="region"):
        CUSTOMERIO.check(replace(CASE.credential, options={**CASE.credential.options, "region": "mars"}))
