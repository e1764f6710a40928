"""MailerSend is heard: both versions of its events, and the ping that anyone can sign."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mailprefs.errors import Forged, Misconfigured
from mailprefs.providers.base import Credential, Delivery, Heard
from mailprefs.providers.mailersend import LONGEST_PING, PING_KEY, MailerSend
from mailprefs.words import Kind

from .case_mailersend import CASE, SECRET, SECRETS, TOLD, signer
from .cases import PAYLOADS, RECEIVED

MAILERSEND = MailerSend()
NAMED = dict(zip(MailerSend.kinds, TOLD, strict=True))
PING = (PAYLOADS / "mailersend" / "ping.json").read_bytes()


def heard(told: object) -> Heard:
    return MAILERSEND.parse(Delivery([], json.dumps(told).encode(), RECEIVED))


def said(told: object) -> list[tuple[str | None, Kind, str]]:
    return [(e.address, e.kind, e.detail) for e in heard(told).events]


def forged(delivery: Delivery) -> bool:
    try:
        MAILERSEND.verify(CASE.credential, delivery)
    except Forged:
        return True
    return False


def changed(name: str, **part: object) -> Any:
    return NAMED[name] | {"data": {key: value for key, value in (NAMED[name]["data"] | part).items() if value is not None}}


def test_both_versions_say_the_same() -> None:
    old = json.loads((PAYLOADS / "mailersend" / "version-1.json").read_bytes())
    assert [said(each) for each in old] == [
        [("test@example.com", Kind.BOUNCED_HARD, "5.1.1")],
        [("test@example.com", Kind.BOUNCED_SOFT, "")],
        [("test@example.com", Kind.UNSUBSCRIBED, "")],
        [("test@example.com", Kind.COMPLAINED, "")],
        [],
    ]
    assert said(NAMED["activity.hard_bounced"]) == [("test@example.com", Kind.BOUNCED_HARD, "550")]
    assert said(NAMED["activity.soft_bounced"]) == [("test@example.com", Kind.BOUNCED_SOFT, "4.2.2")]
    [event] = heard(old[0]).events
    assert event.happened_at == datetime(2026, 11, 20, 12, tzinfo=UTC)  # the activity's time, not the post's


def test_the_recipient_is_found_by_either_name() -> None:
    for part in (
        {"email": "alex@example.com", "recipient": None},
        {"recipient": "alex@example.com"},
        {"recipient": {"email": "alex@example.com"}},
    ):
        assert [address for address, _, _ in said(changed("activity.unsubscribed", **part))] == ["alex@example.com"]
    nobody: list[object] = ["", " ", [], {}, 7, {"email": ""}]
    for odd in nobody:
        told = heard(changed("activity.unsubscribed", recipient=odd))
        assert (told.events, [kept.reason for kept in told.kept]) == ((), ["no_recipient"])


def test_one_activity_is_one_event_and_another_kind_of_it_is_another() -> None:
    one, other = NAMED["activity.hard_bounced"], NAMED["activity.unsubscribed"]
    shared = other | {"data": other["data"] | {"id": one["data"]["id"]}}
    ids = [event.id for told in (one, one, other, shared) for event in heard(told).events]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    nameless = [changed("activity.unsubscribed", id=None, message_id=message) for message in ("m-1", "m-1", "m-2")]
    assert len({event.id for told in nameless for event in heard(told).events}) == 2


def test_what_is_left_is_all_that_the_domain_sends() -> None:
    [event] = heard(NAMED["activity.unsubscribed"]).events
    assert event.group is None


def test_a_hold_is_no_opt_out_and_its_end_lifts_nothing() -> None:
    assert dict(heard(NAMED["recipient.on_hold_added"]).counted) == {"dropped": 1}
    assert said(NAMED["recipient.on_hold_removed"]) == [("test@example.com", Kind.RESUBSCRIBED, "")]


# The ping


def test_a_ping_with_the_published_key_is_accepted_and_does_nothing() -> None:
    for sign in (signer(PING_KEY), signer(SECRET)):
        delivery = sign(PING)
        assert not forged(delivery)
        told = MAILERSEND.parse(delivery)
        assert (told.events, told.kept, dict(told.counted), told.once) == ((), (), {}, None)


def test_the_published_key_proves_nothing_but_a_ping() -> None:
    sign = signer(PING_KEY)
    for told in TOLD:
        assert forged(sign(json.dumps(told).encode()))
    for body in (
        b"",
        b"{}",
        b"[]",
        b"null",
        b"[" + PING + b"]",
        b'{"type": ["webhook.test"]}',
        b'{"type": "webhook.tests"}',
        b'{"type": "Webhook.test"}',
        b'{"type": "webhook.test "}',
        b'{"type": "webhook.test", "type": "activity.unsubscribed"}',
        b'{"type": "activity.unsubscribed", "type": "webhook.test"}',
        b'{"type": "activity.unsubscribed", "typ\\u0065": "webhook.test"}',
        b'{"data": {"type": "webhook.test"}}',
        PING[:-1],
        PING + b"x",
        PING.replace(b"}", b', "x": "' + b"y" * LONGEST_PING + b'"}'),
    ):
        assert forged(sign(body))
    assert not forged(sign(PING))  # the control
    assert forged(replace(sign(PING), headers=[("Signature", "0" * 64)]))
    assert forged(signer("nobody's")(PING))


def test_whatever_a_ping_says_beside_it_does_nothing() -> None:
    stops = json.loads(PING) | {"data": NAMED["activity.unsubscribed"]["data"]}
    told = heard(stops)
    assert (told.events, told.kept, dict(told.counted)) == ((), (), {})
    assert heard(stops | {"type": "activity.unsubscribed"}).events  # the control


def test_the_published_key_is_no_secret_of_an_account() -> None:
    for secrets in ({"webhook_secret": PING_KEY}, SECRETS | {"webhook_secret_next": PING_KEY}):
        with pytest.raises(Misconfigured, match="which everyone knows"):
            MAILERSEND.check(Credential("mailersend-main", secrets))
    MAILERSEND.check(Credential("mailersend-main", SECRETS))  # the control


def test_the_signature_is_hex_in_lower_case_and_nothing_else() -> None:
    delivery = signer(SECRET)(PING)
    proof = delivery.header("Signature") or ""
    for other in (proof.upper(), f"sha256={proof}", f"v1={proof}", proof[:-1], proof + "0"):
        assert forged(replace(delivery, headers=[("Signature", other)]))
    assert forged(replace(delivery, headers=[("X-MailerSend-Signature", proof)]))
