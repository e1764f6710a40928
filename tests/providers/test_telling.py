"""The promises of telling and listing, over real HTTP with the sandbox and its faults. What a provider brings is in ``tellers.py``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout
from aiohttp.test_utils import TestServer

from mailprefs.errors import MailprefsError, Misconfigured
from mailprefs.providers.base import Barred, Outcome, Rejected, Settlement, Slow, Telling, Unclear, Unsafe
from mailprefs.providers.telling import BUDGET
from mailprefs.sandbox.app import create_app
from mailprefs.words import Channel

from .tellers import DONE, PATIENT, TOLD, USUAL, Box, teller_of

ODD = [
    "",
    " ",
    ".",
    "..",
    "/",
    "*",
    "@",
    "a@",
    "@b",
    "a b@example.com",
    "a@example.com\n",
    "\ud800@example.com",
    "a" * 250 + "@example.com",
]
LISTED = [name for name in TOLD if teller_of(name).lists]
TIMEOUT = 0.5  # seconds until an answer is given up


@pytest.fixture(params=TOLD)
async def box(request: pytest.FixtureRequest) -> AsyncIterator[Box]:
    teller = teller_of(request.param)
    async with TestServer(create_app([teller.name])) as server, ClientSession(timeout=PATIENT) as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, teller)


@pytest.fixture
def people(box: Box) -> list[str]:
    """As many of the addresses as one request takes; the first ones are the usual, the odd-looking ones come behind."""
    return list(box.teller.addresses[: max(1, min(box.teller.provider.batch, len(box.teller.addresses)))])


def same(one: list[str], other: list[str]) -> bool:
    return sorted(map(str.casefold, one)) == sorted(map(str.casefold, other))


# What is told


async def test_a_stop_is_in_the_list_of_that_group_alone_and_a_go_removes_just_that(box: Box) -> None:
    people, others = list(box.teller.addresses), box.teller.groups[1:]
    await box.hold(first=["someone@example.com"], second=["someone@example.com", people[0]])
    for stop, held, told in ((True, people, people), (False, people[3:], people[:3])):
        assert await box.tell_all(stop, told) == [DONE] * len(told)
        assert same(await box.holds(), ["someone@example.com", *held])
        for other in others:
            assert same(await box.holds(other), ["someone@example.com", people[0]])


async def test_nobody_is_without_transactional_mail_for_what_we_tell(box: Box) -> None:
    for stop in (True, False):
        for group in box.teller.groups:
            await box.tell_all(stop, box.teller.addresses, group)
            assert not box.teller.blocked(await box.state())
    await box.put(box.teller.blocking)
    assert box.teller.blocked(await box.state())  # the control


async def test_twice_is_once(box: Box) -> None:
    people = list(box.teller.addresses)
    for stop, held in ((True, people), (True, people), (False, []), (False, [])):
        assert await box.tell_all(stop, people) == [DONE] * len(people)
        assert same(await box.holds(), held)


async def test_who_stands_twice_in_one_request_is_told_once(box: Box, people: list[str]) -> None:
    assert await box.tell(True, [people[0], people[0]]) == [DONE] * 2
    assert await box.holds() == [people[0]]


async def test_nothing_to_tell_asks_nothing(box: Box) -> None:
    assert await box.tell(True, []) == []
    assert await box.requests() == []


async def test_two_groups_or_directions_in_one_call_are_a_mistake_of_ours(box: Box) -> None:
    one, other, *_ = (*box.teller.groups, "another")
    for strange in (Telling("b@example.com", other, True), Telling("b@example.com", one, False)):
        with pytest.raises(ValueError, match="unpack"):
            await box.teller.provider.tell(box.http, box.credential, [Telling("a@example.com", one, True), strange])
    assert await box.requests() == []


# What leaves


async def everything(box: Box) -> None:
    for stop in (True, False):
        for group in box.teller.groups:
            await box.tell_all(stop, box.teller.addresses, group)
            if box.teller.lists:
                await box.pulled(group)


async def test_every_request_is_as_the_provider_documents_it(box: Box) -> None:
    await everything(box)
    assert len(await box.requests()) >= 2 * len(box.teller.groups)
    assert await box.undocumented() == []


async def test_no_topic_and_no_account_of_ours_is_named_in_any_request(box: Box) -> None:
    one = box.teller.groups[0]
    canary = dict(zip(("canary-topic-7f3a", "canary-other-91c2"), box.teller.groups, strict=False))
    options = {**box.credential.options, "scopes": canary, "name": "canary-account-55", "brand": "canary-brand-08"}
    account = replace(box.credential, account="canary-account-55", options=options)
    await everything(replace(box, credential=account))
    sent = str(await box.requests())
    assert (one in sent) is box.teller.named  # the control
    assert "canary" not in sent


async def test_no_secret_stands_anywhere_but_in_the_header_of_the_key(box: Box) -> None:
    await everything(box)
    secrets = [box.credential.secrets[name] for name in box.teller.provider.secrets_out]
    sent = await box.requests()
    assert not [secret for secret in secrets if secret in str(sent)]  # the sandbox forgets the header of the key
    assert {name for each in sent for name, _ in each["headers"]} <= USUAL | box.teller.headers


async def test_an_address_that_is_none_never_stands_in_a_request(box: Box, people: list[str]) -> None:
    await box.hold(first=["someone@example.com"], second=["someone@example.com"])
    for stop in (True, False):
        settled = await box.tell(stop, [*ODD, people[0], *ODD])
        assert [s.outcome for s in settled] == [Outcome.REFUSED] * len(ODD) + [Outcome.DONE] + [Outcome.REFUSED] * len(ODD)
        assert [s.outcome for s in await box.tell(stop, ODD)] == [Outcome.REFUSED] * len(ODD)
        assert same(await box.holds(), ["someone@example.com", *[people[0]] * stop])
        for other in box.teller.groups[1:]:
            assert await box.holds(other) == ["someone@example.com"]
    assert await box.undocumented() == []


async def test_an_address_of_dots_and_slashes_stays_an_address(box: Box) -> None:
    await box.hold(first=["someone@example.com"], second=["someone@example.com"])
    tricky = box.teller.tricky
    assert await box.tell_all(True, tricky) == [DONE] * len(tricky)
    assert same(await box.holds(), ["someone@example.com", *tricky])
    assert await box.tell_all(False, tricky) == [DONE] * len(tricky)
    assert [await box.holds(group) for group in box.teller.groups] == [["someone@example.com"]] * len(box.teller.groups)
    assert await box.undocumented() == []


# What would do harm


async def test_what_would_do_harm_is_told_nothing(box: Box, people: list[str]) -> None:
    assert box.teller.unfit
    sound = await box.state()
    for unfit in box.teller.unfit.values():
        before = unfit.state(sound) if unfit.state else sound
        await box.put(before)
        for stop in (True, False):
            with pytest.raises(Unsafe, match=unfit.says) as refused:
                await box.tell(stop, people, unfit.group)
            assert len(str(refused.value)) > 60  # it says what to do
        with pytest.raises(Unsafe):
            await box.pulled(unfit.group)
        assert await box.state() == before
    assert await box.writes() == []
    await box.put(sound)
    assert await box.tell(True, people) == [DONE] * len(people)  # the control


async def test_what_can_be_seen_to_do_harm_refuses_to_start(box: Box) -> None:
    assert box.teller.refused
    box.teller.provider.check(box.credential)
    for group in box.teller.refused:
        scopes = {"newsletter": box.teller.groups[0], "offers": group}
        with pytest.raises(Misconfigured, match="scopes") as refused:
            box.teller.provider.check(replace(box.credential, options={**box.credential.options, "scopes": scopes}))
        assert box.credential.account in str(refused.value)
        assert len(str(refused.value)) > 80


# What goes wrong


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize(
    ("fault", "shortest", "longest"), [("429-seconds", 7, 7), ("429-date", 5, 8), ("429-reset", 5, 8), ("429-bare", 60, 60)]
)
async def test_a_429_says_how_long_to_wait(box: Box, people: list[str], stop: bool, fault: str, shortest: int, longest: int) -> None:
    await box.hold(first=[] if stop else people)
    await box.faults({"fault": fault, "seconds": 7})
    with pytest.raises(Slow) as slow:
        await box.tell(stop, people)
    assert timedelta(seconds=shortest) <= slow.value.wait <= timedelta(seconds=longest)
    assert await box.tell(stop, people) == [DONE] * len(people)  # the fault is spent


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("fault", ["401", "403"])
async def test_a_key_that_is_not_accepted_bars_the_account(box: Box, people: list[str], stop: bool, fault: str) -> None:
    await box.hold(first=[] if stop else people)
    await box.faults(fault)
    with pytest.raises(Barred):
        await box.tell(stop, people)
    assert await box.tell(stop, people) == [DONE] * len(people)
    for name in box.teller.provider.secrets_out:
        nobody = replace(box.credential, secrets={k: v for k, v in box.credential.secrets.items() if k != name})
        with pytest.raises(Barred, match=name):
            await box.tell(stop, people, credential=nobody)


async def agreed(box: Box, people: list[str], settled: list[Settlement], stop: bool) -> list[str]:
    """Return whose outcome is unknown. Who is called done is as told at the provider, and nothing that is said names anyone."""
    held = {each.casefold() for each in await box.holds()}
    assert len(settled) == len(people)
    for address, settlement in zip(people, settled, strict=True):
        assert settlement.outcome in (Outcome.DONE, Outcome.UNKNOWN)
        assert settlement.outcome is Outcome.UNKNOWN or (address.casefold() in held) is stop
        assert re.fullmatch(r"[a-z0-9_]*", settlement.detail)
        assert settlement.detail or settlement.outcome is Outcome.DONE
    return [address for address, settlement in zip(people, settled, strict=True) if settlement.outcome is Outcome.UNKNOWN]


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("fault", ["500", "html", "applied-then-dropped", "applied-late", "half-closed", "truncated"])
async def test_what_is_unclear_is_never_called_done(box: Box, people: list[str], stop: bool, fault: str) -> None:
    await box.hold(first=[] if stop else people)
    await box.faults({"fault": fault, "seconds": 0.2})
    unknown = await agreed(box, people, await box.tell(stop, people), stop)
    assert unknown or fault in ("half-closed", "truncated")
    await mended(box, people, stop, late=fault == "applied-late")


@pytest.mark.parametrize("stop", [True, False])
async def test_an_answer_too_late_is_never_called_done(box: Box, people: list[str], stop: bool) -> None:
    await box.hold(first=[] if stop else people)
    await box.faults({"fault": "slow", "seconds": TIMEOUT + 0.2})
    async with ClientSession(timeout=ClientTimeout(total=TIMEOUT)) as http:
        settled = await replace(box, http=http).tell(stop, people)
    assert await agreed(box, people, settled, stop)
    await mended(box, people, stop, late=True)


async def mended(box: Box, people: list[str], stop: bool, *, late: bool) -> None:
    if late:  # what may still come, has come
        await asyncio.sleep(0.4)
    assert await box.tell(stop, people) == [DONE] * len(people)  # one more assertion mends it
    assert same(await box.holds(), people * stop)


ANSWERS: dict[str, dict[str, object]] = {  # to a write that was not carried out; none is a documented one
    **{str(status): {"status": status, "body": "{}"} for status in (202, 203, 206, 405, 409, 418, 500, 502, 503, 504)},
    "302": {"status": 302, "body": "{}", "headers": {"Location": "/_sandbox/state"}},
    "307": {"status": 307, "body": "{}", "headers": {"Location": "/_sandbox/state"}},
    **{f"200 {body}": {"body": body} for body in ("{}", "[]", "null", "true", "7", '"done"', "", "{", "[{}]", '{"message": "ok"}', "{}x")},
    **{f"201 {body}": {"status": 201, "body": body} for body in ("{}", "[]", "null", "")},
    "a page": {"body": "<html>", "type": "text/html"},
    "plain text": {"body": "{}", "type": "text/plain"},
    "too long": {"body": '{"x": "' + "x" * 70_000 + '"}'},
    "too deep": {"body": "[" * 10_000 + "]" * 10_000},
    "a key twice": {"body": '{"a": 1, "a": 1}'},
}


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_no_answer_is_believed_but_the_documented_one(box: Box, people: list[str], stop: bool, answer: dict[str, object]) -> None:
    await box.hold(first=[] if stop else people)
    await box.faults(*[{"fault": "answer", **answer}] * len(people))
    assert await agreed(box, people, await box.tell(stop, people), stop) == people
    writes = [(each["method"], each["path"], each["body"]) for each in await box.writes()]
    assert len(writes) == len(set(writes))  # none is sent twice, no redirect is followed


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_request_that_is_refused_is_halved_or_refused_alone(box: Box, people: list[str], status: int) -> None:
    for stop in (True, False):
        await box.hold(first=[] if stop else people)
        await box.faults(*[{"fault": "answer", "status": status, "body": "{}"}] * 2 * len(people))  # one may be spelt another way once
        try:
            settled = await box.tell(stop, people)
        except (Rejected, Unsafe):
            continue
        done = {Outcome.DONE} if status == 404 and not stop else set()  # it was not there, says a DELETE
        assert {s.outcome for s in settled} <= {Outcome.REFUSED, Outcome.UNKNOWN} | done


@pytest.mark.parametrize("stop", [True, False])
async def test_some_who_fail_are_settled_one_by_one(box: Box, people: list[str], stop: bool) -> None:
    await box.hold(first=[] if stop else people)
    await box.faults("per-item")
    settled = await box.tell(stop, people)
    held = {each.casefold() for each in await box.holds()}
    assert [settlement == DONE for settlement in settled] == [(address.casefold() in held) is stop for address in people]
    assert not [s for s in settled if "@" in s.detail]


@pytest.mark.parametrize("stop", [True, False])
async def test_a_slow_answer_in_time_is_done_and_one_that_lands_twice_as_good_as_once(box: Box, people: list[str], stop: bool) -> None:
    await box.hold(first=[] if stop else people)
    for fault in ("slow", "duplicated"):
        await box.faults({"fault": fault, "seconds": 0.1})
        assert await box.tell(stop, people) == [DONE] * len(people)
    await asyncio.sleep(0.2)
    assert same(await box.holds(), people * stop)


@pytest.mark.parametrize("box", LISTED, indirect=True)
async def test_a_lie_is_found_by_asking_for_the_list(box: Box, people: list[str]) -> None:
    await box.faults("lying")
    settled = await box.tell(True, people)
    assert {s.outcome for s in settled} <= {Outcome.DONE, Outcome.UNKNOWN}
    assert same([listed.address for listed in await box.pulled()], await box.holds())
    assert people[0] not in await box.holds()


async def test_a_go_that_may_still_land_is_told_of_before_a_429_behind_it(box: Box, people: list[str]) -> None:
    await box.hold(first=people)
    await box.faults({"fault": "applied-late", "seconds": 0.2}, "429-seconds")
    settled = await box.tell(False, people)
    assert {s.outcome for s in settled} == {Outcome.UNKNOWN}


async def test_a_tell_ends_in_its_time_with_what_is_settled_by_then(box: Box, people: list[str]) -> None:
    provider: Any = box.teller.provider
    for seconds, wanted in ((0.3, Outcome.UNKNOWN), (60, Outcome.DONE)):
        await box.faults({"fault": "slow", "seconds": 0.4})
        given = replace(provider, budget=timedelta(seconds=seconds))
        settled = await given.tell(box.http, box.credential, [Telling(address, box.teller.groups[0], True) for address in people])
        assert {s.outcome for s in settled} == {wanted}


@pytest.mark.parametrize("box", TOLD, indirect=True)
async def test_a_full_request_fits_its_time_and_is_over_before_the_next_begins(box: Box) -> None:
    """By how many requests it comes to and how far these are apart: two of them at once would be twice what the provider lets us make."""
    provider = box.teller.provider
    pause = getattr(provider, "pause", timedelta()).total_seconds()
    everybody = [f"p{n}@example.com" for n in range(provider.batch)]
    if provider.channel is Channel.SMS:
        everybody = [f"+1202555{n:04}" for n in range(100, 100 + provider.batch)]
    for stop in (True, True, False, False):  # of strangers, of who is stopped, and back
        before = len(await box.requests())
        assert {each.outcome for each in await box.tell(stop, everybody)} == {Outcome.DONE}
        seconds = (len(await box.requests()) - before) * pause
        assert seconds <= 0.8 * BUDGET.total_seconds()
        assert seconds * provider.pace <= 1.01


# What is listed


@pytest.mark.parametrize("box", LISTED, indirect=True)
async def test_a_listing_is_exactly_what_the_provider_holds_over_all_its_pages(box: Box) -> None:
    one, *others = box.teller.groups
    many = [f"p{n:05}@example.com" for n in range(max(box.teller.many, 2 * box.teller.page + 1))]
    await box.hold(first=many, second=[*many[:7], "other@example.com"])
    assert sorted(listed.address for listed in await box.pulled()) == many
    for other in others:
        assert sorted(listed.address for listed in await box.pulled(other)) == ["other@example.com", *many[:7]]
    assert {listed.group for listed in await box.pulled()} == {one}
    assert await box.undocumented() == []
    await box.hold()
    assert await box.pulled() == []


@pytest.mark.parametrize("box", LISTED, indirect=True)
@pytest.mark.parametrize("fault", ["truncated", "half-closed", "500", "html"])
async def test_a_listing_that_is_not_whole_is_unclear(box: Box, fault: str) -> None:
    await box.hold(first=[f"p{n:05}@example.com" for n in range(max(box.teller.many, 2 * box.teller.page + 1))])
    for before in range(3 if box.teller.page else 1):  # on each of its pages
        await box.listing_faults(*[{"fault": "slow", "seconds": 0}] * before, {"fault": fault})
        with pytest.raises(Unclear) as unclear:
            await box.pulled()
        assert re.fullmatch(r"[a-z0-9_]+", unclear.value.detail)
    assert len(await box.pulled()) >= box.teller.many  # the control


@pytest.mark.parametrize("box", LISTED, indirect=True)
@pytest.mark.parametrize(("fault", "error"), [("429-seconds", Slow), ("401", Barred), ("403", Barred)])
async def test_a_listing_that_is_refused_says_why(box: Box, fault: str, error: type[MailprefsError]) -> None:
    await box.listing_faults({"fault": fault, "seconds": 7})
    with pytest.raises(error):
        await box.pulled()
    assert await box.pulled() == []
