"""SendGrid both ways: its own signature vector and events one by one, and its API in the sandbox over real HTTP, with each fault."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, web
from aiohttp.test_utils import TestServer

from mailprefs.errors import Forged, Misconfigured
from mailprefs.providers.base import (
    Barred,
    Credential,
    Delivery,
    Listed,
    Outcome,
    Rejected,
    Settlement,
    Slow,
    Telling,
    Unclear,
    Unsafe,
)
from mailprefs.providers.sendgrid import SIGNATURE, TIMESTAMP, SendGrid
from mailprefs.sandbox.app import create_app
from mailprefs.words import Kind

from .case_sendgrid import API_KEY, CASE
from .cases import PAYLOADS, RECEIVED

SENDGRID = SendGrid()
ADDRESSES = ["a@example.com", "b+c/d?e#f@example.com", "Élise@example.com", "200%@example.com"]


def payload(name: str) -> bytes:
    return (PAYLOADS / "sendgrid" / name).read_bytes()


def heard(events: object) -> list[tuple[str | None, Kind, str | None, str]]:
    """Return what our events say of a batch: address, kind, group, detail."""
    body = events if isinstance(events, bytes) else json.dumps(events).encode()
    return [(e.address, e.kind, e.group, e.detail) for e in SENDGRID.parse(Delivery([], body, RECEIVED)).events]


# In


def vector(body: bytes, timestamp: str) -> tuple[Credential, Delivery]:
    given = json.loads(payload("vector.json"))
    headers = [(SIGNATURE, given["signature"]), (TIMESTAMP, timestamp)]
    return Credential("sendgrid-main", {"webhook_key": given["webhook_key"]}), Delivery(headers, body, RECEIVED)


def test_sendgrids_own_vector_is_accepted_and_is_an_echo() -> None:
    credential, delivery = vector(payload("vector.body"), "1600112502")
    SENDGRID.check(credential)
    SENDGRID.verify(credential, delivery)
    told = SENDGRID.parse(delivery)
    assert (told.events, told.kept, dict(told.counted)) == ((), (), {"dropped": 1})


def test_a_digit_moved_between_timestamp_and_body_is_forged() -> None:
    body = payload("vector.body")
    for timestamp, moved in [("160011250", b"2" + body), ("1600112502[", body[1:]), ("", b"1600112502" + body), ("１６", body)]:
        with pytest.raises(Forged):
            SENDGRID.verify(*vector(moved, timestamp))
    SENDGRID.verify(*vector(body, "1600112502"))  # the control


def test_a_bounce_is_hard_only_on_evidence() -> None:
    assert heard(payload("bounces.json")) == [
        ("no-type@example.com", Kind.BOUNCED_HARD, None, "5.0.0"),
        ("no-type-soft@example.com", Kind.BOUNCED_SOFT, None, "4.2.2"),
        ("no-type-reputation@example.com", Kind.BOUNCED_SOFT, None, "5.7.1"),
        ("no-status@example.com", Kind.BLOCKED, None, ""),
        ("unknown-type@example.com", Kind.BOUNCED_SOFT, None, "5.7.9"),
        ("unknown-type-evidence@example.com", Kind.BOUNCED_HARD, None, "5.1.1"),
    ]


def test_an_unsubscribe_says_from_what() -> None:
    assert heard(payload("scopes.json")) == [
        ("int@example.com", Kind.UNSUBSCRIBED, "12345", ""),
        ("text@example.com", Kind.UNSUBSCRIBED, "12345", ""),
        ("none@example.com", Kind.UNSUBSCRIBED, "", ""),
        ("odd@example.com", Kind.UNSUBSCRIBED, "", ""),
        ("all@example.com", Kind.UNSUBSCRIBED, None, ""),
        ("sent-with-group@example.com", Kind.UNSUBSCRIBED, None, ""),
    ]


def test_a_drop_is_counted_whatever_its_reason() -> None:
    told = SENDGRID.parse(Delivery([], payload("drops.json"), RECEIVED))
    assert (told.events, told.kept, dict(told.counted)) == ((), (), {"dropped": 8})


def test_a_trouble_with_the_account_is_kept_for_the_operator() -> None:
    [kept] = SENDGRID.parse(Delivery([], CASE.body([CASE.documented["account_status_change"]]), RECEIVED)).kept
    assert kept.reason == "account_change"


def test_a_ping_says_nothing() -> None:
    told = SENDGRID.parse(Delivery([], b"[]", RECEIVED))
    assert (told.events, told.kept, dict(told.counted)) == ((), (), {})


def test_an_event_without_recipient_is_kept_unless_it_has_our_token() -> None:
    for nobody in ({}, {"email": ""}, {"email": " "}, {"email": None}, {"email": ["a@example.com"]}):
        told = SENDGRID.parse(Delivery([], json.dumps([{"event": "unsubscribe"} | nobody]).encode(), RECEIVED))
        assert (told.events, [kept.reason for kept in told.kept]) == ((), ["no_recipient"])
        told = SENDGRID.parse(Delivery([], json.dumps([{"event": "unsubscribe", "mailprefs": "our-token"} | nobody]).encode(), RECEIVED))
        assert [(event.address, event.token) for event in told.events] == [(None, "our-token")]


def test_events_without_an_id_are_told_apart_by_what_they_say() -> None:
    event = {"event": "group_unsubscribe", "email": "a@example.com", "timestamp": 1700000000, "sg_message_id": "m", "asm_group_id": 1}
    others = [
        event | change for change in ({"email": "b@example.com"}, {"timestamp": 1700000001}, {"sg_message_id": "n"}, {"asm_group_id": 2})
    ]
    body = json.dumps([event, event | {"useragent": "x"}, *others]).encode()
    ids = [event.id for event in SENDGRID.parse(Delivery([], body, RECEIVED)).events]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 1 + len(others)


def test_happened_at_is_sendgrids_time_as_number_or_text() -> None:
    for timestamp in (1700000000, "1700000000", 1700000000.0):
        body = json.dumps([{"event": "spamreport", "email": "a@example.com", "timestamp": timestamp}]).encode()
        [event] = SENDGRID.parse(Delivery([], body, RECEIVED)).events
        assert event.happened_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_a_group_that_is_no_number_refuses_to_start() -> None:
    for group in ("newsletter", "", "12345/../1", "１", "-1"):
        with pytest.raises(Misconfigured, match="known by its number"):
            SENDGRID.check(replace(CASE.credential, options={"scopes": {"newsletter": "12345", "offers": group}}))


# Out


@dataclass
class Sandbox:
    """The simulated SendGrid, and the account that points to it."""

    http: ClientSession
    root: str
    credential: Credential

    async def faults(self, *queue: object) -> None:
        async with self.http.post(f"{self.root}/_sandbox/faults", json={"queue": queue}) as answer:
            assert answer.status == 200

    async def shown(self, what: str) -> Any:
        async with self.http.get(f"{self.root}/_sandbox/{what}") as answer:
            return await answer.json()

    async def holds(self, group: str = "12345") -> list[str]:
        state = (await self.shown("state"))["sendgrid"]
        assert not state["global"]  # in no test that ends well does anyone land there
        held: list[str] = state["groups"][group]
        return held

    async def writes(self) -> list[tuple[str, str]]:
        return [(each["method"], each["path"]) for each in await self.shown("requests") if each["method"] != "GET"]

    async def tell(self, stop: bool, addresses: Sequence[str], group: str = "12345") -> list[Settlement]:
        return await SENDGRID.tell(self.http, self.credential, [Telling(address, group, stop) for address in addresses])

    async def pulled(self, group: str = "12345") -> list[Listed]:
        return [listed async for listed in SENDGRID.pull(self.http, self.credential, group)]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with TestServer(create_app()) as server, ClientSession(timeout=ClientTimeout(total=0.5)) as http:
        root = str(server.make_url("")).rstrip("/")
        yield Sandbox(http, root, replace(CASE.credential, api_base=f"{root}/sendgrid"))


DONE = Settlement(Outcome.DONE)


def unknown(detail: str, count: int = 1) -> list[Settlement]:
    return [Settlement(Outcome.UNKNOWN, detail)] * count


async def test_a_stop_reaches_the_group_and_a_go_takes_it_back(sandbox: Sandbox) -> None:
    assert await sandbox.tell(True, ADDRESSES) == [DONE] * 4
    assert await sandbox.holds() == ADDRESSES
    assert [listed.address for listed in await sandbox.pulled()] == ADDRESSES
    assert await sandbox.tell(False, ADDRESSES[:3]) == [DONE] * 3
    assert await sandbox.holds() == ADDRESSES[3:]
    assert await sandbox.holds("12346") == []


async def test_telling_twice_is_as_good_as_once(sandbox: Sandbox) -> None:
    for stop, held in ((True, ADDRESSES), (True, ADDRESSES), (False, []), (False, [])):
        assert await sandbox.tell(stop, ADDRESSES) == [DONE] * 4
        assert await sandbox.holds() == held


async def test_nothing_but_number_and_address_leaves(sandbox: Sandbox) -> None:
    await sandbox.tell(True, ["a@example.com"])
    await sandbox.tell(False, ["a@example.com"])
    requests = await sandbox.shown("requests")
    assert [(each["method"], each["path"].removeprefix("/sendgrid/v3/asm/groups/12345")) for each in requests] == [
        ("GET", ""),
        ("POST", "/suppressions"),
        ("GET", ""),
        ("GET", ""),
        ("DELETE", "/suppressions/a%40example.com"),
    ]
    assert [json.loads(each["body"]) for each in requests if each["body"]] == [{"recipient_emails": ["a@example.com"]}]
    assert {name for each in requests for name, _ in each["headers"]} <= {
        "Host",
        "Accept",
        "Accept-Encoding",
        "User-Agent",
        "Content-Length",
        "Content-Type",
    }


async def test_a_group_that_is_gone_is_told_nothing(sandbox: Sandbox) -> None:
    await sandbox.http.delete(f"{sandbox.root}/sendgrid/v3/asm/groups/12345", headers={"Authorization": f"Bearer {API_KEY}"})
    for stop in (True, False):
        with pytest.raises(Unsafe, match="12345"):
            await sandbox.tell(stop, ADDRESSES)
    with pytest.raises(Unsafe):
        await sandbox.pulled()
    assert (await sandbox.shown("state"))["sendgrid"]["global"] == []
    assert await sandbox.writes() == [("DELETE", "/sendgrid/v3/asm/groups/12345")]


@pytest.mark.parametrize("group", ["", "newsletter", "12345/suppressions", "..", "1 2", "１２３４５"])
async def test_what_is_no_group_is_told_nothing(sandbox: Sandbox, group: str) -> None:
    with pytest.raises(Unsafe):
        await sandbox.tell(True, ADDRESSES, group)
    assert await sandbox.shown("requests") == []


async def test_an_address_that_is_none_never_stands_in_a_path(sandbox: Sandbox) -> None:
    odd = ["", " ", ".", "..", "/", "@", "a@", "@b", "a b@example.com", "a@example.com\n", "\ud800@example.com", "a" * 250 + "@example.com"]
    for stop in (True, False):
        settled = await sandbox.tell(stop, [*odd, "a@example.com", *odd])
        assert [s.outcome for s in settled] == [Outcome.REFUSED] * 12 + [Outcome.DONE] + [Outcome.REFUSED] * 12
        assert [s.outcome for s in await sandbox.tell(stop, odd)] == [Outcome.REFUSED] * 12
    assert await sandbox.writes() == [
        ("POST", "/sendgrid/v3/asm/groups/12345/suppressions"),
        ("DELETE", "/sendgrid/v3/asm/groups/12345/suppressions/a%40example.com"),
    ]


async def test_an_address_of_dots_and_slashes_stays_one_segment(sandbox: Sandbox) -> None:
    tricky = ["../../12346/suppressions/@example.com", "..%2f..@example.com", "%2e%2e/@example.com", "?a=@example.com", "#@example.com"]
    assert await sandbox.tell(True, tricky) == [DONE] * 5
    assert await sandbox.holds() == tricky
    assert await sandbox.tell(False, tricky) == [DONE] * 5
    assert await sandbox.holds() == []


async def test_nothing_to_tell_asks_nothing(sandbox: Sandbox) -> None:
    assert await sandbox.tell(True, []) == []
    assert await sandbox.shown("requests") == []


async def test_two_groups_or_directions_in_one_call_are_a_mistake_of_ours(sandbox: Sandbox) -> None:
    for other in (Telling("b@example.com", "12346", True), Telling("b@example.com", "12345", False)):
        with pytest.raises(ValueError, match="unpack"):
            await SENDGRID.tell(sandbox.http, sandbox.credential, [Telling("a@example.com", "12345", True), other])
    assert await sandbox.shown("requests") == []


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize(
    ("fault", "shortest", "longest"),
    [("429-seconds", 7, 7), ("429-date", 5, 8), ("429-reset", 5, 8), ("429-bare", 60, 60)],
)
async def test_a_429_says_how_long_to_wait(sandbox: Sandbox, stop: bool, fault: str, shortest: int, longest: int) -> None:
    await sandbox.faults({"fault": fault, "seconds": 7})
    with pytest.raises(Slow) as slow:
        await sandbox.tell(stop, ADDRESSES)
    assert timedelta(seconds=shortest) <= slow.value.wait <= timedelta(seconds=longest)
    assert await sandbox.tell(stop, ADDRESSES) == [DONE] * 4  # the fault is spent


async def test_a_wait_is_never_longer_than_an_hour(sandbox: Sandbox) -> None:
    for fault in ("429-seconds", "429-date", "429-reset"):
        await sandbox.faults({"fault": fault, "seconds": 3600}, {"fault": "429-seconds", "seconds": 0})
        with pytest.raises(Slow) as slow:
            await sandbox.tell(True, ADDRESSES)
        assert timedelta(minutes=59) < slow.value.wait <= timedelta(hours=1)
        with pytest.raises(Slow) as slow:
            await sandbox.tell(True, ADDRESSES)
        assert slow.value.wait == timedelta(seconds=1)


async def test_a_key_that_is_not_accepted_bars_the_account(sandbox: Sandbox) -> None:
    await sandbox.faults("401", "401")
    for stop in (True, False):
        with pytest.raises(Barred):
            await sandbox.tell(stop, ADDRESSES)
    nobody = replace(sandbox.credential, secrets={"webhook_key": "x"})
    with pytest.raises(Barred, match="api_key"):
        await SENDGRID.tell(sandbox.http, nobody, [Telling("a@example.com", "12345", True)])


FAULTS: list[tuple[str, str, bool, bool]] = [  # fault, detail of a stop, applied at once, applied later
    ("500", "http_500", False, False),
    ("html", "http_200", False, False),
    ("applied-then-dropped", "no_answer", True, True),
    ("applied-late", "no_answer", False, True),
    ("half-closed", "no_answer", True, True),
    ("truncated", "broken_json", True, True),
]


@pytest.mark.parametrize(("fault", "detail", "at_once", "later"), FAULTS, ids=[fault for fault, *_ in FAULTS])
async def test_a_stop_whose_outcome_is_unknown_is_never_called_done(
    sandbox: Sandbox, fault: str, detail: str, at_once: bool, later: bool
) -> None:
    await sandbox.faults({"fault": fault, "seconds": 0.2})
    assert await sandbox.tell(True, ADDRESSES) == unknown(detail, 4)
    assert await sandbox.holds() == ADDRESSES * at_once
    await asyncio.sleep(0.4)
    assert await sandbox.holds() == ADDRESSES * later
    assert await sandbox.tell(True, ADDRESSES) == [DONE] * 4  # one more assertion mends it
    assert await sandbox.holds() == ADDRESSES


@pytest.mark.parametrize("fault", ["500", "html", "applied-then-dropped", "applied-late"])
async def test_a_go_whose_outcome_is_unknown_is_not_done_and_holds_up_nobody(sandbox: Sandbox, fault: str) -> None:
    await sandbox.tell(True, ADDRESSES)
    await sandbox.faults({"fault": fault, "seconds": 0.2})
    settled = await sandbox.tell(False, ADDRESSES)
    assert [s.outcome for s in settled] == [Outcome.UNKNOWN] + [Outcome.DONE] * 3
    assert await sandbox.tell(False, ADDRESSES) == [DONE] * 4
    assert await sandbox.holds() == []


async def test_a_go_that_may_still_land_is_told_of_before_a_429_behind_it(sandbox: Sandbox) -> None:
    await sandbox.tell(True, ADDRESSES)
    await sandbox.faults({"fault": "applied-late", "seconds": 0.2}, "429-seconds")
    assert await sandbox.tell(False, ADDRESSES) == [*unknown("no_answer"), *unknown("cut_short", 3)]
    await sandbox.faults({"fault": "slow", "seconds": 0}, "429-seconds")
    with pytest.raises(Slow):  # the control: with nothing in the air the wait goes first
        await sandbox.tell(False, ADDRESSES)


async def test_a_tell_ends_in_its_time_with_what_is_settled_by_then(sandbox: Sandbox) -> None:
    hasty = SendGrid(budget=timedelta(seconds=0.3))
    for faults, settled in (
        ([{"fault": "slow", "seconds": 0}, {"fault": "slow", "seconds": 0.4}], [DONE, *unknown("too_late", 3)]),
        ([], [DONE] * 4),  # the control
    ):
        await sandbox.tell(True, ADDRESSES)
        await sandbox.faults(*faults)
        tellings = [Telling(address, "12345", False) for address in ADDRESSES]
        assert await hasty.tell(sandbox.http, sandbox.credential, tellings) == settled


async def test_an_answer_too_late_is_unknown(sandbox: Sandbox) -> None:
    await sandbox.faults({"fault": "slow", "seconds": 0.8})
    assert await sandbox.tell(True, ADDRESSES) == unknown("no_answer", 4)


async def test_a_slow_answer_in_time_is_done(sandbox: Sandbox) -> None:
    await sandbox.faults({"fault": "slow", "seconds": 0.1})
    assert await sandbox.tell(True, ADDRESSES) == [DONE] * 4


async def test_a_write_that_lands_twice_is_as_good_as_once(sandbox: Sandbox) -> None:
    await sandbox.faults({"fault": "duplicated", "seconds": 0.1})
    assert await sandbox.tell(True, ADDRESSES) == [DONE] * 4
    await asyncio.sleep(0.3)
    assert await sandbox.holds() == ADDRESSES


async def test_who_is_missing_in_the_echo_is_not_done(sandbox: Sandbox) -> None:
    await sandbox.faults("per-item")
    assert await sandbox.tell(True, ADDRESSES) == [*unknown("not_echoed"), *[DONE] * 3]
    assert await sandbox.holds() == ADDRESSES[1:]


async def test_a_lie_is_found_by_asking_for_the_list(sandbox: Sandbox) -> None:
    await sandbox.faults("lying")
    assert await sandbox.tell(True, ADDRESSES) == [DONE] * 4
    assert await sandbox.pulled() == []


# Answers that the sandbox never gives


@dataclass(frozen=True)
class Reply:
    """One answer, as often as it is asked for."""

    body: bytes = b"{}"
    status: int = 200
    type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        return web.Response(body=self.body, status=self.status, content_type=self.type, headers=self.headers)


def reply(value: object, status: int = 200, type: str = "application/json", **headers: str) -> Reply:
    return Reply(json.dumps(value).encode(), status, type, headers)


def echo(emails: object, status: int = 201, type: str = "application/json", **headers: str) -> Reply:
    return reply({"recipient_emails": emails}, status, type, **headers)


HERE, GONE = reply({"id": 12345, "name": "Group 12345"}), reply({"errors": []}, 404)


@dataclass
class Scripted:
    """An account whose provider gives one answer to writes, one to listings, and others in turn when asked for the group."""

    http: ClientSession
    credential: Credential
    writes: int = 0

    async def tell(self, *addresses: str, stop: bool = True) -> list[Settlement]:
        return await SENDGRID.tell(self.http, self.credential, [Telling(address, "12345", stop) for address in addresses])

    async def pulled(self) -> list[Listed]:
        return [listed async for listed in SENDGRID.pull(self.http, self.credential, "12345")]


@asynccontextmanager
async def answering(write: Reply, group: Sequence[Reply] = (HERE, HERE), held: Reply = Reply(b"[]")) -> AsyncIterator[Scripted]:
    asked = iter(group)

    async def show(_: web.Request) -> web.Response:
        return next(asked, group[-1]).response()

    async def change(_: web.Request) -> web.Response:
        scripted.writes += 1
        return write.response()

    async def shown(_: web.Request) -> web.Response:
        return held.response()

    async def elsewhere(_: web.Request) -> web.Response:
        return echo(["a@example.com"]).response()

    app = web.Application()
    app.add_routes(
        [
            web.get("/v3/asm/groups/12345", show),
            web.post("/v3/asm/groups/12345/suppressions", change),
            web.get("/v3/asm/groups/12345/suppressions", shown),
            web.delete("/v3/asm/groups/12345/suppressions/{address}", change),
            web.route("*", "/elsewhere", elsewhere),
        ]
    )
    async with TestServer(app) as server, ClientSession(timeout=ClientTimeout(total=5)) as http:
        scripted = Scripted(http, replace(CASE.credential, api_base=str(server.make_url("")).rstrip("/")))
        yield scripted


UNDOCUMENTED = {
    "200": echo(["a@example.com"], 200),
    "202": echo(["a@example.com"], 202),
    "302": echo(["a@example.com"], 302, Location="/elsewhere"),
    "307": echo(["a@example.com"], 307, Location="/elsewhere"),
    "405": echo(["a@example.com"], 405),
    "500": echo(["a@example.com"], 500),
    "503": echo(["a@example.com"], 503),
    "html": echo(["a@example.com"], type="text/html"),
    "text": echo(["a@example.com"], type="text/plain"),
    "nobody": echo([]),
    "somebody else": echo(["b@example.com"]),
    "a string": echo("a@example.com"),
    "arrays": echo([["a@example.com"]]),
    "an object": echo({"a@example.com": True}),
    "an array": reply(["a@example.com"], 201),
    "no echo": reply({}, 201),
    "empty": Reply(b"", 201),
    "truncated": Reply(b'{"recipient_emails": ["a@example.com"]', 201),
    "more behind it": Reply(b'{"recipient_emails": ["a@example.com"]}x', 201),
    "two echoes": Reply(b'{"recipient_emails": [], "recipient_emails": ["a@example.com"]}', 201),
    "too long": echo(["a@example.com", "x" * 70_000]),
}


async def test_the_documented_answer_is_done_in_whatever_case_it_echoes() -> None:
    async with answering(echo(["A@Example.com"])) as scripted:
        assert await scripted.tell("a@example.com") == [DONE]


@pytest.mark.parametrize("answer", UNDOCUMENTED.values(), ids=UNDOCUMENTED)
async def test_no_other_answer_is_done(answer: Reply) -> None:
    async with answering(answer) as scripted:
        [settled] = await scripted.tell("a@example.com")
        assert settled.outcome is Outcome.UNKNOWN
        assert settled.detail
        assert "@" not in settled.detail
        assert scripted.writes == 1


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_batch_refused_as_a_whole_is_rejected_and_a_single_go_is_refused_alone(status: int) -> None:
    async with answering(reply({"errors": []}, status)) as scripted:
        with pytest.raises(Rejected):
            await scripted.tell("a@example.com", "b@example.com")
        [settled] = await scripted.tell("a@example.com", stop=False)
        assert settled.outcome is (Outcome.DONE if status == 404 else Outcome.REFUSED)


@pytest.mark.parametrize("status", [401, 403])
async def test_who_is_not_let_in_is_barred(status: int) -> None:
    async with answering(reply({}, status)) as scripted:
        for stop in (True, False):
            with pytest.raises(Barred):
                await scripted.tell("a@example.com", stop=stop)


async def test_a_group_that_goes_while_it_is_told_is_never_called_done() -> None:
    async with answering(echo(["a@example.com"]), [HERE, GONE]) as scripted:
        with pytest.raises(Unsafe):
            await scripted.tell("a@example.com")
        assert scripted.writes == 1


DOUBTFUL = {
    "another": reply({"id": 1}),
    "array": reply([]),
    "empty": reply({}),
    "page": Reply(b"<html>", type="text/html"),
    "500": reply({}, 500),
}


@pytest.mark.parametrize("group", DOUBTFUL.values(), ids=DOUBTFUL)
async def test_without_a_group_that_surely_exists_nothing_is_sent(group: Reply) -> None:
    async with answering(echo(["a@example.com"]), [group]) as scripted:
        for stop in (True, False):
            [settled] = await scripted.tell("a@example.com", stop=stop)
            assert settled.outcome is Outcome.UNKNOWN
        assert not scripted.writes


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "0"}, 1),
        ({"Retry-After": "999999999999"}, 3600),
        ({"Retry-After": "-5"}, 60),
        ({"Retry-After": "soon"}, 60),
        ({"Retry-After": "nan"}, 60),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 GMT", "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 30),
        ({"Retry-After": "Sun, 22 Nov 2026 11:00:00 GMT", "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 1),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30", "Date": "Sun, 22 Nov 2026 12:00:00"}, 60),
        ({"Retry-After": "Sun, 99 Nov 99999 12:00:30 GMT", "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 60),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 +9999999999999999", "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 60),
        ({"X-RateLimit-Reset": "1795348830", "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 30),
        ({"X-RateLimit-Reset": "45"}, 45),
        ({"X-RateLimit-Reset": "1795348830", "Date": "yesterday"}, 60),
        ({"Retry-After": "5", "X-RateLimit-Reset": "45"}, 5),
        ({"Retry-After": "soon", "X-RateLimit-Reset": "45"}, 45),
        ({}, 60),
    ],
)
async def test_every_way_to_ask_for_a_wait_is_understood(headers: dict[str, str], seconds: float) -> None:
    async with answering(Reply(status=429, headers=headers)) as scripted:
        for stop in (True, False):
            with pytest.raises(Slow) as slow:
                await scripted.tell("a@example.com", stop=stop)
            assert slow.value.wait == timedelta(seconds=seconds)


async def test_nobody_at_home_is_unknown() -> None:
    async with ClientSession() as http:
        nobody = replace(CASE.credential, api_base="http://127.0.0.1:1")
        [settled] = await SENDGRID.tell(http, nobody, [Telling("a@example.com", "12345", True)])
        assert settled == Settlement(Outcome.UNKNOWN, "no_answer")
        with pytest.raises(Unclear):
            [_ async for _ in SENDGRID.pull(http, nobody, "12345")]


BROKEN = {
    "cut": Reply(b'["a@example.com", "b@exam'),
    "open": Reply(b'["a@example.com"'),
    "empty": Reply(b""),
    "page": Reply(b"<html>", type="text/html"),
    "object": reply({"result": []}),
    "objects": reply([{"email": "a@example.com"}]),
    "500": reply(["a@example.com"], 500),
    "206": reply(["a@example.com"], 206),
    "302": reply(["a@example.com"], 302, Location="/elsewhere"),
    "html": reply(["a@example.com"], type="text/html"),
}


@pytest.mark.parametrize("held", BROKEN.values(), ids=BROKEN)
async def test_a_listing_that_is_not_whole_is_no_listing(held: Reply) -> None:
    async with answering(echo([]), held=held) as scripted:
        with pytest.raises(Unclear):
            await scripted.pulled()


async def test_a_long_listing_comes_whole() -> None:
    everyone = [f"person{n}@example.com" for n in range(50_000)]
    async with answering(echo([]), held=reply(everyone)) as scripted:
        assert await scripted.pulled() == [Listed(each, "12345") for each in everyone]
