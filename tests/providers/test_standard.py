"""Anyone who keeps to Standard Webhooks is heard in our own words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mailprefs.providers.base import MOVING, Heard
from mailprefs.providers.standard import Standard
from mailprefs.words import Kind

from .cases import DOCS, RECEIVED
from .svix_sender import posted

STANDARD = Standard()
LEFT = {"type": "unsubscribed", "timestamp": "2026-11-20T20:26:10Z", "data": {"address": "alex@example.com", "id": "e-1", "group": "news"}}


def heard(told: object, age: timedelta = timedelta(0), id_: str = "msg_1") -> Heard:
    return STANDARD.parse(posted(json.dumps(told).encode(), prefix="webhook", id_=id_, at=RECEIVED - age))


def with_part(**part: object) -> dict[str, Any]:
    return LEFT | {"data": {"address": "alex@example.com", "id": "e-1", "group": "news"} | part}


def test_one_event_or_an_array_of_them() -> None:
    [event] = heard(LEFT).events
    assert (event.kind, event.address, event.group) == (Kind.UNSUBSCRIBED, "alex@example.com", "news")
    assert heard([LEFT]).events == (event,)
    assert len(heard([LEFT, with_part(id="e-2"), 7]).events) == 2
    assert [kept.reason for kept in heard([LEFT, 7]).kept] == ["no_object"]


def test_every_kind_of_ours_is_a_word_of_theirs() -> None:
    assert set(STANDARD.kinds) == {kind.value for kind in Kind}
    for kind in Kind:
        told = heard({"type": kind.value, "data": {"address": "alex@example.com"}})
        assert ([event.kind for event in told.events], dict(told.counted)) == (([kind], {}) if kind in MOVING else ([], {kind.value: 1}))


def test_what_was_left_is_a_group_or_everything() -> None:
    groups: list[tuple[object, str | None]] = [("news", "news"), (None, None), ("", ""), (" ", ""), (7, ""), (["news"], ""), ({}, "")]
    for written, group in groups:
        assert [event.group for event in heard(with_part(group=written)).events] == [group]
    [event] = heard(LEFT | {"type": "complained"}).events
    assert event.group is None  # a complaint is about all marketing


def test_a_token_or_an_address_is_wanted() -> None:
    assert [(e.address, e.token) for e in heard(with_part(address=None, token="our-token")).events] == [(None, "our-token")]
    assert [(e.address, e.token) for e in heard(with_part(token="our-token")).events] == [("alex@example.com", "our-token")]
    nobody: list[object] = [{}, None, [], "alex@example.com", {"address": ""}, {"address": ["alex@example.com"]}]
    for part in nobody:
        told = heard(LEFT | {"data": part})
        assert (told.events, [kept.reason for kept in told.kept]) == ((), ["no_recipient"])


@pytest.mark.parametrize("written", ["2026-11-20T20:26:10Z", "2026-11-20T21:26:10+01:00", "2026-11-20T20:26:10.000000+00:00", 1795206370])
def test_a_moment_is_iso_8601_or_unix_seconds(written: object) -> None:
    [event] = heard(LEFT | {"timestamp": written}).events
    assert event.happened_at == datetime(2026, 11, 20, 20, 26, 10, tzinfo=UTC)


def test_an_event_is_known_by_its_id_and_else_by_the_message_it_came_in() -> None:
    assert len({event.id for id_ in ("msg_1", "msg_2") for event in heard(LEFT, id_=id_).events}) == 1
    nameless = with_part(id=None)
    assert len({event.id for id_ in ("msg_1", "msg_1", "msg_2") for event in heard(nameless, id_=id_).events}) == 2
    several = [with_part(), with_part(group="offers"), with_part(address="b@example.com"), with_part() | {"type": "complained"}]
    assert len({event.id for event in heard(several).events}) == 4  # one id for all of a message is no reason to lose one


def test_what_is_late_may_stop_and_nothing_else() -> None:
    late = timedelta(days=30)
    for kind in MOVING:
        told = heard(LEFT | {"type": kind.value}, late)
        lifting = kind in (Kind.RESUBSCRIBED, Kind.COMPLAINT_RETRACTED)
        assert ([event.kind for event in told.events], [kept.reason for kept in told.kept]) == (
            ([], ["stale"]) if lifting else ([kind], [])
        )


def test_the_example_of_the_page_is_heard_as_it_says() -> None:
    page = (DOCS / "standard.md").read_text(encoding="utf-8")
    example = page.partition("```json\n")[2].partition("```")[0]
    told = STANDARD.parse(posted(example.encode(), prefix="webhook"))
    assert [(e.kind, e.address, e.group, e.detail) for e in told.events] == [
        (Kind.UNSUBSCRIBED, "alex@example.com", "newsletter", ""),
        (Kind.BOUNCED_HARD, "sam@example.com", None, "5.1.1"),
    ]
    assert not told.kept
