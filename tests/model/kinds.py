"""The kinds of Change that histories are made of: eleven for every short history there is, more for the random long ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from .oracle import (
    ADS,
    BOUNCE,
    BRAND,
    CARE,
    CHOICE,
    COMPLAINT,
    GO,
    GRANT,
    INVALID,
    MARKETING,
    MINOR,
    MINUTE,
    NEWSLETTER,
    NOTE,
    OFFERS,
    ORDERS,
    PARTNERS,
    PAUSE,
    ROOT,
    SOFT,
    STAFF,
    STOP,
    STUDIES,
    WITHDRAW,
    Change,
    Row,
    can_be_undone,
)

EPOCH = 1_700_000_000 * 1_000_000  # when every history begins, in microseconds
TICK = 11 * MINUTE  # between two steps: an undo reaches back two of them

TELLER = "sendgrid-main"  # the account behind the provider's Changes

Kind = Callable[[int, int, tuple[Row, ...]], Change]  # (step, now, history)


def _kind(scope: int, cause: str, effect: str, door: str, dated: int = 0, lasting: int | None = None, by: str | None = None) -> Kind:
    """A Change of this shape, dated so many ticks after now and, where it ends by itself, lasting so many."""

    def change(step: int, now: int, history: tuple[Row, ...]) -> Change:
        until = None if lasting is None else now + lasting * TICK
        return Change(scope, cause, effect, door, str(step), now + dated * TICK, until, by)

    return change


def _undo(step: int, now: int, history: tuple[Row, ...]) -> Change:
    """Takes back the latest stop of a page that still can be; where there is none, a press that is still on its way."""
    presses = [row for row in history if row.effect == STOP and can_be_undone(row, now)]
    if presses:
        return Change(presses[-1].scope, presses[-1].cause, WITHDRAW, presses[-1].door, presses[-1].evidence, now)
    return Change(MARKETING, CHOICE, WITHDRAW, "page", f"page:{step + 1}", now)


# Eleven, so that every clause is at work in some history: an own act against one dated before, at and after it; ties of a choice and
# of a bounce; a claim about the future; both nodes that a choice sits on; a cause that lasts, one that is lifted, one that ends; an undo.
ELEVEN: dict[str, Kind] = {
    "link stops newsletter": _kind(NEWSLETTER, CHOICE, STOP, "link"),
    "page stops all marketing": _kind(MARKETING, CHOICE, STOP, "page"),
    "manage turns newsletter on": _kind(NEWSLETTER, CHOICE, GO, "manage"),
    "manage turns marketing on": _kind(MARKETING, CHOICE, GO, "manage"),
    "provider's unsubscribe, two ticks late": _kind(NEWSLETTER, CHOICE, STOP, "provider", dated=-2, by=TELLER),
    "complaint": _kind(MARKETING, COMPLAINT, STOP, "provider", by=TELLER),
    "bounce, a tick late": _kind(ROOT, BOUNCE, STOP, "provider", dated=-1, by=TELLER),
    "staff lift the bounce, dated in the future": _kind(ROOT, BOUNCE, GO, "staff", dated=5),
    "import of a consent": _kind(NEWSLETTER, CHOICE, GRANT, "import", dated=-1),
    "newsletter paused for two ticks": _kind(NEWSLETTER, PAUSE, STOP, "manage", lasting=2),
    "undo": _undo,
}

MORE: dict[str, Kind] = {
    **ELEVEN,
    "link stops offers": _kind(OFFERS, CHOICE, STOP, "link"),
    "link stops all marketing": _kind(MARKETING, CHOICE, STOP, "link"),
    "page stops newsletter": _kind(NEWSLETTER, CHOICE, STOP, "page"),
    "page stops partners": _kind(PARTNERS, CHOICE, STOP, "page"),
    "mail stops newsletter": _kind(NEWSLETTER, CHOICE, STOP, "mail", dated=-1),
    "staff record a stop of offers": _kind(OFFERS, CHOICE, STOP, "staff"),
    "reconciliation finds offers stopped": _kind(OFFERS, CHOICE, STOP, "reconcile", dated=-3),
    "provider's unsubscribe from all, dated in the future": _kind(MARKETING, CHOICE, STOP, "provider", dated=4, by=TELLER),
    "provider says resubscribed": _kind(NEWSLETTER, CHOICE, NOTE, "provider", by=TELLER),
    "manage turns offers on": _kind(OFFERS, CHOICE, GO, "manage"),
    "manage turns partners on": _kind(PARTNERS, CHOICE, GO, "manage"),
    "manage grants partners": _kind(PARTNERS, CHOICE, GRANT, "manage", dated=-1),
    "manage grants studies": _kind(STUDIES, CHOICE, GRANT, "manage"),
    "import of a consent to partners, dated in the future": _kind(PARTNERS, CHOICE, GRANT, "import", dated=9),
    "import of a consent to studies": _kind(STUDIES, CHOICE, GRANT, "import"),
    "marketing paused for one tick": _kind(MARKETING, PAUSE, STOP, "page", lasting=1),
    "newsletter paused for five ticks": _kind(NEWSLETTER, PAUSE, STOP, "page", lasting=5),
    "manage ends the pause": _kind(NEWSLETTER, PAUSE, GO, "manage"),
    "soft bounces, for three ticks": _kind(ROOT, SOFT, STOP, "provider", lasting=3, by=TELLER),
    "soft bounces told late, for one tick": _kind(ROOT, SOFT, STOP, "provider", dated=-2, lasting=1, by=TELLER),
    "invalid address": _kind(ROOT, INVALID, STOP, "import", dated=-1),
    "staff lift the invalid address": _kind(ROOT, INVALID, GO, "staff"),
    "complaint by mail, a tick late": _kind(MARKETING, COMPLAINT, STOP, "mail", dated=-1),
    "bounce by mail, three ticks late": _kind(ROOT, BOUNCE, STOP, "mail", dated=-3),
    "minor": _kind(MARKETING, MINOR, STOP, "import"),
    "minor, no targeted advertising": _kind(ADS, MINOR, STOP, "import"),
    "staff lift minor": _kind(MARKETING, MINOR, GO, "staff"),
    "staff hold offers": _kind(OFFERS, STAFF, STOP, "staff"),
    "staff lift offers": _kind(OFFERS, STAFF, GO, "staff", dated=-1),
    "staff hold orders": _kind(ORDERS, STAFF, STOP, "staff"),
    "staff lift orders": _kind(ORDERS, STAFF, GO, "staff"),
}

TEXTED: dict[str, Kind] = {
    **MORE,
    "STOP for all marketing": _kind(MARKETING, CHOICE, STOP, "sms", by="twilio"),
    "STOP for the brand": _kind(BRAND, CHOICE, STOP, "sms", by="twilio"),
    "STOP for messages about care": _kind(CARE, CHOICE, STOP, "sms", dated=-1, by="twilio"),
    "START for all marketing, a tick late": _kind(MARKETING, CHOICE, GO, "sms", dated=-1, by="twilio"),
    "START for the brand, three ticks late": _kind(BRAND, CHOICE, GO, "sms", dated=-3, by="twilio"),
    "START for messages about care": _kind(CARE, CHOICE, GO, "sms", by="twilio"),
    "START grants offers": _kind(OFFERS, CHOICE, GRANT, "sms", by="twilio"),
}


def moments(length: int, random: Random | None = None) -> Iterator[int]:
    """The time of each step: a tick apart, or with a clock that also stands still, jumps ahead and steps back."""
    now = EPOCH
    for _ in range(length):
        yield now
        now += TICK if random is None else random.choice((TICK, TICK, TICK, 0, 1, 4 * TICK, -TICK, -3 * TICK))
