"""The worked examples of the page on state, each held by the oracle and by the real ledger and rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from mailprefs import catalogue, numbers
from mailprefs.catalogue import Catalogue
from mailprefs.links import KeyRing
from mailprefs.words import Channel

from .kinds import EPOCH, TELLER
from .oracle import (
    BOUNCE,
    CARE,
    CHOICE,
    COMPLAINT,
    DAY,
    GO,
    GRANT,
    HOUR,
    MARKETING,
    MINUTE,
    NEWSLETTER,
    OFFERS,
    ORDERS,
    PARTNERS,
    PAUSE,
    ROOT,
    SMALL,
    STOP,
    WITHDRAW,
    Change,
    Reason,
)
from .system import Worlds, address, decide, instant, why

pytestmark = pytest.mark.spread

TEN = EPOCH - EPOCH % DAY + 10 * HOUR  # ten o'clock
LATER = TEN + 3 * HOUR
SURVEYS_IN_TOML = '[[brand.topic]]\nname = "surveys"\ntitle = "Surveys"\nnumber = 21\n\n'
SURVEYS = 277


@pytest.fixture
def worlds(conn: asyncpg.Connection, shared_catalogue: Catalogue) -> Worlds:
    return Worlds(conn, shared_catalogue)


async def newsletter_offers_receipt(worlds: Worlds, *, now: int = LATER) -> tuple[bool, bool, bool]:
    return await worlds.may(NEWSLETTER, now=now), await worlds.may(OFFERS, now=now), await worlds.may(ORDERS, now=now)


async def stop(worlds: Worlds, scope: int, at: int, door: str = "link", cause: str = CHOICE, *, now: int | None = None) -> Change:
    """A stop that happened at ``at``, and arrives then or ``now``."""
    change = Change(scope, cause, STOP, door, f"{cause} {at} {scope}", at, by=TELLER if door == "provider" else None)
    assert await worlds.tell(change, now=at if now is None else now) == (True,)
    return change


async def go(worlds: Worlds, scope: int, at: int, door: str = "manage", cause: str = CHOICE) -> None:
    assert await worlds.tell(Change(scope, cause, GO, door, f"go {at} {scope}", at), now=at) == (True,)


async def test_1_who_said_nothing_gets_what_needs_no_consent(worlds: Worlds) -> None:
    assert await newsletter_offers_receipt(worlds) == (True, True, True)


async def test_2_one_click_stops_one_topic(worlds: Worlds) -> None:
    await stop(worlds, NEWSLETTER, TEN)
    assert await newsletter_offers_receipt(worlds) == (False, True, True)


async def test_3_a_topic_chosen_back_after_stopping_everything_is_open_alone(worlds: Worlds) -> None:
    await stop(worlds, MARKETING, TEN, "page")
    await go(worlds, NEWSLETTER, TEN + 5 * MINUTE)
    assert await newsletter_offers_receipt(worlds) == (True, False, True)


async def test_4_stopping_everything_covers_a_topic_of_tomorrow(worlds: Worlds, tmp_path: Path, ring: KeyRing) -> None:
    await stop(worlds, MARKETING, TEN, "page")
    await go(worlds, NEWSLETTER, TEN + 5 * MINUTE)
    old = (Path(__file__).parent.parent / "catalogue.toml").read_text(encoding="utf-8")
    (tmp_path / "grown.toml").write_text(old.replace("[[account]]", SURVEYS_IN_TOML + "[[account]]", 1), encoding="utf-8")
    grown = catalogue.load(tmp_path / "grown.toml")
    await numbers.register(
        worlds.conn, grown, [key.id for key in ring.keys], {"sendgrid": Channel.EMAIL, "twilio": Channel.SMS}, now=instant(TEN)
    )
    worlds.catalogue = grown
    worlds.tree = replace(
        SMALL, paths={**SMALL.paths, SURVEYS: (*SMALL.paths[MARKETING], SURVEYS)}, wanted={**SMALL.wanted, SURVEYS: "opt-out"}
    )
    assert await newsletter_offers_receipt(worlds) == (True, False, True)
    assert not await worlds.may(SURVEYS, now=LATER)
    assert await worlds.may(SURVEYS, now=LATER, channel=Channel.SMS) is False


async def test_5_a_late_unsubscribe_does_not_undo_a_newer_go(worlds: Worlds) -> None:
    await go(worlds, NEWSLETTER, TEN + 5 * MINUTE)
    await stop(worlds, NEWSLETTER, TEN, "provider", now=TEN + 2 * HOUR)
    assert await newsletter_offers_receipt(worlds) == (True, True, True)


async def test_6_a_late_unsubscribe_that_is_newer_stops(worlds: Worlds) -> None:
    await go(worlds, NEWSLETTER, TEN + 5 * MINUTE)
    await stop(worlds, NEWSLETTER, TEN + 6 * MINUTE, "provider", now=TEN + 2 * HOUR)
    assert await newsletter_offers_receipt(worlds) == (False, True, True)


async def test_7_a_choice_does_not_lift_a_complaint(worlds: Worlds) -> None:
    await stop(worlds, MARKETING, TEN, "provider", COMPLAINT)
    await go(worlds, NEWSLETTER, TEN + HOUR)
    assert await newsletter_offers_receipt(worlds) == (False, False, True)


async def test_7_where_complaints_are_liftable_a_confirmed_opt_in_opens_its_topic_alone(worlds: Worlds) -> None:
    await stop(worlds, MARKETING, TEN, "provider", COMPLAINT)
    lifted = (
        Change(MARKETING, COMPLAINT, GO, "manage", "c1", TEN + HOUR),
        Change(MARKETING, CHOICE, STOP, "manage", "c2", TEN + HOUR),
        Change(NEWSLETTER, CHOICE, GO, "manage", "c3", TEN + HOUR),
    )
    assert await worlds.tell(*lifted, now=TEN + HOUR) == (True, True, True)
    assert await newsletter_offers_receipt(worlds) == (True, False, True)


async def test_8_a_hard_bounce_stops_everything(worlds: Worlds) -> None:
    await stop(worlds, ROOT, TEN, "provider", BOUNCE)
    assert await newsletter_offers_receipt(worlds) == (False, False, False)


async def test_9_a_corrected_bounce_leaves_the_choice(worlds: Worlds) -> None:
    await stop(worlds, ROOT, TEN, "provider", BOUNCE)
    await stop(worlds, NEWSLETTER, TEN + MINUTE)
    assert await newsletter_offers_receipt(worlds) == (False, False, False)
    await go(worlds, ROOT, TEN + HOUR, "staff", BOUNCE)
    assert await newsletter_offers_receipt(worlds) == (False, True, True)


async def test_10_an_undo_takes_back_its_own_press_and_leaves_the_mailbox_provider_s(worlds: Worlds) -> None:
    pressed = await stop(worlds, NEWSLETTER, TEN, "page")
    await stop(worlds, NEWSLETTER, TEN + MINUTE, "link")
    undo = replace(pressed, effect=WITHDRAW, id=pressed.evidence, happened_at=TEN + 2 * MINUTE)
    assert await worlds.tell(undo, now=TEN + 2 * MINUTE) == (True,)
    assert await newsletter_offers_receipt(worlds) == (False, True, True)


async def test_10_an_undo_alone_opens_again(worlds: Worlds) -> None:
    """The control: without the mailbox provider's press the same undo opens the topic."""
    pressed = await stop(worlds, NEWSLETTER, TEN, "page")
    await worlds.tell(replace(pressed, effect=WITHDRAW, id=pressed.evidence, happened_at=TEN + MINUTE), now=TEN + MINUTE)
    assert await newsletter_offers_receipt(worlds) == (True, True, True)


async def test_11_an_import_of_consents_lifts_nothing(worlds: Worlds) -> None:
    await stop(worlds, NEWSLETTER, TEN)
    await worlds.tell(Change(NEWSLETTER, CHOICE, GRANT, "import", "row 1", TEN + HOUR), now=TEN + HOUR)
    assert await newsletter_offers_receipt(worlds) == (False, True, True)


async def test_12_a_pause_ends_by_itself(worlds: Worlds) -> None:
    await worlds.tell(Change(NEWSLETTER, PAUSE, STOP, "page", "p", TEN, until=TEN + 30 * DAY), now=TEN)
    assert await newsletter_offers_receipt(worlds, now=TEN + 30 * DAY - 1) == (False, True, True)
    assert await newsletter_offers_receipt(worlds, now=TEN + 30 * DAY) == (True, True, True)
    assert await newsletter_offers_receipt(worlds, now=TEN + 31 * DAY) == (True, True, True)


async def test_13_stop_to_the_number_of_one_programme_ends_that_programme_by_text_alone(worlds: Worlds) -> None:
    await worlds.tell(Change(CARE, CHOICE, STOP, "sms", "SM1", TEN), now=TEN, channel=Channel.SMS)
    assert not await worlds.may(CARE, now=LATER, channel=Channel.SMS)
    assert await worlds.may(ORDERS, now=LATER, channel=Channel.SMS)
    assert await worlds.may(CARE, now=LATER)


async def test_14_a_go_on_marketing_lifts_that_node_only(worlds: Worlds) -> None:
    await stop(worlds, OFFERS, TEN)
    await stop(worlds, MARKETING, TEN + MINUTE)
    assert await newsletter_offers_receipt(worlds) == (False, False, True)
    await go(worlds, MARKETING, TEN + HOUR)
    assert await newsletter_offers_receipt(worlds) == (True, False, True)


async def test_15_an_opt_in_topic_without_a_grant_lacks_consent(worlds: Worlds) -> None:
    assert not await worlds.may(PARTNERS, now=LATER)
    ((decision,),) = await decide(worlds.conn, worlds.catalogue, [address("someone")], [PARTNERS], LATER)
    assert why(decision, worlds.catalogue) == {Reason(PARTNERS, "consent_missing")}
    await worlds.tell(Change(PARTNERS, CHOICE, GRANT, "import", "row 1", TEN), now=TEN)
    assert await worlds.may(PARTNERS, now=LATER)
