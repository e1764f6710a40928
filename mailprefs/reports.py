"""What mail systems report by mail: bounces (RFC 3464, and what flufl.bounce recognises), complaints (RFC 5965), receipts.

A letter in, Events out, as from a provider. Whose mail it was says first our own token, then the field that is for it; where neither
tells, the report is kept aside and nobody is stopped.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from email import message_from_bytes
from itertools import islice
from typing import TYPE_CHECKING

from mailprefs import addresses, bodies, letters
from mailprefs.errors import Unreadable
from mailprefs.letters import Opened, field_of, fields, moment
from mailprefs.links import KeyRing
from mailprefs.providers.base import Heard, Kept
from mailprefs.providers.facts import NO_SUCH_MAILBOX, status
from mailprefs.words import Event, Kind

if TYPE_CHECKING:
    from mailprefs.letters import Part

RECIPIENTS = 100  # of one report: a message has no more (RFC 5321 §4.5.3.1.8)
RAW = 1 << 20  # octets of a letter that are kept aside
GUESSED = 64 * 1024  # octets of a bounce in no standard form that are looked at
LONGEST_LINE = 998  # octets of one line of it: some detectors take the square of its length

_STATUS_PARTS = ("message/delivery-status", "message/global-delivery-status")
_ACTIONS = {  # RFC 3464 §2.3.3; what has not failed for good changes nothing
    "delayed": Kind.DEFERRED,
    "delivered": Kind.DELIVERED,
    "relayed": "relayed",
    "expanded": "expanded",
}
_FEEDBACK: Mapping[str, Kind | str] = {  # RFC 5965 §7.3 and IANA's registry
    "abuse": Kind.COMPLAINED,
    "fraud": Kind.COMPLAINED,
    "miscategorized": Kind.COMPLAINED,
    "opt-out": Kind.UNSUBSCRIBED,  # of earlier drafts, still sent
    "opt-out-list": Kind.UNSUBSCRIBED,
    "not-spam": Kind.COMPLAINT_RETRACTED,
    "auth-failure": "auth-failure",  # RFC 6591: no person speaks
    "dmarc": "dmarc",
}
_MICROSOFT = "x-hmxmroriginalrecipient"  # in the message that Outlook.com's junk mail reports carry
_ADDRESS = re.compile(r"(?<![^\s<>;,])[^\s<>;,]+@[^\s<>;,@]+")
_REDACTED = re.compile(
    r"(?:[x*#_.-]+|.*redacted.*|hidden|removed|undisclosed.*|anonym.*|nobody)@.*|.*@(?:.*\.)?(?:invalid|redacted)", re.IGNORECASE
)
_XTEXT = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")  # RFC 6533 §3
_POSTMASTERS = re.compile(r"(?:mailer-?daemon|postmaster|mail-daemon|mdaemon|bounces?)\b", re.IGNORECASE)
_COPY = re.compile(  # where a bounce in no standard form begins to quote what came back
    r"^(?:-+ ?(?:below this line|this is a copy|original message|the header)|original message follows|return-path:|received:)",
    re.IGNORECASE | re.MULTILINE,
)
_CODE = re.compile(r"(?<![0-9.])[45]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.]*[0-9])")

logging.getLogger("flufl.bounce").setLevel(logging.CRITICAL + 1)  # it logs what it stumbles over, addresses and all


@dataclass(frozen=True, slots=True)
class _Told:
    """What one report says of one recipient."""

    kind: Kind
    address: str | None
    happened_at: datetime
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a mail system reports in a letter, whoever of its recipients it came to."""

    told: Sequence[_Told] = ()
    counted: Mapping[str, int] = field(default_factory=dict)
    aside: Sequence[str] = ()  # why a person should look at it


def read(opened: Opened, *, now: datetime) -> Report | None:
    """Return what a mail system reports in a letter; None for a letter in which no report can be found."""
    if opened.part("message/feedback-report"):
        return _complaint(opened, now)
    if opened.part(*_STATUS_PARTS):
        return _bounces(opened, now)
    if opened.part("message/disposition-notification"):
        return Report(counted={"disposition": 1})
    if to := [address for message in opened.carried for address in fields(message, _MICROSOFT)]:
        return Report([_Told(Kind.COMPLAINED, _whole(to), _sent(opened, now))])
    return _guessed(opened, now) if is_return(opened) else None


def aside(opened: Opened, reason: str) -> Kept:
    """Return the letter as it is kept aside."""
    return Kept(reason, opened.raw[:RAW])


# Bounces, RFC 3464


def _bounces(opened: Opened, now: datetime) -> Report:
    groups = [group for part in opened.parts if part.get_content_type() in _STATUS_PARTS for group in letters.blocks(part)]
    recipients = [group for group in groups if field_of(group, "final-recipient") or field_of(group, "original-recipient")]
    if len(recipients) > RECIPIENTS:
        return Report(aside=["too_many_recipients"])
    told, counted, reasons = list[_Told](), Counter[str](), Counter[str]()
    for group in recipients:
        action = field_of(group, "action").partition(" ")[0].strip(";()").lower()
        if action == "failed":
            told.append(_failed(group, opened, now))
        elif action in _ACTIONS:
            counted[_ACTIONS[action]] += 1
        else:
            reasons["unknown_action"] += 1
    if not recipients:
        reasons["no_recipient"] += 1
    return Report(told, counted, list(reasons))


def _failed(group: Part, opened: Opened, now: datetime) -> _Told:
    """Say what a failure is. The receiving server's own code, in the diagnosis, is finer than a status that says nothing."""
    code = status(field_of(group, "status"))
    if code[1:] in ("", ".0.0"):
        code = status(field_of(group, "diagnostic-code")) or code
    last = field_of(group, "last-attempt-date") or field_of(opened.top, "date")
    return _Told(severity(code), _recipient(group), moment(last, now), code)


def severity(code: str) -> Kind:
    """Return what a failure with this enhanced status code is (RFC 3463).

    Hard only where the code says that there is no such mailbox. A disabled mailbox (5.2.1) may come back, and Gmail says the same of one
    that is sent too much; a full one (5.2.2), a route, a policy say nothing about the address. Those count, and enough of them hold.
    """
    if code in NO_SUCH_MAILBOX:
        return Kind.BOUNCED_HARD
    return Kind.BLOCKED if code.startswith(("5.3.", "5.6.", "5.7.")) else Kind.BOUNCED_SOFT


def _recipient(group: Part) -> str | None:
    for name in ("original-recipient", "final-recipient"):
        for value in fields(group, name):
            kind, semicolon, text = value.rpartition(";")
            if semicolon and kind.strip().lower() == "utf-8":
                text = _XTEXT.sub(lambda found: chr(min(int(found[1], 16), 0x10FFFF)), text)
            if (not semicolon or kind.strip().lower() in ("rfc822", "utf-8")) and (address := _address(text)):
                return address
    return None


# Complaints, RFC 5965


def _complaint(opened: Opened, now: datetime) -> Report:
    part = opened.part("message/feedback-report")
    groups = letters.blocks(part) if part else []
    report = groups[0] if groups else opened.top
    meant = _FEEDBACK.get(field_of(report, "feedback-type").lower())
    if meant is None:  # also "virus" and "other": a person should look
        return Report(aside=["unknown_feedback"])
    if not isinstance(meant, Kind):
        return Report(counted={meant: 1})
    to = fields(report, "original-rcpt-to") or [to for message in opened.carried[:1] for to in fields(message, "to")]
    return Report([_Told(meant, _whole(to), _sent(opened, now))])


def _whole(to: Sequence[str]) -> str | None:
    """Return the one address that stands there; None for several, and for one that was made unreadable (RFC 6590)."""
    found = {address for value in to for address in _ADDRESS.findall(value)}
    one = next(iter(found)) if len(found) == 1 else ""
    return None if not one or _REDACTED.fullmatch(one) else one


# Bounces in no standard form


def is_return(opened: Opened) -> bool:
    """True for what a mail system wrote, whether or not it can be read."""
    if opened.comes_back or fields(opened.top, "x-failed-recipients"):
        return True
    if opened.top.get_content_type() == "multipart/report":
        return True
    return any(_POSTMASTERS.match(found) for found in _ADDRESS.findall(field_of(opened.top, "from")))


def _guessed(opened: Opened, now: datetime) -> Report | None:
    """Count the recipients that flufl.bounce finds as soft bounces: it takes a 4.x.x for permanent, so its word alone stops nobody."""
    gone, delayed = _found(opened)
    if not gone and not delayed:
        return None
    codes = {code for text in opened.texts for code in _CODE.findall(_COPY.split(text, maxsplit=1)[0])}
    hard = len(gone | delayed) == 1 and bool(codes) and codes <= NO_SUCH_MAILBOX
    kind, detail = (Kind.BOUNCED_HARD, min(codes)) if hard else (Kind.BOUNCED_SOFT, "")
    return Report([_Told(kind, address, _sent(opened, now), detail) for address in sorted(gone | delayed)[:RECIPIENTS]])


def _found(opened: Opened) -> tuple[set[str], set[str]]:
    from flufl.bounce import all_failures

    head = b"\n".join(line[:LONGEST_LINE] for line in opened.raw[:GUESSED].splitlines())
    try:
        delayed, gone = all_failures(message_from_bytes(head, policy=letters.CUT))
    except Exception:  # its detectors raise what they like on hostile bytes
        return set(), set()
    return _addresses(gone, head), _addresses(delayed, head)


def _addresses(found: frozenset[bytes], head: bytes) -> set[str]:
    """Return the addresses that stand in the letter so: some detectors join what a field folds, or drop a comment from within."""
    return {address for each in found if each in head and (address := _address(each.decode("utf-8", "replace")))}


# All of them


def heard(opened: Opened, report: Report, recipient: str, ring: KeyRing) -> Heard:
    """Return the Events of a report that came to this recipient.

    Where it is about one person, our token names whose mail it was; of several, each is its own.
    What comes back to an address with a token was sent to one person, and only the token says to whom: else anybody could report anyone.
    """
    told = report.told
    token = letters.sure(ring, _places(opened, recipient)) if len(told) == 1 else None
    if told and token is None and letters.tokenish(recipient):
        return Heard(kept=(aside(opened, "token_unreadable"),), counted=report.counted)
    events: dict[tuple[Kind, str], Event] = {}  # one for each kind and address: a letter that says a thing a hundred times says it once
    for n, each in enumerate(told):
        if token or each.address:
            event = Event(each.kind, f"{each.kind}-{n}-{opened.digest}", each.happened_at, each.address, token, detail=each.detail)
            events.setdefault((each.kind, _canonical(each.address)), event)
    nobody = any(token is None and not each.address for each in told)
    why = [*report.aside, *(["no_recipient"] if nobody else [])]
    return Heard(tuple(events.values()), tuple(aside(opened, reason) for reason in why[:1]), report.counted)


def _canonical(address: str | None) -> str:
    """Return what an address is known by, however it is spelled."""
    with suppress(Unreadable):
        return addresses.email(address or "")
    return (address or "").casefold()


def _places(opened: Opened, recipient: str) -> Iterator[Sequence[str]]:
    """Yield where our token may stand, the surest first: the address that the report came back to, the head that it returns, the body."""
    yield [recipient]
    for message in opened.carried[:1]:
        yield from letters.in_headers(message)
        yield [bodies.text_of(part) for part in islice(bodies.shown(message), letters.PARTS)]
    yield opened.texts


def _sent(opened: Opened, now: datetime) -> datetime:
    return moment(field_of(opened.top, "date"), now)


def _address(text: str) -> str | None:
    found = _ADDRESS.fullmatch(text.strip().strip("<>").strip())
    return found[0] if found else None
