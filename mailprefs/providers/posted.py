"""Forms as providers post them: read as one event, or signed together with the address that they are posted to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from mailprefs.errors import Forged, Misconfigured, Unreadable
from mailprefs.providers import reading
from mailprefs.providers.base import Credential, Delivery

_FORM = "application/x-www-form-urlencoded"
_WHOLE = re.compile(r"https?://[!-\"$-~]+")  # printable ASCII without a fragment, which no request carries


def event(delivery: Delivery) -> reading.Batch:
    """Read a form that tells one event: its fields by name, without those that came with more than one value. Never raises.

    An empty form tells nothing. One without a content type is read as any browser would have sent it.
    """
    try:
        fields = reading.form(delivery.body, delivery.header("Content-Type") or _FORM)
    except Unreadable:
        return reading.Batch([], [("unreadable", delivery.body)])
    times = Counter(name for name, _ in set(fields))
    found = {name: text for name, text in fields if times[name] == 1}
    return reading.Batch([found] if fields else [], whole=delivery.body, pieces=[delivery.body])


def octets(delivery: Delivery) -> list[tuple[bytes, bytes]]:
    """Return the fields of a form for a verifier. Raises Forged: what cannot be read cannot have been signed field by field."""
    try:
        return reading.octets(delivery.body, delivery.header("Content-Type") or _FORM)
    except Unreadable:
        raise Forged from None


def signed(url: str, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return what Mandrill and Twilio sign: the address, then each name with its value, sorted; the same twice counts once."""
    return url.encode("utf-8", "surrogatepass") + b"".join(name + text for name, text in sorted(set(fields)))


def public_url(credential: Credential) -> str:
    """Return the address that the account's deliveries are signed with, "" if none is set."""
    url = credential.options.get("public_url")
    return url if isinstance(url, str) else ""


def check_public_url(credential: Credential, advice: str) -> None:
    """Raise Misconfigured, which ends in the advice, unless the account says what address its deliveries are signed with."""
    if not _WHOLE.fullmatch(public_url(credential)):
        raise Misconfigured(
            f"Account '{credential.account}': public_url is missing, or is no whole address such as "
            f"https://go.example.com/hooks/{credential.account}. {advice}"
        )
