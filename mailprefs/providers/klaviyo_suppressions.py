"""Klaviyo's suppressed profiles: whom it sends no marketing, for which reason, and how a job of ours changes that.

Its unsubscribe from a list is not used: whoever is not in that list would be unsubscribed from everything, and only a new consent
takes that back (KL-OAI, bulk_unsubscribe_profiles). A suppression of ours is taken back by ours alone, and touches no other reason.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from mailprefs.errors import Unreadable
from mailprefs.providers import facts, reading, telling
from mailprefs.providers.base import Barred, Listed, Outcome, Rejected, Settlement, Slow, Unclear
from mailprefs.providers.calling import PAGE, Answer, Line
from mailprefs.words import Kind

OURS = "USER_SUPPRESSED"
THEIRS: Mapping[str, Kind] = {"UNSUBSCRIBE": Kind.UNSUBSCRIBED, "SPAM_COMPLAINT": Kind.COMPLAINED}  # what a go of ours undoes not
LISTED: Mapping[str, Kind] = {OURS: Kind.UNSUBSCRIBED, **THEIRS}  # a bounce is no choice: it is heard, and not listed
CREATE, DELETE = "profile-suppression-bulk-create-job", "profile-suppression-bulk-delete-job"
JSON = frozenset({"application/vnd.api+json", "application/json"})
PROFILES = 100  # in one page of a listing, the most it gives
TOGETHER = 25  # addresses in one question, so that it stays a short one
WAITS = (0.0, 0.25, 0.5, 1.0)  # seconds before each look at what became of a job; later ones are the courier's
_FIELDS = "additional-fields%5Bprofile%5D=subscriptions&fields%5Bprofile%5D=email,subscriptions"

Reasons = Mapping[str, str]  # why a profile is suppressed → since when
Verdict = Callable[[Reasons], Settlement | None]  # None: not yet as it was told


async def stopped(line: Line, addresses: Sequence[str], settled: telling.Settled) -> None:
    """Have all of them suppressed, those that are no profiles yet as well, and look who is."""
    await _job(line, CREATE, addresses)
    await _look(line, addresses, settled, _stopped)


async def let_go(line: Line, addresses: Sequence[str], settled: telling.Settled) -> None:
    """Take back what is ours, and look who is free. Who left there by themselves has left."""
    _settle(await _reasons(line, addresses), addresses, settled, _free)
    if ours := [address for address in addresses if address not in settled]:
        await _job(line, DELETE, ours)
        await _look(line, ours, settled, _free)


async def listed(line: Line, group: str) -> AsyncIterator[Listed]:
    """Yield everyone who is suppressed by a choice, each once: for the first of the reasons that holds."""
    passed: set[str] = set()
    for reason, kind in LISTED.items():
        async for profile in _profiles(line, f'equals(subscriptions.email.marketing.suppression.reason,"{reason}")'):
            address, reasons = facts.text(facts.within(profile, "attributes", "email")), _reasons_of(profile)
            if reason not in reasons:
                raise Unclear("other_shape")
            if address is not None and not passed & reasons.keys():  # some have a telephone number alone
                yield Listed(address, group, facts.dated(reasons[reason]), kind)
        passed.add(reason)


def _stopped(reasons: Reasons) -> Settlement | None:
    return telling.DONE if reasons.keys() & LISTED.keys() else None


def _free(reasons: Reasons) -> Settlement | None:
    if OURS in reasons:
        return None
    return Settlement(Outcome.REFUSED, "left_there") if reasons.keys() & THEIRS.keys() else telling.DONE


def _settle(found: Mapping[str, Reasons], addresses: Sequence[str], settled: telling.Settled, verdict: Verdict) -> None:
    settled |= {address: reached for address in addresses if (reached := verdict(found.get(address, {})))}


async def _look(line: Line, addresses: Sequence[str], settled: telling.Settled, verdict: Verdict) -> None:
    """Look what became of a job that was taken, until everybody is settled. Who is not after the last look may be, later."""
    left = list(addresses)
    for wait in WAITS:
        await asyncio.sleep(wait)
        try:
            found = await _reasons(line, left)
        except (Slow, Barred):
            raise Unclear("cut_short") from None  # the job may still run: that must be known before why anything waits
        _settle(found, left, settled, verdict)
        if not (left := [address for address in left if address not in settled]):
            return
    settled |= {address: Settlement(Outcome.UNKNOWN, "not_confirmed") for address in left}


async def _job(line: Line, kind: str, addresses: Sequence[str]) -> None:
    """Have a job taken. Raises Rejected if Klaviyo refuses it for something in it."""
    profiles = [{"type": "profile", "attributes": {"email": address}} for address in addresses]
    job = {"data": {"type": kind, "attributes": {"profiles": {"data": profiles}}}}
    answer = await line.call("POST", f"/api/{kind}s", json=job)
    if answer.status in telling.REFUSED:
        raise Rejected(f"Klaviyo refused a request with status {answer.status}.")
    if not facts.text(facts.within(_json(answer, 202), "data", "id")):
        raise Unclear("other_shape")


async def _reasons(line: Line, addresses: Sequence[str]) -> dict[str, Reasons]:
    """Return why each of these is suppressed; who is no profile is not in it."""
    wanted = {address.casefold(): address for address in addresses}
    found: dict[str, Reasons] = {}
    for n in range(0, len(addresses), TOGETHER):
        some = ",".join(json.dumps(address, ensure_ascii=False) for address in addresses[n : n + TOGETHER])
        async for profile in _profiles(line, f"any(email,[{some}])"):
            address = wanted.get((facts.text(facts.within(profile, "attributes", "email")) or "").casefold())
            if address is None:
                raise Unclear("other_profile")
            found[address] = {**found.get(address, {}), **_reasons_of(profile)}
    return found


def _reasons_of(profile: object) -> Reasons:
    """Return why a profile gets no marketing by e-mail. Raises Unclear for one that does not say."""
    subscriptions = facts.within(profile, "attributes", "subscriptions")
    suppression = facts.within(subscriptions, "email", "marketing", "suppression")
    if not isinstance(subscriptions, dict) or not isinstance(suppression, list | None):
        raise Unclear("other_shape")
    reasons = {facts.text(facts.within(each, "reason")): str(facts.within(each, "timestamp")) for each in suppression or []}
    if None in reasons:
        raise Unclear("other_shape")
    return {reason: since for reason, since in reasons.items() if reason}


async def _profiles(line: Line, filter_: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the profiles that fit, over all pages. Raises Unclear if one is missing or is none."""
    path, cursor = f"/api/profiles?{_FIELDS}&filter={quote(filter_, safe='')}&page%5Bsize%5D={PROFILES}", ""
    while True:
        told = _json(await line.call("GET", path + cursor, most=PAGE), 200)
        profiles = facts.within(told, "data")
        if not isinstance(profiles, list) or not all(isinstance(each, dict) for each in profiles):
            raise Unclear("other_shape")
        for each in profiles:
            yield each
        before, cursor = cursor, _cursor(told)
        if not cursor:
            return
        if cursor == before:
            raise Unclear("other_page")


def _cursor(told: object) -> str:
    """Return what asks for the next page, "" behind the last one. Only the cursor of its address is taken, and never the address."""
    links = facts.within(told, "links")
    following = facts.within(links, "next")
    if not isinstance(links, dict) or not isinstance(following, str | None):
        raise Unclear("other_shape")
    if following is None:
        return ""
    try:
        [cursor] = parse_qs(urlsplit(following).query, strict_parsing=True)["page[cursor]"]
    except (ValueError, KeyError):
        raise Unclear("other_page") from None
    return f"&page%5Bcursor%5D={quote(cursor, safe='')}"


def _json(answer: Answer, status: int) -> Any:
    """Return the JSON of an answer that has the documented status and one of the types in which it comes. Raises Unclear."""
    if answer.status != status:
        raise answer.unclear
    if answer.type not in JSON:
        raise Unclear("no_json")
    try:
        return reading.value(answer.body)
    except Unreadable:
        raise Unclear("broken_json") from None
