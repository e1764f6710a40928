"""Standard Webhooks: whose attempt it is, held to the library that senders are told to use and to both published vectors."""

from __future__ import annotations

import json
from base64 import b64encode
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from mailprefs.errors import Forged, Misconfigured, Unreadable
from mailprefs.providers import attempts
from mailprefs.providers.base import Credential, Delivery

from .cases import PAYLOADS, RECEIVED, with_header
from .svix_sender import SECRET, SECRET_NEXT, SECRETS, STRANGE, moment, posted, signature

CREDENTIAL = Credential("standard-main", SECRETS)


def forged(delivery: Delivery, credential: Credential = CREDENTIAL) -> bool:
    try:
        attempts.verify(credential, delivery)
    except Forged:
        return True
    return False


@pytest.mark.parametrize(("provider", "prefix"), [("resend", "svix"), ("standard", "webhook")])
def test_the_published_vectors_hold(provider: str, prefix: str) -> None:
    vector = json.loads((PAYLOADS / provider / "vector.json").read_bytes())
    headers = [(name, vector[name]) for name in (f"{prefix}-id", f"{prefix}-timestamp", f"{prefix}-signature")]
    delivery, credential = Delivery(headers, vector["body"].encode(), RECEIVED), Credential("a", {"webhook_secret": vector["secret"]})
    assert not forged(delivery, credential)
    assert forged(delivery)
    for name, value in headers:
        assert forged(with_header(delivery, name, value + "1"), credential)
    assert forged(replace(delivery, body=delivery.body + b" "), credential)


@given(body=st.text(max_size=200), key=st.binary(min_size=16, max_size=64), seconds=st.integers(1_000_000_000, 4_000_000_000))
@settings(max_examples=200, deadline=None)
def test_what_the_library_signs_is_accepted(body: str, key: bytes, seconds: int) -> None:
    webhook = Webhook(key)
    with suppress(UnicodeEncodeError):  # no body is a lone surrogate
        spelt = webhook.sign("msg_1", moment(seconds), body)
        headers = [("webhook-id", "msg_1"), ("webhook-timestamp", str(seconds)), ("webhook-signature", spelt)]
        for secret in (b64encode(key).decode(), f"whsec_{b64encode(key).decode()}", b64encode(key).decode().rstrip("=")):
            assert not forged(Delivery(headers, body.encode(), RECEIVED), Credential("a", {"webhook_secret": secret}))


def test_one_signature_of_several_is_enough() -> None:
    delivery = posted(b"{}")
    mine, other = delivery.header("svix-signature") or "", signature(STRANGE, "x", RECEIVED, b"{}")
    for listed in (f"{mine} {other}", f"{other} {mine}", f"v1a,AAAA {mine}", f"v2,AAAA {other} {mine}", " ".join([mine] * 20)):
        assert not forged(with_header(delivery, "svix-signature", listed))
    for listed in (other, f"{other} {other}", mine.replace("v1,", "v2,"), mine.replace("v1,", "v1a,"), mine.replace("v1,", "")):
        assert forged(with_header(delivery, "svix-signature", listed))
    for broken in (
        f"{mine} ",
        f" {mine}",
        f"{mine}  {other}",
        f"{mine},{other}",
        f"{mine};",
        f"{mine}\n",
        f"{mine} v1",
        f"{mine} ,",
        "v1,",
    ):
        assert forged(with_header(delivery, "svix-signature", broken))


def test_both_names_of_the_headers_are_read_and_those_of_svix_count_first() -> None:
    svix, webhook = posted(b"{}", prefix="svix", id_="msg_1"), posted(b"{}", prefix="webhook", id_="msg_2")
    assert not forged(svix)
    assert not forged(webhook)
    both = replace(svix, headers=[*svix.headers, *webhook.headers[1:]])
    attempt = attempts.of(both)
    assert attempt is not None
    assert attempt.id == "msg_1"  # who adds headers to a genuine delivery cannot give it another name
    half = replace(webhook, headers=[*webhook.headers, ("svix-id", "msg_1")])
    assert forged(half)


def test_no_part_of_a_body_passes_for_a_header() -> None:
    """What is signed is one text: headers and body meet at full stops, which a body may hold as well."""
    body = b'{"a": "x.1700000000.{}"}'
    delivery = posted(body, id_="m")
    stamp = delivery.header("svix-timestamp")
    whole = f"m.{stamp}.".encode() + body
    head, _, tail = whole.partition(b".1700000000.")
    moved = with_header(with_header(replace(delivery, body=tail), "svix-id", head.decode()), "svix-timestamp", "1700000000")
    assert head + b".1700000000." + tail == whole  # the control: the same text was signed
    assert forged(moved)
    dotted = posted(b"{}", id_="m.1700000000")
    shorter = with_header(with_header(dotted, "svix-id", "m"), "svix-timestamp", "1700000000")
    shifted = replace(shorter, body=f"{stamp}.".encode() + b"{}")
    assert not forged(shifted)  # the one that is left: its body is no JSON, and is kept aside as such
    assert not forged(dotted)


@pytest.mark.parametrize(
    "stamp", ["", "0", "-1", "170000000", "17000000000", "1700000000.0", " 1700000000", "1.7e9", "１７００００００００", "nan"]
)
def test_a_time_that_is_not_whole_seconds_of_our_days_is_forged(stamp: str) -> None:
    assert forged(with_header(posted(b"{}"), "svix-timestamp", stamp))


def test_age_is_no_forgery_and_is_told() -> None:
    for age, on_time in (
        (timedelta(0), True),
        (timedelta(minutes=5), True),
        (timedelta(minutes=5, seconds=1), False),
        (timedelta(30), False),
    ):
        for at in (RECEIVED - age, RECEIVED + age):  # a clock of ours may be wrong either way
            delivery = posted(b"{}", at=at)
            assert not forged(delivery)
            attempt = attempts.of(delivery)
            assert attempt is not None
            assert attempt.on_time(RECEIVED) is on_time


@given(values=st.tuples(*[st.none() | st.text(max_size=30)] * 3), body=st.binary(max_size=30))
@settings(max_examples=200, deadline=None)
def test_whatever_headers_hold_it_is_forged_and_no_more(values: tuple[str | None, ...], body: bytes) -> None:
    headers = [(f"svix-{name}", value) for name, value in zip(("id", "timestamp", "signature"), values, strict=True) if value is not None]
    assert forged(Delivery(headers, body, RECEIVED))


def test_an_account_may_have_a_next_secret() -> None:
    rotated = Credential("standard-main", SECRETS | {"webhook_secret_next": SECRET_NEXT})
    for secret in (SECRET, SECRET_NEXT):
        assert not forged(posted(b"{}", secret), rotated)
    assert forged(posted(b"{}", STRANGE), rotated)
    assert forged(posted(b"{}", SECRET_NEXT))


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_AAAA", SECRET[:-11], SECRET + "A", SECRET.replace("whsec_", "whsec:"), SECRET + "!"]
)
def test_a_secret_that_is_not_whole_is_none(secret: str) -> None:
    with pytest.raises((Unreadable, Misconfigured)):
        attempts.check(Credential("standard-main", {"webhook_secret": secret}), "What to do.")
    attempts.check(CREDENTIAL, "What to do.")  # the control


def test_the_tolerance_of_the_library_is_ours() -> None:
    """The control of what we do otherwise: the library reads the clock itself, and refuses what is late for good."""
    delivery = posted(b"{}", prefix="webhook", at=RECEIVED - timedelta(days=30))
    with pytest.raises(Exception, match="too old"):
        Webhook(SECRET).verify(delivery.body, dict(delivery.headers))
    assert not forged(delivery)
