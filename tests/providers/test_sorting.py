"""What a delivery told, sorted."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mailprefs.providers import reading
from mailprefs.providers.base import MOVING, Kept
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.words import Event, Kind

from .cases import RECEIVED


@pytest.mark.parametrize("kind", Kind)
def test_a_kind_becomes_an_event_only_if_it_can_change_a_standing(kind: Kind) -> None:
    assert place("word", kind) == (kind if kind in MOVING else Counted(kind.value))


def test_a_word_with_a_reason_is_counted_and_one_without_is_unknown() -> None:
    assert place("opened", "engagement is no consent") == Counted("opened")
    assert place("teleported", None) == "unknown_kind"


def _read(told: Mapping[str, object]) -> Event | Counted | str:
    match told.get("event"):
        case "stop":
            return Event(Kind.UNSUBSCRIBED, "1", RECEIVED, "alex@example.com")
        case "open":
            return Counted("opened")
    return "unknown_kind"


def test_each_value_is_sorted_by_itself_and_what_is_not_read_is_kept_as_it_came() -> None:
    body = b'[{"event": "stop"}, {"event": "open"} , {"event": NaN}, {"event": "new"}, 7, {"event": "open"}]'
    heard = sort(reading.batch(body), _read)
    assert [event.kind for event in heard.events] == [Kind.UNSUBSCRIBED]
    assert heard.counted == {"opened": 2}
    assert heard.kept == (
        Kept("unreadable", b'{"event": NaN}'),
        Kept("unknown_kind", b'{"event": "new"}'),
        Kept("no_object", b"7"),
    )
