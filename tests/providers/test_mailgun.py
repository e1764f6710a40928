"""Mailgun is heard: its proofs, its failures by reason, and the forms of before 2018."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import pytest

from mailprefs.errors import Forged
from mailprefs.providers.base import Credential, Delivery, Heard
from mailprefs.providers.mailgun import Mailgun
from mailprefs.words import Event, Kind

from .case_mailgun import CASE, KEY, STRANGE, TOKEN, posted, proof
from .cases import PAYLOADS, RECEIVED
from .test_promises import POISON, forged, spoiled

MAILGUN = Mailgun()
FAILED: dict[str, Any] = {
    "event": "failed",
    "severity": "permanent",
    "reason": "bounce",
    "id": "DACSsAdVSeGpLid7TN03WA",
    "recipient": "gone@example.com",
    "timestamp": 1700000000.329574,
    "delivery-status": {"code": 550, "message": "5.1.1 The email account that you tried to reach\n5.1.1 does not exist"},
}
Fields = Sequence[tuple[str, str]]
FORMS: list[Fields] = [list(map(tuple, fields)) for fields in json.loads((PAYLOADS / "mailgun" / "forms.json").read_bytes())]
FORM = "application/x-www-form-urlencoded"


def heard(told: object) -> Heard:
    return MAILGUN.parse(posted(json.dumps({"signature": proof(KEY), "event-data": told}).encode()))


def event(told: object) -> Event:
    [found] = heard(told).events
    return found


def form(fields: Fields, key: str = KEY) -> Delivery:
    """Return a form with its proof behind its other fields."""
    signed = [*fields, *proof(key).items()]
    return Delivery([("Content-Type", FORM)], urlencode(signed).encode(), RECEIVED)


def multipart(fields: Fields, boundary: str, *more: str) -> Delivery:
    """Return the same form in parts, and more parts as they stand."""
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}' for name, text in [*fields, *proof(KEY).items()]]
    body = "".join(f"--{boundary}\r\n{part}\r\n" for part in [*parts, *more]) + f"--{boundary}--\r\n"
    return Delivery([("Content-Type", f"multipart/form-data; boundary={boundary}")], body.encode(), RECEIVED)


# Who says it


def test_a_proof_that_openssl_made_is_accepted() -> None:
    signature = "8bb42775519b195d8e9098d4e1c6a91ec89daceb2840fa66012a769a4422c877"
    made = {"timestamp": "1529006854", "token": TOKEN, "signature": signature}
    body = json.dumps({"signature": made, "event-data": FAILED}).encode()
    MAILGUN.verify(Credential("mailgun-main", {"webhook_key": "mailgun-signing-key-0123456789"}), posted(body))


def test_a_digit_moved_between_time_and_token_is_forged() -> None:
    made = proof(KEY)
    whole = made["timestamp"] + made["token"]
    for length in (0, 9, 11, 60):
        moved = made | {"timestamp": whole[:length], "token": whole[length:]}
        assert forged(CASE, posted(json.dumps({"signature": moved, "event-data": FAILED}).encode()))
    assert not forged(CASE, posted(json.dumps({"signature": made, "event-data": FAILED}).encode()))  # the control


def test_a_parents_signature_does_not_matter_and_proves_nothing() -> None:
    for parent in (proof(KEY, "another-token"), proof(STRANGE), None, "x"):
        beside = {"signature": proof(KEY), "parent-signature": parent, "event-data": FAILED}
        assert not forged(CASE, posted(json.dumps(beside).encode()))
        for alone in ({"signature": proof(STRANGE)}, {}):
            assert forged(CASE, posted(json.dumps(alone | {"parent-signature": proof(KEY), "event-data": FAILED}).encode()))


def test_two_proofs_are_none() -> None:
    one = json.dumps(proof(KEY))
    for body in (
        f'{{"signature": {one}, "signature": {one}, "event-data": {{}}}}',
        f'{{"signature": [{one}]}}',
        f'{{"x": {{"signature": {one}}}}}',
    ):
        assert forged(CASE, posted(body.encode()))


def test_the_proof_counts_once_for_one_body() -> None:
    delivery = CASE.sign(CASE.body([CASE.tokened]))
    other = replace(delivery, body=delivery.body.replace(b"alex@", b"sam@"))
    once, of_other = MAILGUN.parse(delivery).once, MAILGUN.parse(other).once
    assert not forged(CASE, other)  # nothing but this stands against it
    assert once
    assert of_other
    assert (once.nonce, once.digest) == (TOKEN, sha256(delivery.body).digest())
    assert (of_other.nonce == once.nonce, of_other.digest == once.digest) == (True, False)
    assert MAILGUN.parse(delivery).once == once


def test_a_proof_that_tells_nothing_is_used_up_all_the_same() -> None:
    for told in (b'{"event-data": null}', b'{"event-data": {"event": NaN}}', b'{"x": 1}'):
        found = MAILGUN.parse(CASE.sign(told))
        assert found.once
        assert found.once.nonce == TOKEN


@pytest.mark.parametrize("member", POISON.values(), ids=POISON)
def test_poison_beside_a_proof_is_proven_and_kept(member: bytes) -> None:
    poison = spoiled(CASE.tokened, member)
    for body in (CASE.body([poison]), CASE.body([poison])[:-5]):
        signed = CASE.sign(body)
        assert not forged(CASE, signed)
        assert [kept.reason for kept in MAILGUN.parse(signed).kept] == ["unreadable"]
    backwards = posted(b'{"event-data": ' + poison + b', "signature": ' + json.dumps(proof(KEY)).encode() + b"}")
    assert not forged(CASE, backwards)


def test_mailgun_is_never_answered_406() -> None:
    assert 406 not in (MAILGUN.answers.forged, MAILGUN.answers.trouble, MAILGUN.answers.kept)  # it would end all retries


# What it says


def test_a_failure_says_who_when_and_why() -> None:
    found = event(FAILED)
    assert (found.kind, found.address, found.group, found.detail) == (Kind.BOUNCED_HARD, "gone@example.com", None, "5.1.1")
    assert found.happened_at == datetime(2023, 11, 14, 22, 13, 20, 329574, tzinfo=UTC)


@pytest.mark.parametrize("reason", ["old", "generic", "weather", "", None, 7, ["bounce"]])
def test_a_failure_for_good_for_another_reason_is_hard_only_on_evidence(reason: object) -> None:
    for status, kind in (
        ({"code": 550, "message": "5.1.1 no such user"}, Kind.BOUNCED_HARD),
        ({"code": 550, "enhanced-code": "5.1.2"}, Kind.BOUNCED_HARD),
        ({"code": 550, "message": "5.7.1 refused"}, Kind.BOUNCED_SOFT),
        ({"code": 550, "message": "no such user"}, Kind.BOUNCED_SOFT),
        (None, Kind.BOUNCED_SOFT),
    ):
        assert event(FAILED | {"reason": reason, "delivery-status": status}).kind is kind


def test_a_bounce_that_mailgun_calls_soft_is_soft() -> None:
    assert event(FAILED | {"delivery-status": {"code": 552, "bounce-type": "soft"}}).kind is Kind.BOUNCED_SOFT


def test_what_stands_on_its_lists_is_an_echo_by_reason_or_by_code() -> None:
    suppressed = [{"reason": f"suppress-{list_}"} for list_ in ("bounce", "complaint", "unsubscribe")]
    coded: list[dict[str, Any]] = [{"delivery-status": {"code": code, "message": "5.1.1"}} for code in (605, 606, 607, "605")]
    for change in (*suppressed, *coded):
        told = heard(FAILED | change)
        assert (told.events, told.kept, dict(told.counted)) == ((), (), {"dropped": 1})


def test_a_temporary_failure_is_counted_and_one_without_severity_kept() -> None:
    assert dict(heard(FAILED | {"severity": "temporary"}).counted) == {"deferred": 1}
    for severity in (None, "", "severe", 7, ["permanent"]):
        told = heard(FAILED | {"severity": severity})
        assert (told.events, [kept.reason for kept in told.kept]) == ((), ["unknown_kind"])


def test_who_unsubscribes_leaves_all_marketing_whatever_the_message_was_tagged_with() -> None:
    for tags in (["newsletter"], ["*"], [], "newsletter", None):
        assert event(FAILED | {"event": "unsubscribed", "tags": tags, "mailing-list": {"address": "list@example.org"}}).group is None


def test_an_id_is_one_within_its_day() -> None:
    day = 86_400
    same = {event(FAILED | {"timestamp": 1700000000.0 + seconds}).id for seconds in (0, 1, 3600)}
    assert len(same) == 1
    assert event(FAILED | {"timestamp": 1700000000.0 + day}).id not in same
    nameless = FAILED | {"id": None}
    others = (
        {"recipient": "b@example.com"},
        {"timestamp": 1700000001.0},
        {"message": {"headers": {"message-id": "2"}}},
        {"event": "complained"},
    )
    assert len({event(nameless | other).id for other in ({}, *others)}) == 5


def test_an_event_without_recipient_is_kept_unless_it_has_our_token() -> None:
    for nobody in (None, "", " ", ["a@example.com"]):
        assert [kept.reason for kept in heard(FAILED | {"recipient": nobody}).kept] == ["no_recipient"]
        found = event(FAILED | {"recipient": nobody, "user-variables": {"mailprefs": "our-token"}})
        assert (found.address, found.token) == (None, "our-token")


def test_a_body_without_one_event_is_kept() -> None:
    for told in (b"{}", b'{"event-data": {}, "event-data": {}}', b'{"event": "unsubscribed", "recipient": "a@example.com"}'):
        found = MAILGUN.parse(posted(told))
        assert (found.events, [kept.reason for kept in found.kept]) == ((), ["no_event"])


# The forms


def test_the_forms_of_before_2018_say_the_same() -> None:
    told = [MAILGUN.parse(form(fields)) for fields in FORMS]
    assert [(e.address, e.kind, e.token, e.detail) for each in told for e in each.events] == [
        ("gone@example.com", Kind.BOUNCED_HARD, "our-token", "5.1.1"),
        ("timed-out@example.com", Kind.BOUNCED_SOFT, None, ""),
        ("alex@example.com", Kind.COMPLAINED, "our-token", ""),
        ("alex@example.com", Kind.UNSUBSCRIBED, None, ""),
    ]
    assert [dict(each.counted) for each in told if each.counted] == [
        {"dropped": 1},
        {"dropped": 1},
        {"delivered": 1},
        {"opened": 1},
        {"clicked": 1},
    ]
    assert [[kept.reason for kept in each.kept] for each in told if each.kept] == [["unknown_kind"]]


@pytest.mark.parametrize("fields", FORMS, ids=range(len(FORMS)))
def test_a_form_is_proven_by_its_last_fields_of_the_proof(fields: Fields) -> None:
    for delivery in (form(fields), multipart(fields, "b-1")):
        assert not forged(CASE, delivery)
        assert MAILGUN.parse(delivery).once
        assert forged(CASE, replace(delivery, body=delivery.body.replace(TOKEN.encode(), TOKEN[::-1].encode())))
    assert forged(CASE, form(fields, STRANGE))
    assert forged(CASE, Delivery([("Content-Type", FORM)], urlencode(fields).encode(), RECEIVED))
    last = [*proof(KEY).items()]
    assert forged(CASE, Delivery([("Content-Type", FORM)], urlencode([*fields, *last, ("token", "x")]).encode(), RECEIVED))


def test_a_form_in_parts_says_the_same_with_files_and_any_boundary() -> None:
    file = 'Content-Disposition: form-data; name="attachment-1"; filename="a.eml"\r\nContent-Type: message/rfc822\r\n\r\nSubject: x'
    one, two = MAILGUN.parse(multipart(FORMS[0], "b-1", file)), MAILGUN.parse(multipart(FORMS[0], "b-2"))
    assert one.events == two.events == MAILGUN.parse(form(FORMS[0])).events
    assert one.once == two.once == MAILGUN.parse(form(FORMS[0])).once  # what it says is the same: a retry draws another boundary
    assert MAILGUN.parse(multipart(FORMS[5], "b-1")).once != one.once


def test_a_form_with_poison_is_proven_and_kept() -> None:
    delivery = form([("event", "unsubscribed"), ("recipient", "alex@example.com"), ("note", "@@")])
    assert len(MAILGUN.parse(delivery).events) == 1  # the control
    for poison in (b"%FF", b"%00", b"\xff"):
        poisoned = replace(delivery, body=delivery.body.replace(b"%40%40", poison))
        assert not forged(CASE, poisoned)
        told = MAILGUN.parse(poisoned)
        assert (told.events, [kept.reason for kept in told.kept]) == ((), ["unreadable"])
        assert told.once


def test_a_form_happened_when_it_was_signed() -> None:
    [found] = MAILGUN.parse(form(FORMS[0])).events
    assert found.happened_at.timestamp() == RECEIVED.timestamp() - 3600


def test_json_under_the_name_of_a_form_is_forged() -> None:
    signed = CASE.sign(CASE.body([CASE.tokened]))
    for content_type in (FORM, "multipart/form-data; boundary=b-1", "multipart/form-data"):
        assert forged(CASE, replace(signed, headers=[("Content-Type", content_type)]))


def test_a_changed_form_raises_nothing_but_forged() -> None:
    delivery = multipart(FORMS[0], "b-1")
    for n in range(0, len(delivery.body), 3):
        wrong = bytearray(delivery.body)
        wrong[n] ^= 1 << n % 8
        changed = replace(delivery, body=bytes(wrong))
        forged(CASE, changed)
        assert isinstance(MAILGUN.parse(changed), Heard)


def test_another_key_is_forged_in_every_shape() -> None:
    for delivery in (form(FORMS[0], STRANGE), CASE.sign_strange(CASE.body([CASE.tokened]))):
        with pytest.raises(Forged):
            MAILGUN.verify(CASE.credential, delivery)
