"""Providers' own files of suppressions, recognised by their columns, and read as if they were ours.

Only what a provider documents, what its own tools read and write, or what several others read of it alike, is recognised; docs/imports.md
says where each is from. A row that says no lasting stop is refused with the reason. None of them lifts anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

from mailprefs.errors import Unreadable
from mailprefs.rows import ADDRESS, Row

Fields = Mapping[str, str]
LATEST = timezone(
    timedelta(hours=-12)
)  # where a clock without a zone may stand: a stop that is dated too late holds, and one too early may not
_WORD = re.compile(r"[A-Z_]+")
_SPARKPOST = {"Bounce Rule": "bounce", "Spam Complaint": "complaint"}
_MANDRILL = {"hard-bounce": "bounce", "spam": "complaint", "unsub": "choice", "custom": "choice"}
_KLAVIYO = {  # the gravest first: a row may name several
    "SPAM_COMPLAINT": "complaint",
    "UNSUBSCRIBED": "choice",
    "USER_SUPPRESSED": "choice",
    "HARD_BOUNCE": "bounce",
    "INVALID_EMAIL": "invalid",
}
_NO = frozenset({"", "0", "no", "false", "null", "none", "[]"})  # how a file says that something is not so
_REASONS = {
    "HardBounce": "bounce",
    "SpamComplaint": "complaint",
    "ManualSuppression": "choice",
    "BOUNCE": "bounce",
    "COMPLAINT": "complaint",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """How one kind of file is read: which columns it must have and may have, and what they say."""

    name: str
    must: frozenset[str]
    address: str
    cause: Callable[[Fields], str]  # "" where the row says no lasting stop
    at: str = ""  # the column of the time
    may: frozenset[str] | None = frozenset()  # None: any

    def is_of(self, columns: Collection[str]) -> bool:
        """True for the columns of such a file. One that may have any others, but calls a column ``address``, is ours."""
        found = frozenset(columns)
        return self.must <= found and (ADDRESS not in found if self.may is None else found <= self.must | self.may)


def _always(cause: str) -> Callable[[Fields], str]:
    return lambda _fields: cause


def _by(column: str, causes: Mapping[str, str], other: str = "") -> Callable[[Fields], str]:
    return lambda fields: causes.get(fields.get(column, "").strip(), other)


def _permanent(column: str) -> Callable[[Fields], str]:
    """A bounce, where a status or an SMTP code says that it lasts (RFC 3463 §2: 5.X.X; RFC 5321 §4.2.1: 5yz)."""
    return lambda fields: "bounce" if fields.get(column, "").strip().startswith("5") else ""


def _unless_no(column: str) -> Callable[[Fields], str]:
    """A choice, unless the column says that there is none: a word we do not know is a stop."""
    return lambda fields: "" if fields.get(column, "").strip().casefold() in _NO else "choice"


def _klaviyo(fields: Fields) -> str:
    """The gravest of what a profile's consent and its suppressions say."""
    consent, held = (fields.get(column, "").upper() for column in ("Email Marketing Consent", "Email Suppressions"))
    said = {consent.strip(), *_WORD.findall(held)}
    known = (cause for word, cause in _KLAVIYO.items() if word in said)
    return next(known, _unless_no("Email Suppressions")(fields))


def _columns(*names: str) -> frozenset[str]:
    return frozenset(names)


ORIGINS = (  # the first that fits
    Origin("sendgrid-bounces", _columns("status", "reason", "email", "created"), "email", _permanent("status"), "created"),
    Origin("sendgrid-spam-reports", _columns("ip", "email", "created"), "email", _always("complaint"), "created"),
    Origin("sendgrid-invalid", _columns("reason", "email", "created"), "email", _always("invalid"), "created"),
    Origin("sendgrid-unsubscribes", _columns("email", "created"), "email", _always("choice"), "created"),
    Origin("mailgun-bounces", _columns(ADDRESS, "code", "error", "created_at"), ADDRESS, _permanent("code"), "created_at"),
    Origin("mailgun-unsubscribes", _columns(ADDRESS, "tags", "created_at"), ADDRESS, _always("choice"), "created_at"),
    Origin(
        "postmark",
        _columns("EmailAddress", "SuppressionReason", "Origin", "CreatedAt"),
        "EmailAddress",
        _by("SuppressionReason", _REASONS),
        "CreatedAt",
    ),
    Origin("ses", _columns("EmailAddress", "Reason", "LastUpdateTime"), "EmailAddress", _by("Reason", _REASONS), "LastUpdateTime"),
    Origin(
        "sparkpost",
        _columns("recipient", "type"),
        "recipient",
        _by("source", _SPARKPOST, "choice"),
        "created",
        _columns("source", "description", "created", "updated", "transactional", "non_transactional", "list_id", "subaccount_id"),
    ),
    Origin(
        "mandrill",
        _columns("email", "reason", "detail", "created_at", "expires_at", "last_event_at"),
        "email",
        _by("reason", _MANDRILL),
        "created_at",
        _columns("subaccount", "expired", "sender"),
    ),
    Origin("mailchimp-unsubscribed", _columns("Email Address", "UNSUB_TIME"), "Email Address", _always("choice"), "UNSUB_TIME", None),
    Origin("mailchimp-cleaned", _columns("Email Address", "CLEAN_TIME"), "Email Address", _always("bounce"), "CLEAN_TIME", None),
    # Neither says when somebody left: Klaviyo's times may be those of an earlier consent, and Customer.io has none.
    Origin("klaviyo", _columns("Email", "Email Marketing Consent"), "Email", _klaviyo, may=None),
    Origin("customerio", _columns("email", "unsubscribed"), "email", _unless_no("unsubscribed"), may=None),
)  # fmt: skip


def recognised(columns: Collection[str]) -> Origin | None:
    """Return what kind of file these columns are of, None for ours and for what nobody documents."""
    return next((origin for origin in ORIGINS if origin.is_of(columns)), None)


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads rows of providers as rows of ours. ``marketing`` is where complaints sit, ``scope`` where choices do."""

    scope: str
    marketing: str

    def rows(self, found: Iterator[Row]) -> Iterator[Row]:
        """Give each row as one of ours, whatever kind it is of; ours are given as they are."""
        for row in found:
            origin = recognised(row.fields)
            yield row if row.wrong or origin is None else self._read(row, origin)

    def _read(self, row: Row, origin: Origin) -> Row:
        cause = origin.cause(row.fields)
        if not cause:
            return replace(row, wrong="it says no stop that lasts")
        if not row.fields[origin.address].strip():
            return replace(row, wrong=f"the column '{origin.address}' is empty or missing")
        scope = {"bounce": "*", "invalid": "*", "complaint": self.marketing}.get(cause, self.scope)
        try:
            at = moment(row.fields.get(origin.at, "")) if origin.at else None
        except Unreadable as error:
            return replace(row, wrong=str(error))
        fields = {ADDRESS: row.fields[origin.address], "scope": scope, "cause": cause, "evidence": origin.name}
        return replace(row, fields={**fields, "at": at.isoformat()} if at else fields)


def moment(text: str) -> datetime | None:
    """Return when something happened, however a provider writes it; None for nothing. A clock without a zone is taken for the latest.

    Raises Unreadable.
    """
    text = text.strip()
    if not text:
        return None
    try:
        if text.replace(".", "", 1).isdecimal():
            return datetime.fromtimestamp(float(text), UTC)
        at = parsedate_to_datetime(text) if text[:1].isalpha() else datetime.fromisoformat(text.removesuffix(" UTC"))
        zone = UTC if text.endswith(" UTC") else LATEST
        return at if at.tzinfo else at.replace(tzinfo=zone)
    except (ValueError, OverflowError, OSError, TypeError):
        raise Unreadable("its time cannot be read") from None
