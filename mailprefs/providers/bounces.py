"""What a bounce comes to in the words of Amazon SES, which are also those of a provider that sends through it."""

from __future__ import annotations

from collections.abc import Mapping

from mailprefs.providers import facts
from mailprefs.words import Kind

BOUNCES: Mapping[str, Kind] = {  # its type / its subtype
    "Permanent/General": Kind.BOUNCED_HARD,
    "Permanent/NoEmail": Kind.BOUNCED_HARD,
    "Permanent/Suppressed": Kind.DROPPED,  # held back for what SES or the account knew before: an echo
    "Permanent/OnAccountSuppressionList": Kind.DROPPED,
    "Transient/General": Kind.BOUNCED_SOFT,
    "Transient/MailboxFull": Kind.BOUNCED_SOFT,
    "Transient/MessageTooLarge": Kind.BLOCKED,
    "Transient/ContentRejected": Kind.BLOCKED,
    "Transient/AttachmentRejected": Kind.BLOCKED,
    "Undetermined/Undetermined": Kind.BOUNCED_SOFT,
}


def kind(type_: object, subtype: object, status: str) -> Kind | None:
    """Return what a bounce is; None for a type that is not known. Of an unknown subtype, hard only on evidence against the address.

    A send to someone who opted out of a topic "will bounce" as well, and no page says with which subtype (docs/providers/ses.md): what is
    permanent for an unknown reason is blocked, which stops nobody, and not soft, which would come to hold their receipts.
    """
    if known := BOUNCES.get(f"{type_}/{subtype}"):
        return known
    if type_ == "Permanent":
        return Kind.BOUNCED_HARD if status in facts.NO_SUCH_MAILBOX else Kind.BLOCKED
    return Kind.BOUNCED_SOFT if type_ in ("Transient", "Undetermined") else None
