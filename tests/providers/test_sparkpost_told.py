"""SparkPost's own ways when it is told and asked: two types, entries by List-Id, and who put them there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from mailprefs.errors import Misconfigured
from mailprefs.providers.base import Listed, Outcome, Rejected, Settlement, Unclear, Unsafe
from mailprefs.providers.sparkpost import SparkPost
from mailprefs.providers.sparkpost_lists import EVERYTHING
from mailprefs.sandbox.app import create_app
from mailprefs.sandbox.sparkpost import entry
from mailprefs.words import Kind

from .case_sparkpost import CASE
from .scripted import GONE, Reply, Script, reply, scripted
from .teller_sparkpost import FIRST, TELLER
from .tellers import DONE, PATIENT, Box

ADDRESS, OTHER_LIST = "a@example.com", "offers.example.com"
UNCONFIRMED = Settlement(Outcome.UNKNOWN, "not_confirmed")
SPARKPOST = SparkPost()


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    async with TestServer(create_app(["sparkpost"])) as server, ClientSession(timeout=PATIENT) as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, TELLER)


async def writes(box: Box) -> list[str]:
    return [each["method"] for each in await box.requests() if each["method"] != "GET"]


SOURCES = {
    "Manually Added": DONE,
    "Bounce Rule": DONE,
    "Spam Complaint": Settlement(Outcome.REFUSED, "complaint"),
    "List Unsubscribe": Settlement(Outcome.REFUSED, "left_there"),
    "Unsubscribe Link": Settlement(Outcome.REFUSED, "left_there"),
    "Compliance": Settlement(Outcome.REFUSED, "compliance"),
    "Odd": Settlement(Outcome.REFUSED, "other_reason"),
}


@pytest.mark.parametrize("group", TELLER.groups)
async def test_a_go_takes_away_what_is_ours_and_nothing_else(box: Box, group: str) -> None:
    list_ = "" if group == EVERYTHING else group
    people = {f"p{n}@example.com": source for n, source in enumerate(SOURCES)}
    await box.put({"entries": [entry(address, list_id=list_, source=source) for address, source in people.items()]})
    assert await box.tell(False, people, group) == list(SOURCES.values())
    assert await box.holds(group) == [address for address, source in people.items() if source != "Manually Added"]


async def test_a_go_leaves_the_other_type_and_the_other_lists_alone(box: Box) -> None:
    theirs = [
        entry(ADDRESS, "transactional", source="Bounce Rule"),
        entry(ADDRESS, "transactional", FIRST),
        entry(ADDRESS, list_id=OTHER_LIST),
        entry(ADDRESS, source="Spam Complaint"),
        entry(ADDRESS, list_id=FIRST, subaccount_id="7"),
    ]
    await box.put({"entries": [*theirs, entry(ADDRESS, list_id=FIRST)]})
    assert await box.tell(False, [ADDRESS]) == [DONE]
    assert (await box.state())["entries"] == theirs


async def test_the_simulated_provider_takes_everything_where_it_is_not_told_what(box: Box) -> None:
    """The control: it does what its documentation says."""
    types, lists = ("transactional", EVERYTHING), ("", FIRST)
    person, key = f"{box.credential.api_base}/api/v1/suppression-list/a%40example.com", {"Authorization": "key"}
    for query, body, left in (("", {}, 0), ("?list_id=", {}, 2), (f"?list_id={FIRST}", {"type": EVERYTHING}, 3)):
        await box.put({"entries": [entry(ADDRESS, type_, list_) for type_, list_ in product(types, lists)]})
        async with box.http.delete(person + query, json=body, headers=key) as answer:
            assert answer.status == 204
        assert len((await box.state())["entries"]) == left


async def test_who_stands_there_is_stopped_already_and_stays_as_they_are(box: Box) -> None:
    before = [entry(f"p{n}@example.com", list_id=FIRST, source=source) for n, source in enumerate(SOURCES)]
    await box.put({"entries": before})
    assert await box.tell(True, [each["recipient"] for each in before]) == [DONE] * len(before)
    assert (await box.state())["entries"] == before
    assert await writes(box) == []


async def test_beside_an_entry_of_sparkposts_own_people_nothing_is_written(box: Box) -> None:
    before = [entry(ADDRESS, source="Compliance")]
    await box.put({"entries": before})
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert (await box.state())["entries"] == before
    await box.put({"entries": [entry(ADDRESS, source="Spam Complaint")]})  # the control: of any other, the list has its own
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert await box.holds(FIRST) == [ADDRESS]


async def test_the_type_is_in_every_request_that_writes(box: Box) -> None:
    for group, stop in product(TELLER.groups, (True, False)):
        await box.tell(stop, TELLER.addresses, group)
    bodies = [json.loads(each["body"]) for each in await box.requests() if each["method"] != "GET"]
    told = [each for body in bodies for each in body.get("recipients", [body])]
    assert len(told) == 4 * len(TELLER.addresses)
    assert {each["type"] for each in told} == {"non_transactional"}


async def test_a_subaccount_is_told_and_asked_alone(box: Box) -> None:
    await box.put({"entries": [entry(ADDRESS, list_id=FIRST), entry("b@example.com", list_id=FIRST, subaccount_id="8")]})
    seven = replace(box, credential=replace(box.credential, options={**box.credential.options, "subaccount": "7"}))
    assert await seven.tell(True, [ADDRESS]) == [DONE]
    assert [each["subaccount_id"] for each in (await box.state())["entries"]] == ["0", "8", "7"]
    assert [listed.address for listed in await seven.pulled()] == [ADDRESS]
    assert await seven.tell(False, [ADDRESS]) == [DONE]
    assert [each["subaccount_id"] for each in (await box.state())["entries"]] == ["0", "8"]


def test_a_subaccount_is_a_number() -> None:
    options = {**CASE.credential.options, "subaccount": "7"}
    SPARKPOST.check(replace(CASE.credential, options=options))
    for strange in ("0", "seven", "7,8", "-1", " "):
        with pytest.raises(Misconfigured, match="subaccount"):
            SPARKPOST.check(replace(CASE.credential, options=options | {"subaccount": strange}))


def test_an_account_that_is_only_heard_needs_no_key() -> None:
    secrets = {name: value for name, value in CASE.credential.secrets.items() if name != "api_key"}
    SPARKPOST.check(replace(CASE.credential, secrets=secrets, options={}))
    with pytest.raises(Misconfigured, match="api_key"):
        SPARKPOST.check(replace(CASE.credential, secrets=secrets))


async def test_the_list_says_when_and_why(box: Box) -> None:
    at = {"created": "2026-11-20T12:00:00+00:00"}
    await box.put({"entries": [entry(f"p{n}@example.com", list_id=FIRST, source=source) | at for n, source in enumerate(SOURCES)]})
    kinds = {"Bounce Rule": Kind.BOUNCED_HARD, "Spam Complaint": Kind.COMPLAINED}
    when = datetime(2026, 11, 20, 12, tzinfo=UTC)
    expected = [Listed(f"p{n}@example.com", FIRST, when, kinds.get(source, Kind.UNSUBSCRIBED)) for n, source in enumerate(SOURCES)]
    assert await box.pulled() == expected


# What it may say

PERSON = r"/api/v1/suppression-list/a%40example.com"
LOOK = rf"GET {PERSON}\?types=non_transactional&per_page=1000"
HERE = {"recipient": ADDRESS, "type": EVERYTHING, "list_id": FIRST, "source": "Manually Added", "created": "2026-11-20T12:00:00+00:00"}
BULK, REMOVE = "PUT /api/v1/suppression-list/", rf"DELETE {PERSON}\?list_id={FIRST}"


def page(*entries: object, total: int | None = None, **more: object) -> Reply:
    return reply({"results": entries, "total_count": len(entries) if total is None else total, **more})


async def told(script: Script, stop: bool = True) -> Settlement:
    async with scripted(SPARKPOST, CASE.credential, script) as one:
        [settled] = await one.tell(FIRST, ADDRESS, stop=stop)
        assert "@" not in settled.detail
        return settled


@pytest.mark.parametrize("results", [{"message": "Suppression List successfully updated"}, "Suppression List successfully updated"])
async def test_what_counts_is_what_it_shows_afterwards(results: object) -> None:
    written = reply({"results": results})
    assert await told({LOOK: [GONE, page(HERE)], BULK: written}) == DONE
    strangers = [{**HERE, "list_id": OTHER_LIST}, {**HERE, "type": "transactional"}, {**HERE, "subaccount_id": "7"}]
    for shown in (GONE, page(), page({**HERE, "list_id": None}), *map(page, strangers)):
        assert await told({LOOK: [GONE, shown], BULK: written}) == UNCONFIRMED


async def test_it_may_write_a_list_and_an_address_in_any_case() -> None:
    assert await told({LOOK: page({**HERE, "list_id": FIRST.upper(), "recipient": ADDRESS.upper()})}) == DONE


STRANGE = {
    "nothing": reply({}),
    "no entries": reply({"results": "none"}),
    "an entry that is none": page(ADDRESS),
    "an entry of nobody": page({"type": EVERYTHING}),
    "an entry of somebody else": page({**HERE, "recipient": "b@example.com"}),
    "more than it shows": page(HERE, total=2),
    "trouble": reply({}, 500),
}


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("shown", STRANGE.values(), ids=STRANGE)
async def test_what_it_shows_of_an_address_must_be_whole(shown: Reply, stop: bool) -> None:
    async with scripted(SPARKPOST, CASE.credential, {LOOK: shown}) as one:
        [settled] = await one.tell(FIRST, ADDRESS, stop=stop)
        assert settled.outcome is Outcome.UNKNOWN
        assert one.writes == []


async def test_a_request_that_names_malformed_recipients_is_halved() -> None:
    with pytest.raises(Rejected):
        await told({LOOK: GONE, BULK: reply({"errors": [{"message": "PUT body contains 1 invalid or malformed recipient(s)"}]}, 400)})


async def test_who_is_gone_when_they_are_let_go_is_let_go_and_who_is_not_is_asked_again() -> None:
    assert await told({LOOK: [page(HERE), GONE], REMOVE: GONE}, stop=False) == DONE
    assert await told({LOOK: page(HERE), REMOVE: GONE}, stop=False) == UNCONFIRMED
    assert await told({LOOK: page(HERE), REMOVE: Reply(b"", 204)}, stop=False) == UNCONFIRMED
    assert await told({LOOK: page(HERE), REMOVE: reply({}, 400)}, stop=False) == Settlement(Outcome.REFUSED, "http_400")


SEARCH = rf"GET /api/v1/suppression-list\?types=non_transactional&list_id={FIRST}&cursor="


def person(n: int) -> dict[str, str]:
    return HERE | {"recipient": f"p{n}@example.com"}


async def pulled(script: Script) -> list[str]:
    async with scripted(SPARKPOST, CASE.credential, script) as one:
        return [listed.address for listed in await one.pulled(FIRST)]


LINKS = {
    "a list of links": [{"href": "/api/v1/suppression-list?cursor=Wy%3D%26x&per_page=1000", "rel": "next"}, {"href": "/x", "rel": "first"}],
    "links by name": {"next": "https://elsewhere.example.net/?cursor=Wy%3D%26x"},
}


@pytest.mark.parametrize("links", LINKS.values(), ids=LINKS)
async def test_of_a_next_page_the_cursor_alone_is_believed(links: object) -> None:
    script = {
        f"{SEARCH}initial&per_page=1000": page(person(1), total=2, links=links),
        rf"{SEARCH}Wy%3D%26x&per_page=1000": page(person(2), total=2, links=[]),
    }
    assert await pulled(script) == ["p1@example.com", "p2@example.com"]


async def test_entries_of_another_list_type_or_subaccount_are_not_listed_even_if_they_are_shown() -> None:
    strangers = ({"list_id": OTHER_LIST}, {"list_id": None}, {"type": "transactional"}, {"subaccount_id": "7"})
    shown = [person(1), *(person(2) | strange for strange in strangers)]
    assert await pulled({f"{SEARCH}initial&per_page=1000": page(*shown)}) == ["p1@example.com"]


async def test_who_leaves_while_it_is_listed_makes_the_listing_no_less_whole() -> None:
    more = {"links": [{"href": "?cursor=x", "rel": "next"}]}
    shrinking = {f"{SEARCH}initial&per_page=1000": page(person(1), person(2), total=4, **more), rf"{SEARCH}x.*": page(person(3), total=3)}
    assert len(await pulled(shrinking)) == 3
    with pytest.raises(Unclear) as unclear:  # the control
        await pulled(shrinking | {rf"{SEARCH}x.*": page(person(3), total=4)})
    assert unclear.value.detail == "cut_short"


BROKEN: dict[str, Reply] = {
    "no total": reply({"results": [HERE]}),
    "a total of words": reply({"results": [HERE], "total_count": "1"}),
    "fewer than it says": page(HERE, total=2),
    "no entries": reply({"total_count": 0}),
    "an entry of nobody": page({"type": EVERYTHING}),
    "a page behind without a cursor": page(HERE, total=2, links=[{"href": "/api/v1/suppression-list", "rel": "next"}]),
    "a page behind that is none": page(HERE, total=2, links=[{"href": 7, "rel": "next"}]),
    "the same page again": page(HERE, total=2, links=[{"href": "?cursor=initial", "rel": "next"}]),
    "an empty page that goes on": page(total=1, links=[{"href": "?cursor=x", "rel": "next"}]),
    "nobody there": GONE,
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_a_listing_that_is_not_whole_is_no_listing(answer: Reply) -> None:
    with pytest.raises(Unclear):
        await pulled({f"{SEARCH}.*": answer})


async def test_what_is_no_list_for_marketing_is_not_asked_for() -> None:
    async with scripted(SPARKPOST, CASE.credential, {}) as one:
        with pytest.raises(Unsafe, match="no list for marketing"):
            await one.pulled("transactional")
        assert one.asked == []
