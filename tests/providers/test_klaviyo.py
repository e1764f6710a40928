"""Klaviyo is heard: by either account of what it signs, and by the addresses behind its profiles."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from mailprefs.errors import Forged, Misconfigured, Unavailable
from mailprefs.providers.base import Credential, Delivery, Heard, Resolving
from mailprefs.providers.calling import session
from mailprefs.providers.klaviyo import REVISION, SINGLY, TIMESTAMP, TOGETHER, UNRESOLVED, Klaviyo, Unresolved
from mailprefs.words import Kind

from .case_klaviyo import API_KEY, CASE, KEY, body_of, signer
from .cases import PAYLOADS, RECEIVED, with_header

KLAVIYO = Klaviyo()
PROFILE = "01KP4EGHH8QJ3N3AY2Z6V7RMDK"


def told(
    topic: str = "unsubscribed_from_email_marketing", profile: object = PROFILE, n: int = 1, **properties: object
) -> dict[str, object]:
    """Return an event as Klaviyo documents it: with a profile, and no address unless it stands among the properties."""
    about = {"timestamp": 1763801234, "event_properties": properties}
    payload = {"data": {"attributes": about, "relationships": {"profile": {"data": {"type": "profile", "id": profile}}}}}
    return {"external_id": f"e-{n}", "topic": f"event:klaviyo.{topic}", "payload": payload}


def listen(*events: object) -> Heard:
    return KLAVIYO.parse(Delivery([], body_of([json.dumps(event).encode() for event in events]), RECEIVED))


def accepted(delivery: Delivery) -> bool:
    try:
        KLAVIYO.verify(CASE.credential, delivery)
    except Forged:
        return False
    return True


# Who says it


@pytest.mark.parametrize(
    "timestamp",
    ["Sat, 22 Nov 2025 08:47:20 GMT", "1763801240", "1763801240123", "2026-04-13T22:49:36+00:00", "2026-04-13T22:49:36.101159Z"],
)
def test_either_account_of_what_is_signed_is_accepted(timestamp: str) -> None:
    body = body_of([CASE.tokened])
    assert accepted(signer(KEY, timestamp)(body))
    alone = signer(KEY, timestamp, body_alone=True)(body)
    assert accepted(alone)
    for delivery in (signer(KEY, timestamp)(body), alone):
        assert not accepted(replace(delivery, body=body.replace(b"t-1", b"t-2")))
        assert not accepted(with_header(delivery, "Klaviyo-Signature", "0" * 64))
    assert not accepted(signer("another-secret-key", timestamp, body_alone=True)(body))
    assert not accepted(with_header(signer(KEY, timestamp)(body), TIMESTAMP, "1763801241"))


@pytest.mark.parametrize(
    "timestamp", ["Sat, 22 Nov 2025 08:47:20 GMT", "1763801240123", "2026-04-13T22:49:36+00:00", "2026-04-13T22:49:36Z"]
)
def test_no_letter_can_be_moved_between_body_and_timestamp(timestamp: str) -> None:
    delivery = signer(KEY, timestamp)(body_of([CASE.tokened]))
    assert accepted(delivery)  # the control
    for n in range(1, len(timestamp) + 1):
        moved = replace(delivery, body=delivery.body + timestamp[:n].encode())
        assert not accepted(with_header(moved, TIMESTAMP, timestamp[n:]))
        assert not accepted(with_header(moved, TIMESTAMP, timestamp))
        assert not accepted(with_header(moved, TIMESTAMP))
        fewer = replace(delivery, body=delivery.body[:-n])
        assert not accepted(with_header(fewer, TIMESTAMP, delivery.body[-n:].decode() + timestamp))


# What it says


def test_an_address_is_taken_from_the_properties_else_from_the_profile_that_came_along() -> None:
    for name in ("email_address", "email", "Email", "Recipient Email Address"):
        brought: dict[str, Any] = {name: "alex@example.com"}
        assert [event.address for event in listen(told(**brought)).events] == ["alex@example.com"]
    strangers: tuple[dict[str, Any], ...] = ({"email": "no address"}, {"email": 7}, {"method_detail": "staff@example.org"})
    for properties in strangers:
        assert not listen(told(**properties)).events

    def along(*included: object, **properties: Any) -> list[str | None]:
        event = told(**properties)
        payload = event["payload"]
        assert isinstance(payload, dict)
        return [each.address for each in listen(event | {"payload": payload | {"included": included}}).events]

    profile = {"type": "profile", "id": PROFILE, "attributes": {"email": "alex@example.com"}}
    assert along(profile, {"type": "metric"}) == ["alex@example.com"]
    assert along(profile, email="other@example.com") == ["other@example.com"]
    for strange in (
        [profile | {"id": "ANOTHER"}],
        [profile, profile],
        [profile | {"attributes": None}],
        [profile | {"type": "metric"}],
        [],
    ):
        assert along(*strange) == []


def test_a_bounce_is_hard_only_where_it_says_so() -> None:
    for type_, kind in (
        ("Hard", Kind.BOUNCED_HARD),
        ("hard", Kind.BOUNCED_HARD),
        ("Soft", Kind.BOUNCED_SOFT),
        ("5.1.1", Kind.BOUNCED_SOFT),
        (None, Kind.BOUNCED_SOFT),
        (["hard"], Kind.BOUNCED_SOFT),
    ):
        said: dict[str, Any] = {"email": "alex@example.com", "Bounce Type": type_}
        [event] = listen(told("bounced_email", **said)).events
        assert event.kind is kind
    [event] = listen(told("bounced_email", email="alex@example.com")).events
    assert event.kind is Kind.BOUNCED_SOFT


def test_who_unsubscribes_leaves_all_marketing() -> None:
    [event] = listen(told(email="alex@example.com")).events
    assert (event.kind, event.group, event.id) == (Kind.UNSUBSCRIBED, None, "e-1")


def test_choices_that_this_account_cannot_place_are_kept_for_staff() -> None:
    for topic, reason in (("updated_email_preferences", "preferences"), ("unsubscribed_from_sms_marketing", "other_channel")):
        heard = listen(told(topic, email="alex@example.com"))
        assert (heard.events, [kept.reason for kept in heard.kept]) == ((), [reason])


@pytest.mark.parametrize(
    "topic",
    [
        "event:klaviyo.bounced_email/hard",
        "bounced_email",
        "event:klaviyo.event:klaviyo.bounced_email",
        "event:Shopify.bounced_email",
        "",
        None,
        7,
        ["event:klaviyo.bounced_email"],
    ],
)
def test_a_topic_is_known_by_its_whole_name(topic: object) -> None:
    heard = listen(told(email="alex@example.com") | {"topic": topic})
    assert (heard.events, [kept.reason for kept in heard.kept]) == ((), ["unknown_kind"])


def test_an_event_of_a_profile_alone_is_kept_as_it_came_and_knows_its_profile() -> None:
    heard = listen(told())
    [kept] = heard.kept
    assert isinstance(kept, Unresolved)
    assert (kept.reason, kept.profile, kept.event.kind, kept.event.address) == (UNRESOLVED, PROFILE, Kind.UNSUBSCRIBED, None)
    assert json.loads(kept.raw) == told()
    for strange in (None, "", 7, "../lists", "a b", "A" * 65, [PROFILE]):
        assert [each.reason for each in listen(told(profile=strange)).kept] == ["no_recipient"]


# Whom it means


@dataclass
class Profiles:
    """Klaviyo's profiles over real HTTP: what it holds, what it was asked, and a trouble that it answers with instead."""

    held: dict[str, str | None] = field(default_factory=lambda: {PROFILE: "alex@example.com"})
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    trouble: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        self.headers.append(dict(request.headers))
        if self.trouble:
            return await self.trouble(request)
        one = request.match_info.get("profile")
        if one and one not in self.held:
            return web.json_response({"errors": [{"status": 404}]}, status=404, content_type="application/vnd.api+json")
        wanted = [one] if one else json.loads(request.query["filter"].removeprefix("any(id,").removesuffix(")"))
        found = [{"type": "profile", "id": each, "attributes": {"email": self.held[each]}} for each in wanted if each in self.held]
        return web.json_response({"data": found[0] if one else found}, content_type="application/vnd.api+json")


@asynccontextmanager
async def at(profiles: Profiles) -> AsyncIterator[tuple[ClientSession, Credential]]:
    app = web.Application()
    app.router.add_get("/api/profiles/{profile}", profiles.answer)
    app.router.add_get("/api/profiles", profiles.answer)
    async with TestServer(app, host="127.0.0.1") as server, session(4) as http:
        yield http, replace(CASE.credential, api_base=str(server.make_url("")).rstrip("/"))


async def resolved(profiles: Profiles, heard: Heard, klaviyo: Klaviyo = KLAVIYO) -> Heard:
    async with at(profiles) as (http, credential):
        return await klaviyo.resolve(http, credential, heard)


def kinds(heard: Heard) -> Sequence[tuple[Kind, str | None]]:
    return [(event.kind, event.address) for event in heard.events]


def test_klaviyo_is_asked_for_addresses() -> None:
    assert isinstance(KLAVIYO, Resolving)


async def test_the_address_of_a_profile_takes_its_place_and_everything_else_stays() -> None:
    profiles = Profiles()
    heard = listen(
        told(n=1), told("marked_email_as_spam", n=2), told(n=3, email="kim@example.com"), told("opened_email", n=4), told("teleported", n=5)
    )
    after = await resolved(profiles, heard)
    assert sorted(kinds(after)) == [
        (Kind.COMPLAINED, "alex@example.com"),
        (Kind.UNSUBSCRIBED, "alex@example.com"),
        (Kind.UNSUBSCRIBED, "kim@example.com"),
    ]
    assert [event.id for event in after.events] == ["e-3", "e-1", "e-2"]
    assert ([kept.reason for kept in after.kept], after.counted) == (["unknown_kind"], heard.counted)
    assert profiles.asked == [f"/api/profiles/{PROFILE}?fields%5Bprofile%5D=email"]  # once for both, and no more than its address
    assert profiles.headers[0]["Authorization"] == f"Klaviyo-API-Key {API_KEY}"
    assert profiles.headers[0]["revision"] == REVISION


async def test_the_documented_answer_is_understood() -> None:
    body = (PAYLOADS / "klaviyo" / "profile.json").read_bytes()

    async def documented(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/vnd.api+json")

    assert kinds(await resolved(Profiles(trouble=documented), listen(told()))) == [(Kind.UNSUBSCRIBED, "alex@example.com")]


@pytest.mark.parametrize("held", [{}, {PROFILE: None}, {PROFILE: ""}, {PROFILE: " "}])
async def test_who_has_no_address_there_stays_kept_as_it_came(held: dict[str, str | None]) -> None:
    heard = listen(told(), told(n=2, email="kim@example.com"))
    assert await resolved(Profiles(held), heard) == heard


async def test_many_profiles_are_asked_for_together() -> None:
    for count, requests in ((1, 1), (SINGLY, SINGLY), (SINGLY + 1, 1), (TOGETHER, 1), (TOGETHER + 1, 2), (1_000, 40)):
        profiles = Profiles({f"P{n}": f"person{n}@example.com" for n in range(count) if n % 7})
        after = await resolved(profiles, listen(*(told(profile=f"P{n}", n=n) for n in range(count))))
        assert len(profiles.asked) == requests
        assert {(event.id, event.address) for event in after.events} == {
            (f"e-{n}", f"person{n}@example.com") for n in range(count) if n % 7
        }
        assert [kept.reason for kept in after.kept] == [UNRESOLVED] * len(range(0, count, 7))


async def test_without_an_api_key_nobody_is_asked_and_nothing_is_lost() -> None:
    profiles = Profiles()
    async with at(profiles) as (http, credential):
        heard = listen(told())
        assert await KLAVIYO.resolve(http, replace(credential, secrets={"webhook_secret": KEY}), heard) == heard
        nothing = listen(told(email="kim@example.com"))
        assert await KLAVIYO.resolve(http, credential, nothing) == nothing
    assert profiles.asked == []


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_klaviyo_refuses_keeps_everything_aside_under_that_name(status: int) -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    heard = listen(told(), told(n=2, email="kim@example.com"), told("teleported", n=3))
    after = await resolved(Profiles(trouble=refuse), heard)
    assert after.events == heard.events
    assert [(kept.reason, kept.raw) for kept in after.kept] == [("key_refused", heard.kept[0].raw), ("unknown_kind", heard.kept[1].raw)]


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def reset(request: web.Request) -> web.StreamResponse:
    assert request.transport
    request.transport.abort()
    return web.Response()


def answers(
    status: int, body: bytes = b"", type_: str = "application/vnd.api+json", **headers: str
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, content_type=type_, headers=headers)

    return answer


@pytest.mark.parametrize(
    "trouble",
    [
        hang,
        reset,
        answers(429),
        answers(500),
        answers(503),
        answers(302, Location="https://example.com/"),
        answers(200, b"<html>", "text/html"),
        answers(200, b"{"),
        answers(200, b'{"data": "\\u0000"}'),
        answers(200, b" " * 70_000),
        answers(204),
    ],
    ids=["hang", "reset", "429", "500", "503", "redirect", "page", "half", "NUL", "too long", "204"],
)
async def test_while_klaviyo_does_not_answer_it_is_asked_to_send_again(
    trouble: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> None:
    for count in (1, SINGLY + 1):
        with pytest.raises(Unavailable):
            await resolved(
                Profiles(trouble=trouble), listen(*(told(profile=f"P{n}", n=n) for n in range(count))), Klaviyo(timedelta(seconds=0.3))
            )


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        "x",
        [None],
        {"id": PROFILE},
        {"id": "ANOTHER", "attributes": {"email": "kim@example.com"}},
        {"id": PROFILE, "attributes": {"email": 7}},
    ],
)
async def test_an_answer_about_nobody_we_asked_for_resolves_nobody(data: object) -> None:
    heard = listen(told())
    assert await resolved(Profiles(trouble=answers(200, json.dumps({"data": data}).encode())), heard) == heard


def test_an_api_base_elsewhere_refuses_to_start() -> None:
    for sound in ("http://127.0.0.1:8025/klaviyo", "https://a.klaviyo.com"):
        KLAVIYO.check(replace(CASE.credential, api_base=sound))
    for strange in ("https://example.com", "http://a.klaviyo.com", "https://a.klaviyo.com.example.com", "http://10.0.0.1"):
        with pytest.raises(Misconfigured, match="api_base"):
            KLAVIYO.check(replace(CASE.credential, api_base=strange))


def test_an_api_key_that_is_none_refuses_to_start() -> None:
    for key in ("", "pk_short", "pk_" + "é" * 32):
        with pytest.raises(Misconfigured, match="api_key"):
            KLAVIYO.check(replace(CASE.credential, secrets=dict(CASE.credential.secrets) | {"api_key": key}))
