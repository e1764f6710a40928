"""Deliveries of our own making: heard as what they say, proven as their provider would, and by nobody else's secrets."""

from __future__ import annotations

import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mailprefs.errors import Forged, Unreadable
from mailprefs.providers import PROVIDERS, attempts, samples, signing
from mailprefs.providers.base import Credential, Delivery, Sample, Signing, Unsignable
from mailprefs.providers.sendgrid import TRY_OUT, SendGrid
from mailprefs.providers.twilio import SIGNATURE, Twilio
from mailprefs.words import Channel, Kind

from .case_sendgrid import PRIVATE
from .cases import PAYLOADS, RECEIVED, Case, case_of

AMAZONS = "ses"  # whose deliveries nobody but Amazon can make
AS_THE_TESTS_SIGN = {  # provider → when the tests' own signer says that it signs
    "brevo": RECEIVED,
    "customerio": datetime.fromtimestamp(1763801240, UTC),
    "mailchimp": datetime.fromtimestamp(1763801240, UTC),
    "mailersend": RECEIVED,
    "mailjet": RECEIVED,
    "mandrill": RECEIVED,
    "postmark": RECEIVED,
    "resend": RECEIVED,
    "sparkpost": RECEIVED,
    "standard": RECEIVED,
}


def pem(der: str) -> str:
    """Return the PEM of a private key in base64 of DER."""
    return f"-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n"


def lent(case: Case) -> Credential:
    """Return the credential of a case, with what a try-out lends it."""
    return replace(case.credential, secrets={**case.credential.secrets, TRY_OUT: pem(PRIVATE)})


def sample(case: Case, kind: Kind, group: str = "") -> Sample:
    address = "+12025550100" if case.provider.channel is Channel.SMS else "mailprefs-test@example.com"
    return Sample(kind, address, "mailprefs-test-0123456789abcdef", RECEIVED, group)


@pytest.fixture(params=PROVIDERS)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


@pytest.fixture(params=[name for name in PROVIDERS if name != AMAZONS])
def signable(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


def signer(case: Case) -> Signing:
    provider = case.provider
    assert isinstance(provider, Signing)
    return provider


def made(case: Case, kind: Kind, group: str = "") -> Delivery:
    provider = signer(case)
    return provider.sign(lent(case), provider.sample(sample(case, kind, group)), RECEIVED)


def test_every_provider_says_how_its_deliveries_are_made(case: Case) -> None:
    assert isinstance(case.provider, Signing)
    assert not isinstance(object(), Signing)  # the control


def test_a_sample_of_a_delivery_is_taken_and_changes_nothing(signable: Case) -> None:
    delivery = made(signable, Kind.DELIVERED)
    signable.provider.verify(lent(signable), delivery)
    heard = signable.provider.parse(delivery)
    assert (heard.events, heard.kept, sum(heard.counted.values())) == ((), (), 1)


@pytest.mark.parametrize("mapped", [True, False])
def test_a_sample_of_an_unsubscribe_is_one_of_nobody(signable: Case, mapped: bool) -> None:
    group = signable.credential.groups[0] if mapped else ""
    delivery = made(signable, Kind.UNSUBSCRIBED, group)
    signable.provider.verify(lent(signable), delivery)
    heard = signable.provider.parse(delivery)
    [event] = heard.events
    told = sample(signable, Kind.UNSUBSCRIBED)
    assert (event.kind, event.address, event.token) == (Kind.UNSUBSCRIBED, told.address, None)
    assert event.happened_at <= RECEIVED
    assert (heard.kept, dict(heard.counted)) == ((), {})


def test_what_leaves_a_group_says_which_where_the_provider_has_groups() -> None:
    groups = {}
    for name in PROVIDERS:
        if name != AMAZONS:
            [event] = case_of(name).provider.parse(made(case_of(name), Kind.UNSUBSCRIBED, case_of(name).credential.groups[0])).events
            groups[name] = event.group == case_of(name).credential.groups[0]
    assert {name for name, said in groups.items() if said} == {"mailchimp", "mailjet", "postmark", "sendgrid", "sparkpost", "standard"}


def test_a_sample_signed_with_other_secrets_is_forged(signable: Case) -> None:
    delivery = made(signable, Kind.DELIVERED)
    others = {name: "x" + secret[1:] for name, secret in signable.credential.secrets.items()}
    with pytest.raises(Forged):
        signable.provider.verify(replace(signable.credential, secrets=others), delivery)


def test_a_sample_with_another_body_is_forged_where_the_proof_covers_it(signable: Case) -> None:
    delivery = made(signable, Kind.DELIVERED)
    other = replace(delivery, body=delivery.body.replace(b"mailprefs", b"mailprefz"))
    if signable.covered:
        with pytest.raises(Forged):
            signable.provider.verify(lent(signable), other)
    else:
        signable.provider.verify(lent(signable), other)  # the control: that is why such a proof counts once, or is a password


@pytest.mark.parametrize("name", AS_THE_TESTS_SIGN)
def test_we_sign_as_the_tests_do_that_were_written_apart(name: str) -> None:
    case = case_of(name)
    body = signer(case).sample(sample(case, Kind.DELIVERED))
    ours = signer(case).sign(case.credential, body, AS_THE_TESTS_SIGN[name])
    theirs = case.sign(body)
    assert [case.proof(ours, each) for each in case.proofs] == [case.proof(theirs, each) for each in case.proofs]
    assert ours.header("Content-Type") == theirs.header("Content-Type")


def test_we_sign_for_klaviyo_over_the_body_and_the_timestamp_behind_it() -> None:
    case = case_of("klaviyo")
    delivery = made(case, Kind.DELIVERED)
    timestamp = str(int(RECEIVED.timestamp()))
    proof = hmac.digest(case.credential.secrets["webhook_secret"].encode(), delivery.body + timestamp.encode(), "sha256").hex()
    assert (delivery.header("Klaviyo-Timestamp"), delivery.header("Klaviyo-Signature")) == (timestamp, proof)


def test_we_sign_for_mailgun_over_the_timestamp_and_a_token_that_no_other_body_has() -> None:
    case = case_of("mailgun")
    found = [json.loads(made(case, kind).body)["signature"] for kind in (Kind.DELIVERED, Kind.UNSUBSCRIBED)]
    for proof in found:
        text = proof["timestamp"] + proof["token"]
        assert proof["signature"] == hmac.digest(case.credential.secrets["webhook_key"].encode(), text.encode(), "sha256").hex()
    assert found[0]["token"] != found[1]["token"]


@pytest.mark.parametrize(("name", "prefix"), [("standard", "webhook"), ("resend", "svix")])
def test_the_published_vectors_of_standard_webhooks_are_what_we_sign(name: str, prefix: str) -> None:
    vector = json.loads((PAYLOADS / name / "vector.json").read_bytes())
    id_, timestamp = vector[f"{prefix}-id"], vector[f"{prefix}-timestamp"]
    assert attempts.signature(attempts.key(vector["secret"]), id_, timestamp, vector["body"].encode()) == vector[f"{prefix}-signature"]


def test_the_published_vector_of_twilio_is_what_we_sign() -> None:
    vectors: dict[str, Any] = json.loads((PAYLOADS / "twilio" / "vectors.json").read_bytes())
    whole, repeated = vectors["forms"][0], vectors["repeats"]
    for url, form, signature in (
        (whole["url"], vectors["form"], whole["signature"]),
        (repeated["url"], repeated["form"], repeated["signature"]),
    ):
        credential = Credential("twilio-main", {"auth_token": vectors["auth_token"]}, {"public_url": url})
        assert Twilio().sign(credential, form.encode(), RECEIVED).header(SIGNATURE) == signature


def test_the_published_vector_of_basic_authentication_is_what_we_send() -> None:
    """RFC 7617 §2 and §2.1, where the password is in UTF-8."""
    for user, password, header in (
        ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("test", "123£", "Basic dGVzdDoxMjPCow=="),
    ):
        assert signing.basic_of(Credential("a", {"webhook_user": user, "webhook_password": password})) == {"Authorization": header}


def test_nobody_signs_for_amazon_nor_for_sendgrid_without_its_private_key() -> None:
    for name in (AMAZONS, "sendgrid"):
        case = case_of(name)
        body = signer(case).sample(sample(case, Kind.DELIVERED))
        with pytest.raises(Unsignable, match="To try the whole way"):
            signer(case).sign(case.credential, body, RECEIVED)
        with pytest.raises(Forged):
            case.provider.verify(case.credential, samples.posted(body, RECEIVED, {}))


def test_what_sns_would_tell_is_heard_as_such() -> None:
    case = case_of(AMAZONS)
    told = {kind: signer(case).sample(sample(case, kind)) for kind in (Kind.DELIVERED, Kind.UNSUBSCRIBED)}
    heard = {kind: case.provider.parse(samples.posted(body, RECEIVED, {})) for kind, body in told.items()}
    assert heard[Kind.DELIVERED].counted == {Kind.DELIVERED: 1}
    assert [(event.kind, event.group) for event in heard[Kind.UNSUBSCRIBED].events] == [(Kind.UNSUBSCRIBED, None)]


@pytest.mark.parametrize("file", ["", "no key", pem("AAAA"), "other curve"])
def test_a_file_that_is_no_key_of_sendgrids_kind_is_unreadable(file: str) -> None:
    key = {"other curve": generate_private_key(SECP384R1())}.get(file)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode() if key else file
    with pytest.raises(Unreadable):
        SendGrid().sign(Credential("a", {TRY_OUT: text}), b"[]", RECEIVED)
    sound = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    SendGrid().sign(Credential("a", {TRY_OUT: sound}), b"[]", RECEIVED)  # the control: as openssl writes it
