"""Klaviyo's own ways when it is told and asked: jobs that run later, reasons that are not ours, and a list that must not be told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from mailprefs.errors import Misconfigured
from mailprefs.providers.base import Listed, Outcome, Rejected, Settlement, Slow, Telling, Unclear
from mailprefs.providers.klaviyo import SUPPRESSED, Klaviyo
from mailprefs.sandbox.app import create_app
from mailprefs.words import Kind

from .case_klaviyo import CASE, body_of
from .cases import unsigned
from .scripted import GONE, Reply, Script, reply, scripted
from .teller_klaviyo import SINCE, TELLER
from .tellers import DONE, PATIENT, Box

KLAVIYO = Klaviyo()
LEFT = Settlement(Outcome.REFUSED, "left_there")
UNCONFIRMED, CUT_SHORT = Settlement(Outcome.UNKNOWN, "not_confirmed"), Settlement(Outcome.UNKNOWN, "cut_short")
OURS, THEIRS, SPAM, BOUNCE = "USER_SUPPRESSED", "UNSUBSCRIBE", "SPAM_COMPLAINT", "HARD_BOUNCE"
HEADERS = {"Authorization": "Klaviyo-API-Key pk_sandbox", "revision": "2026-07-15", "Content-Type": "application/vnd.api+json"}


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    async with TestServer(create_app(["klaviyo"])) as server, ClientSession(timeout=PATIENT) as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, TELLER)


def profiles(**reasons: list[str]) -> Any:
    """Return the state of a sandbox with these profiles, by the name before the @: why each is suppressed."""
    return {"profiles": {f"{name}@example.com": {"suppression": dict.fromkeys(why, SINCE)} for name, why in reasons.items()}}


async def reasons(box: Box) -> dict[str, list[str]]:
    held = (await box.state())["profiles"]
    return {address.partition("@")[0]: sorted(profile["suppression"]) for address, profile in held.items()}


async def unsubscribe(box: Box, audience: str, address: str) -> None:
    """Unsubscribe from a list, as Klaviyo documents it and we never do."""
    profile = {"type": "profile", "attributes": {"email": address, "subscriptions": {"email": {"marketing": {"consent": "UNSUBSCRIBED"}}}}}
    job = {"type": "profile-subscription-bulk-delete-job", "attributes": {"profiles": {"data": [profile]}}}
    told = {"data": {**job, "relationships": {"list": {"data": {"type": "list", "id": audience}}}}}
    path = f"{box.root}/klaviyo/api/profile-subscription-bulk-delete-jobs"
    async with box.http.post(path, data=json.dumps(told), headers=HEADERS) as answer:
        assert answer.status == 202


async def test_a_list_is_never_told_because_that_may_stop_everything_for_good(box: Box) -> None:
    await box.put({"profiles": {"in@example.com": {"suppression": {}, "lists": ["Y6nRLr"]}, "out@example.com": {"suppression": {}}}})
    await unsubscribe(box, "Y6nRLr", "in@example.com")
    assert await reasons(box) == {"in": [], "out": []}
    await unsubscribe(box, "Y6nRLr", "out@example.com")  # the trap: who is not in it is unsubscribed from everything,
    assert await reasons(box) == {"in": [], "out": [THEIRS]}
    assert await box.tell(False, ["out@example.com"]) == [LEFT]  # and nothing takes that back
    with pytest.raises(Misconfigured, match="unsubscribed from everything"):
        KLAVIYO.check(replace(CASE.credential, options={"scopes": {"marketing": "Y6nRLr"}, "list_id": "Y6nRLr"}))


async def test_a_go_takes_back_what_is_ours_and_nothing_else(box: Box) -> None:
    await box.put(profiles(a=[OURS], b=[OURS, THEIRS], c=[OURS, SPAM], d=[THEIRS], e=[OURS, BOUNCE], f=[BOUNCE], g=[]))
    people = [f"{name}@example.com" for name in "abcdefgh"]
    assert await box.tell(False, people) == [DONE, LEFT, LEFT, LEFT, DONE, DONE, DONE, DONE]
    assert await reasons(box) == {"a": [], "b": [THEIRS], "c": [SPAM], "d": [THEIRS], "e": [BOUNCE], "f": [BOUNCE], "g": []}
    [job] = [json.loads(each["body"]) for each in await box.requests() if each["method"] == "POST"]
    told = [each["attributes"]["email"] for each in job["data"]["attributes"]["profiles"]["data"]]
    assert told == [f"{name}@example.com" for name in "abce"]


async def test_a_go_for_nobody_asks_and_writes_nothing(box: Box) -> None:
    assert await box.tell(False, ["nobody@example.com"]) == [DONE]
    assert {each["method"] for each in await box.requests()} == {"GET"}
    assert (await box.state())["profiles"] == {}


async def test_a_stop_is_a_suppression_of_ours_whatever_else_holds(box: Box) -> None:
    await box.put(profiles(a=[], b=[THEIRS], c=[BOUNCE]))
    assert await box.tell(True, ["a@example.com", "b@example.com", "c@example.com", "new@example.com"]) == [DONE] * 4
    assert await reasons(box) == {"a": [OURS], "b": [THEIRS, OURS], "c": [BOUNCE, OURS], "new": [OURS]}


async def test_many_are_asked_for_in_short_questions(box: Box) -> None:
    many = [f"person{n}@example.com" for n in range(60)]
    assert await box.tell_all(True, many) == [DONE] * 60
    assert sorted(await box.holds()) == sorted(many)
    assert await box.undocumented() == []
    assert max(len(each["path"]) for each in await box.requests()) < 2_000


async def test_an_address_with_quotes_stays_one(box: Box) -> None:
    odd = ['"a"@example.com', 'a"],["b@example.com', "back\\slash@example.com", "comma,@example.com"]
    assert await box.tell(True, odd) == [DONE] * 4
    assert sorted(await box.holds()) == sorted(odd)
    assert await box.tell(False, odd) == [DONE] * 4


async def test_every_request_names_its_revision_and_its_type(box: Box) -> None:
    await box.tell(True, ["a@example.com"])
    for each in await box.requests():
        sent = dict(each["headers"])
        assert (sent["revision"], sent["Accept"]) == ("2026-07-15", "application/vnd.api+json")
        assert each["method"] == "GET" or sent["Content-Type"] == "application/vnd.api+json"


# What it may say

POST = "POST /api/profile-suppression-bulk-create-jobs"
BACK = "POST /api/profile-suppression-bulk-delete-jobs"
TAKEN = reply({"data": {"type": "profile-suppression-bulk-create-job", "id": "j-1"}}, 202, "application/vnd.api+json")
ASK, LIST = r"GET /api/profiles\?.*any%28.*", r"GET /api/profiles\?.*equals%28.*{}.*"


def profile(*why: str, address: object = "a@example.com") -> dict[str, Any]:
    suppression = [{"reason": reason, "timestamp": SINCE} for reason in why]
    marketing = {"can_receive_email_marketing": not why, "consent": "SUBSCRIBED", "suppression": suppression}
    return {"type": "profile", "id": "01", "attributes": {"email": address, "subscriptions": {"email": {"marketing": marketing}}}}


def page(*found: object, following: object = None) -> Reply:
    return reply({"data": list(found), "links": {"self": "", "next": following}}, type="application/vnd.api+json")


async def told(script: Script, stop: bool = True) -> Settlement:
    async with scripted(KLAVIYO, CASE.credential, script) as one:
        [settled] = await one.tell(SUPPRESSED, "a@example.com", stop=stop)
        assert "@" not in settled.detail
        return settled


async def test_a_job_that_was_taken_is_not_done_before_it_shows() -> None:
    assert await told({POST: TAKEN, ASK: [page(), page(profile()), page(profile(OURS))]}) == DONE
    assert await told({POST: TAKEN, ASK: page(profile())}) == UNCONFIRMED
    assert await told({BACK: TAKEN, ASK: [page(profile(OURS)), page(profile(OURS)), page(profile())]}, stop=False) == DONE
    assert await told({BACK: TAKEN, ASK: page(profile(OURS))}, stop=False) == UNCONFIRMED


async def test_who_chose_to_leave_there_is_stopped_and_a_bounce_is_no_choice() -> None:
    for reason in (OURS, THEIRS, SPAM):
        assert await told({POST: TAKEN, ASK: page(profile(reason))}) == DONE
    for reason in (BOUNCE, "INVALID_EMAIL", "SOMETHING_NEW"):
        assert await told({POST: TAKEN, ASK: page(profile(reason))}) == UNCONFIRMED


@pytest.mark.parametrize("status", [429, 401, 403])
async def test_a_job_that_may_still_run_is_told_of_before_a_wait(status: int) -> None:
    refusal = Reply(status=status, headers={"Retry-After": "60"})
    assert await told({POST: TAKEN, ASK: refusal}) == CUT_SHORT
    assert await told({BACK: TAKEN, ASK: [page(profile(OURS)), refusal]}, stop=False) == CUT_SHORT
    if status == 429:
        with pytest.raises(Slow):  # the control: nothing is in the air
            await told({ASK: refusal}, stop=False)


@pytest.mark.parametrize("taken", [reply({}, 202), reply({"data": {"id": ""}}, 202), reply({"data": {"id": "j-1"}}, 200), Reply(b"", 202)])
async def test_a_job_without_a_name_is_not_taken(taken: Reply) -> None:
    settled = await told({POST: taken, ASK: page(profile(OURS))})
    assert settled.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_job_that_is_refused_is_halved(status: int) -> None:
    for stop in (True, False):
        with pytest.raises(Rejected):
            await told({POST: reply({}, status), BACK: reply({}, status), ASK: page(profile(OURS))}, stop=stop)


@pytest.mark.parametrize(
    "shown",
    [
        page(profile(address="b@example.com")),
        page({"attributes": {"email": "a@example.com"}}),
        page({"attributes": {"email": "a@example.com", "subscriptions": {"email": {"marketing": {"suppression": {}}}}}}),
        page({"attributes": {"email": "a@example.com", "subscriptions": {"email": {"marketing": {"suppression": [{}]}}}}}),
        page("a@example.com"),
        reply({"data": [profile(OURS)]}),
        reply({"data": {}, "links": {}}),
        reply([]),
        GONE,
    ],
)
async def test_a_profile_that_does_not_say_is_unclear(shown: Reply) -> None:
    for stop in (True, False):
        settled = await told({POST: TAKEN, BACK: TAKEN, ASK: shown}, stop=stop)
        assert settled.outcome is Outcome.UNKNOWN


async def test_who_was_never_asked_is_not_suppressed() -> None:
    unasked = {"attributes": {"email": "a@example.com", "subscriptions": {"email": None, "sms": None}}}
    assert await told({ASK: page(unasked)}, stop=False) == DONE
    assert await told({POST: TAKEN, ASK: page(unasked)}) == UNCONFIRMED


async def pulled(script: Script) -> list[Listed]:
    nobody: Script = {LIST.format(reason): page() for reason in (OURS, THEIRS, SPAM)}
    async with scripted(KLAVIYO, CASE.credential, {**nobody, **script}) as one:
        return await one.pulled(SUPPRESSED)


async def test_everyone_is_listed_once_with_the_reason_and_its_time() -> None:
    at = datetime(2026, 11, 20, 9, 15, 30, tzinfo=UTC)
    both, phone = profile(OURS, THEIRS), profile(OURS, address=None)
    found = await pulled(
        {
            LIST.format(OURS): page(both, phone),
            LIST.format(THEIRS): page(both, profile(THEIRS, SPAM, address="b@example.com")),
            LIST.format(SPAM): page(profile(SPAM, THEIRS, address="b@example.com"), profile(SPAM, address="c@example.com")),
        }
    )
    assert found == [
        Listed("a@example.com", SUPPRESSED, at),
        Listed("b@example.com", SUPPRESSED, at),
        Listed("c@example.com", SUPPRESSED, at, Kind.COMPLAINED),
    ]


async def test_only_the_cursor_of_the_next_page_is_believed() -> None:
    elsewhere = "https://evil.example.net/api/profiles?page%5Bcursor%5D=a%26b&filter=none"
    following = {LIST.format(OURS) + "cursor%5D=a%26b": page(profile(OURS, address="b@example.com"))}
    async with scripted(KLAVIYO, CASE.credential, {**following, LIST.format(OURS): page(profile(OURS), following=elsewhere)}) as one:
        with pytest.raises(Unclear):
            await one.pulled(SUPPRESSED)  # for want of the other reasons
        assert len(one.asked) == 3
        assert one.asked[1].endswith("&page%5Bcursor%5D=a%26b")


SAME = page(profile(OURS), following="https://a.klaviyo.com/api/profiles?page%5Bcursor%5D=c1")
BROKEN: dict[str, Reply] = {
    "no profiles": reply({"links": {"next": None}}),
    "no links": reply({"data": []}),
    "a next page without a cursor": page(profile(OURS), following="https://a.klaviyo.com/api/profiles?page%5Bsize%5D=100"),
    "a next page that is none": page(profile(OURS), following=7),
    "the same page for ever": SAME,
    "another reason": page(profile(THEIRS)),
    "no reason": page(profile()),
    "no subscriptions": page({"attributes": {"email": "a@example.com"}}),
    "nobody there": GONE,
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_a_listing_that_is_not_whole_is_no_listing(answer: Reply) -> None:
    with pytest.raises(Unclear):
        await pulled({LIST.format(OURS): answer})


# What comes back


@pytest.mark.parametrize("address", [{"email_address": "alex@example.com"}, {}], ids=["with an address", "with a profile alone"])
async def test_what_we_told_does_not_come_back_as_an_opt_out(address: dict[str, str]) -> None:
    people = {"profile": {"data": {"type": "profile", "id": "01KP4EGHH8QJ3N3AY2Z6V7RMDK"}}}
    about = {"timestamp": 1763801234, "event_properties": address}

    def event(word: str) -> bytes:
        payload = {"data": {"attributes": about, "relationships": people}}
        return json.dumps({"external_id": word, "topic": f"event:klaviyo.{word}", "payload": payload}).encode()

    manually, left = "manually_suppressed_from_email_marketing", "unsubscribed_from_email_marketing"
    heard = KLAVIYO.parse(unsigned(body_of([event(manually), event(left)])))
    find = {"GET /api/profiles/.*": reply({"data": {"id": "01KP4EGHH8QJ3N3AY2Z6V7RMDK", "attributes": {"email": "alex@example.com"}}})}
    async with scripted(KLAVIYO, CASE.credential, find) as one:
        told = await KLAVIYO.resolve(one.http, one.credential, heard)
        only_heard = await KLAVIYO.resolve(one.http, replace(one.credential, options={}), heard)
    assert [(each.kind, each.address, each.id) for each in told.events] == [(Kind.UNSUBSCRIBED, "alex@example.com", left)]
    assert (told.kept, dict(told.counted)) == ((), {manually: 1})
    assert sorted(each.id for each in only_heard.events) == [manually, left]  # the control: somebody did it by hand
    assert not only_heard.counted


async def test_two_tellings_of_one_profile_are_one(box: Box) -> None:
    tellings = [Telling("A@example.com", SUPPRESSED, True), Telling("a@example.com", SUPPRESSED, True)]
    settled = await KLAVIYO.tell(box.http, box.credential, tellings)
    assert {each.outcome for each in settled} <= {Outcome.DONE, Outcome.UNKNOWN}
    assert len(await box.holds()) == 1
