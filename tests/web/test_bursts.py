"""Many presses from one network within minutes are seen, and none is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mailprefs.web import bursts
from mailprefs.web.bursts import MANY, WITHIN, Bursts

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def pressed(seen: Bursts, presses: int, network: str = "203.0.113.0/24", apart: timedelta = timedelta(seconds=1)) -> list[bool]:
    return [seen.pressed(network, NOW + n * apart) for n in range(presses)]


def test_a_burst_is_told_once_at_the_press_that_makes_it_one() -> None:
    said = pressed(Bursts(), MANY * 2)
    assert [n for n, each in enumerate(said, 1) if each] == [MANY]


def test_as_many_people_over_hours_or_from_many_networks_are_no_burst() -> None:
    assert not any(pressed(Bursts(), MANY * 4, apart=WITHIN))
    seen = Bursts()
    assert not any(any(pressed(seen, MANY - 1, f"203.0.{n}.0/24")) for n in range(20))
    assert any(pressed(seen, 1, "203.0.7.0/24")), "the control: one more"


def test_a_clock_that_is_set_back_begins_anew() -> None:
    seen = Bursts()
    assert not any(pressed(seen, MANY - 1))
    assert not seen.pressed("203.0.113.0/24", NOW - timedelta(days=1))


def test_only_so_many_networks_are_remembered() -> None:
    seen = Bursts()
    for n in range(bursts.KEPT + 10):
        seen.pressed(f"2001:db8:{n:x}::/56", NOW)
    assert len(seen._seen) == bursts.KEPT
