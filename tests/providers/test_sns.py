"""Amazon SNS: who signed, with what, and that nobody makes us ask for anything but a certificate at its own host."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession, web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from mailprefs.errors import Forged, Unavailable
from mailprefs.providers import signing, sns
from mailprefs.providers.base import Credential, Delivery
from mailprefs.providers.ses import SES

from .amazon import Amazon, amazon
from .cases import PAYLOADS, RECEIVED
from .sns_sender import ASKING_NAMES, HOST, NAMES, TOPIC, URL, asking, certificate, key, notification, posted, signed

PATH = URL.removeprefix(HOST)
CREDENTIAL = Credential("ses-main", {}, {"topic_arns": (TOPIC, TOPIC.replace("us-east-1", "us-west-2"))})
VECTORS = sorted((PAYLOADS / "ses").glob("vector-*.json"))
VECTOR_PEM = (PAYLOADS / "ses" / "vector.pem").read_bytes()
VECTOR_TOPIC = "arn:aws:sns:us-west-2:131990247566:dongie-standard-topic"
VECTOR_AT = datetime(2026, 3, 6, 20, 30, tzinfo=UTC)

HOSTILE: tuple[object, ...] = (
    # not https, or not at all a whole address
    URL.replace("https", "http"),
    URL.replace("https", "HTTPS"),
    URL.replace("https", "ftp"),
    URL.replace("https://", "//"),
    URL.replace("https://", "https:/"),
    URL.replace("https://", "https:///"),
    URL.replace("https://", "https:\\\\"),
    URL.replace("https://", ""),
    f"http+unix:{URL}",
    PATH,
    "",
    "/",
    HOST,
    f"{HOST}/",
    f"file://{PATH}",
    "file:///etc/passwd",
    "data:application/x-pem-file;base64,LS0t",
    # another host
    f"https://example.com{PATH}",
    f"https://sns.us-west-1.amazonaws.com{PATH}",
    f"https://sns.us-west-2.amazonaws.com{PATH}",  # a region of ours, and not this topic's
    f"https://sns.amazonaws.com{PATH}",
    f"https://s3.amazonaws.com{PATH}",
    f"https://s3.amazonaws.com/sns{PATH}",
    f"https://s3.us-east-1.amazonaws.com/sns{PATH}",
    f"https://sns.s3.amazonaws.com{PATH}",
    f"https://sns.s3.us-east-1.amazonaws.com{PATH}",
    f"https://sns.s3-us-east-1.amazonaws.com{PATH}",
    f"https://sns.execute-api.amazonaws.com{PATH}",
    f"https://sns-us-east-1.amazonaws.com{PATH}",
    f"https://xsns.us-east-1.amazonaws.com{PATH}",
    f"https://x.sns.us-east-1.amazonaws.com{PATH}",
    f"https://sns..us-east-1.amazonaws.com{PATH}",
    f"{HOST}.{PATH}",
    f"{HOST}.cn{PATH}",
    f"{HOST}.example.com{PATH}",
    f"{HOST}.s3.amazonaws.com{PATH}",
    f"{HOST}%2eexample.com{PATH}",
    f"{HOST}\u3002example.com{PATH}",
    f"{HOST}\u200b{PATH}",
    f"https://SNS.us-east-1.amazonaws.com{PATH}",
    f"https://sns.us-east-1.amazonaws.c\u043em{PATH}",
    f"https://sns.us-east-1\uff0eamazonaws.com{PATH}",
    f"https://127.0.0.1{PATH}",
    f"https://[::1]{PATH}",
    f"https://2130706433{PATH}",
    f"https://localhost{PATH}",
    f"https://169.254.169.254{PATH}",
    f"http://169.254.169.254/latest/meta-data/{PATH}",
    # a port, or someone's name
    f"{HOST}:443{PATH}",
    f"{HOST}:8443{PATH}",
    f"{HOST}:{PATH}",
    f"{HOST}:443:80{PATH}",
    f"https://user@sns.us-east-1.amazonaws.com{PATH}",
    f"https://user:word@sns.us-east-1.amazonaws.com{PATH}",
    f"https://@sns.us-east-1.amazonaws.com{PATH}",
    f"{HOST}@example.com{PATH}",
    f"{HOST}:x@example.com{PATH}",
    f"{HOST}\\@example.com{PATH}",
    f"{HOST}#@example.com{PATH}",
    f"{HOST}?@example.com{PATH}",
    f"{HOST}/@example.com{PATH}",
    # another path, a query, a fragment
    f"{URL}?",
    f"{URL}?x=1",
    f"{URL}#",
    f"{URL};x",
    f"{URL}/",
    f"{URL}/..",
    f"{URL}%00",
    f"{URL}\n",
    f"{URL} ",
    f" {URL}",
    f"\t{URL}",
    f"{URL}\r\nHost: example.com",
    f"{URL}x",
    URL.replace(".pem", ".PEM"),
    URL.replace(".pem", ".exe"),
    URL.replace(".pem", ""),
    URL.replace(".pem", "%2epem"),
    URL.replace("0a", "0A"),
    URL.replace("0a", "0g"),
    URL.replace("0a0a.pem", "0a0.pem"),
    URL.replace("0a.pem", "0a0.pem"),
    URL.replace("0a.pem", "\u0660a.pem"),
    URL.replace("0a.pem", "..pem"),
    f"{HOST}/{PATH}",
    f"{HOST}/x{PATH}",
    f"{HOST}/x/..{PATH}",
    f"{HOST}/.{PATH}",
    f"{HOST}/%2e%2e{PATH}",
    f"{HOST}%2f{PATH}",
    f"{HOST}/simplenotificationservice-{'0a' * 16}.pem",
    f"{HOST}/?Action=GetCertificate&x={PATH}",
    f"{HOST}\n{PATH}",
    f"{HOST}\x00{PATH}",
    URL * 2,
    # nothing that is an address
    None,
    True,
    7,
    [URL],
    {"URL": URL},
)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Amazon, ClientSession]]:
    async with amazon(tmp_path, "sns.us-east-1.amazonaws.com") as both:
        yield both


def forged(ses: SES, delivery: Delivery, credential: Credential = CREDENTIAL) -> bool:
    try:
        ses.verify(credential, delivery)
    except Forged:
        return True
    return False


def known() -> SES:
    """Return a provider that holds the usual certificate."""
    ses = SES()
    ses.certificates.hold(URL, certificate(key()), RECEIVED)
    return ses


def without(fields: Mapping[str, object], name: str) -> dict[str, object]:
    return {other: value for other, value in fields.items() if other != name}


# Where the certificate comes from


async def test_no_hostile_address_is_ever_asked_for(served: tuple[Amazon, ClientSession]) -> None:
    server, http = served
    assert len(HOSTILE) >= 60
    for url in HOSTILE:
        for fields in (notification("{}", SigningCertURL=url), asking(SigningCertURL=url)):
            delivery = posted(signed(fields, NAMES if fields["Type"] == "Notification" else ASKING_NAMES))
            with pytest.raises(Forged):
                await SES().fetch(http, CREDENTIAL, delivery)
            assert forged(known(), delivery)
    assert server.asked == server.served == []
    await SES().fetch(http, CREDENTIAL, posted(signed(notification("{}"))))  # the control: the one good address is asked for
    assert server.served == [URL.removeprefix("https://")]
    assert len(server.asked) == 3  # the look-up, the connection, the request


def test_the_hostile_addresses_have_teeth() -> None:
    """The control: Amazon's own validators look at the host with this pattern, at the scheme, and at the end of the path."""

    def lax(url: object) -> bool:
        with suppress(ValueError):
            parts = urlsplit(str(url))
            host = re.fullmatch(r"sns\.[a-zA-Z0-9-]{3,}\.amazonaws\.com(\.cn)?", parts.hostname or "")
            return parts.scheme == "https" and host is not None and parts.path.endswith(".pem")
        return False

    assert lax(URL)
    assert sum(map(lax, HOSTILE)) >= 20


@given(url=st.text(max_size=60) | st.builds(lambda at, text: URL[:at] + text + URL[at:], st.integers(0, len(URL)), st.text(max_size=5)))
@settings(max_examples=300, deadline=None)
def test_any_other_address_is_forged(url: str) -> None:
    fields = notification("{}", SigningCertURL=url) | {"Signature": "AAAA"}
    if url == URL:
        assert sns.opened(CREDENTIAL, posted(fields).body).certificate_url == URL
    else:
        with pytest.raises(Forged):
            sns.opened(CREDENTIAL, json.dumps(fields).encode())


async def test_a_certificate_is_fetched_once_and_held(served: tuple[Amazon, ClientSession]) -> None:
    server, http = served
    ses, delivery = SES(), posted(signed(notification("{}")))
    assert forged(ses, delivery)  # the control
    for _ in range(3):
        await ses.fetch(http, CREDENTIAL, delivery)
        assert not forged(ses, delivery)
    assert len(server.served) == 1


@pytest.mark.parametrize(
    ("status", "body", "location"),
    [
        (302, b"", URL),
        (301, b"", "https://example.com/x.pem"),
        (200, b"", ""),
        (200, b"<html>", ""),
        (404, certificate(key()), ""),
        (500, b"", ""),
        (200, b"-" * (sns.LONGEST + 1), ""),
        (200, b" " * sns.LONGEST + certificate(key()), ""),
    ],
    ids=["302", "301 elsewhere", "nothing", "a page", "404", "500", "too long", "too long a certificate"],
)
async def test_what_is_no_certificate_asks_sns_to_send_again(
    served: tuple[Amazon, ClientSession], status: int, body: bytes, location: str
) -> None:
    server, http = served
    ses, delivery = SES(), posted(signed(notification("{}")))
    server.answer = lambda: web.Response(status=status, body=body, headers={"Location": location} if location else {})
    with pytest.raises(Unavailable):
        await ses.fetch(http, CREDENTIAL, delivery)
    assert server.served == [URL.removeprefix("https://")]  # a redirect is not followed
    assert forged(ses, delivery)
    server.answer = None
    await ses.fetch(http, CREDENTIAL, delivery)  # the control: nothing of it stays
    assert not forged(ses, delivery)


async def test_a_host_that_is_down_asks_sns_to_send_again_and_the_repetition_counts(served: tuple[Amazon, ClientSession]) -> None:
    server, http = served
    ses, delivery = SES(), posted(signed(notification("{}")))
    port, server.port = server.port, 1
    with pytest.raises(Unavailable):
        await ses.fetch(http, CREDENTIAL, delivery)
    server.port = port
    await ses.fetch(http, CREDENTIAL, delivery)
    assert not forged(ses, delivery)
    assert ses.answers.trouble >= 500  # SNS takes any 4xx as delivered
    assert 400 <= ses.answers.forged < 500


async def test_a_host_that_another_certificate_speaks_for_is_not_amazons(tmp_path: Path) -> None:
    async with amazon(tmp_path, "sns.us-west-1.amazonaws.com") as (server, http):
        with pytest.raises(Unavailable):
            await SES().fetch(http, CREDENTIAL, posted(signed(notification("{}"))))
        assert not server.served


async def test_nobody_makes_us_ask_amazon_without_end(served: tuple[Amazon, ClientSession]) -> None:
    server, http = served
    server.answer = lambda: web.Response(status=404)
    ses, other = SES(), replace(CREDENTIAL, account="ses-other")
    for n in range(3 * sns.ASKED):
        delivery = posted(signed(notification("{}", SigningCertURL=f"{HOST}/SimpleNotificationService-{n:032x}.pem")))
        with pytest.raises(Unavailable):
            await ses.fetch(http, CREDENTIAL, delivery)
    assert len(server.served) == sns.ASKED
    server.answer, delivery = None, posted(signed(notification("{}")))
    await ses.fetch(http, other, delivery)  # who floods one account holds up no other
    other_one = posted(signed(notification("{}", SigningCertURL=URL.replace("0a", "0b"))))
    with pytest.raises(Unavailable):
        await ses.fetch(http, CREDENTIAL, other_one)
    await ses.fetch(http, CREDENTIAL, replace(other_one, received_at=RECEIVED + sns.A_WHILE))  # and a while later all is well
    assert not forged(ses, replace(other_one, received_at=RECEIVED + sns.A_WHILE))


# What the certificate must be


def ec_certificate() -> bytes:
    signer = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(signer.public_key()).serial_number(1)
    builder = builder.not_valid_before(RECEIVED - timedelta(days=1)).not_valid_after(RECEIVED + timedelta(days=1))
    return builder.sign(signer, SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        certificate(key())[:-100],
        certificate(key()).replace(b"CERTIFICATE", b"PUBLIC KEY"),
        certificate(key(), "example.com"),
        certificate(key(), "sns.amazonaws.com.example.com"),
        certificate(key(), "xsns.amazonaws.com"),
        certificate(key(), "*.amazonaws.com"),
        certificate(key(), "x", "example.com", "*.us-east-1.amazonaws.com"),
        certificate(key(), "sns-signing.us-west-2.amazonaws.com", "sns.us-west-2.amazonaws.com"),
        certificate(key(), ends=RECEIVED - timedelta(seconds=1)),
        certificate(key(), begins=RECEIVED + timedelta(seconds=1)),
        certificate(generate_private_key(65537, signing.SHORTEST_RSA - 8)),
        ec_certificate(),
    ],
    ids=[
        "nothing",
        "no DER",
        "half of one",
        "another armour",
        "another name",
        "a longer name",
        "another host",
        "a star",
        "other names",
        "another region",
        "ended",
        "not begun",
        "a short key",
        "no RSA",
    ],
)
def test_a_certificate_that_is_not_sns_own_is_not_held(pem: bytes) -> None:
    ses = SES()
    with pytest.raises(Unavailable):
        ses.certificates.hold(URL, pem, RECEIVED)
    assert ses.certificates.held(URL, RECEIVED) is None
    ses.certificates.hold(URL, certificate(key()), RECEIVED)  # the control
    assert ses.certificates.held(URL, RECEIVED)


@pytest.mark.parametrize(
    ("region", "suffix", "name"),
    [  # Amazon's SDK for Java, SnsHostProvider
        ("us-east-1", "amazonaws.com", "sns.amazonaws.com"),
        ("af-south-1", "amazonaws.com", "sns-signing.af-south-1.amazonaws.com"),
        ("mx-central-1", "amazonaws.com", "sns-signing.mx-central-1.amazonaws.com"),
        ("us-gov-west-1", "amazonaws.com", "sns-us-gov-west-1.amazonaws.com"),
        ("us-gov-east-1", "amazonaws.com", "sns-us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "amazonaws.com.cn", "sns-cn-north-1.amazonaws.com.cn"),
        ("cn-northwest-1", "amazonaws.com.cn", "sns-cn-northwest-1.amazonaws.com.cn"),
    ],
)
async def test_each_region_has_a_host_and_a_name_of_its_own(tmp_path: Path, region: str, suffix: str, name: str) -> None:
    partition = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
    topic = f"arn:{partition}:sns:{region}:123456789012:ses-events"
    credential = Credential("ses-main", {}, {"topic_arns": (topic,)})
    url = f"https://sns.{region}.{suffix}{PATH}"
    async with amazon(tmp_path, f"sns.{region}.{suffix}", pem=certificate(key(), name)) as (server, http):
        ses, delivery = SES(), posted(signed(notification("{}", TopicArn=topic, SigningCertURL=url)))
        ses.check(credential)
        await ses.fetch(http, credential, delivery)
        assert not forged(ses, delivery, credential)
        assert server.served == [url.removeprefix("https://")]


async def test_a_certificate_that_ends_while_it_is_held_proves_nothing_more(served: tuple[Amazon, ClientSession]) -> None:
    server, http = served
    ses, delivery = SES(), posted(signed(notification("{}")))
    ends = RECEIVED + timedelta(hours=1)
    ses.certificates.hold(URL, certificate(key(), ends=ends), RECEIVED)
    assert not forged(ses, replace(delivery, received_at=ends))
    assert forged(ses, replace(delivery, received_at=ends + timedelta(seconds=1)))
    await ses.fetch(http, CREDENTIAL, delivery)
    assert not server.served
    await ses.fetch(http, CREDENTIAL, replace(delivery, received_at=ends + timedelta(seconds=1)))
    assert len(server.served) == 1  # and the new one of that address is asked for


def test_only_so_many_certificates_are_held() -> None:
    ses = SES()
    for n in range(sns.HELD + 1):
        ses.certificates.hold(f"{HOST}/SimpleNotificationService-{n:032x}.pem", certificate(key()), RECEIVED)
    held = [n for n in range(sns.HELD + 1) if ses.certificates.held(f"{HOST}/SimpleNotificationService-{n:032x}.pem", RECEIVED)]
    assert held == list(range(1, sns.HELD + 1))


# Who signed what


@pytest.mark.parametrize("vector", VECTORS, ids=lambda path: path.stem)
def test_amazons_own_vectors_hold(vector: Path) -> None:
    told = json.loads(vector.read_bytes())
    ses, delivery = SES(), Delivery([], vector.read_bytes(), VECTOR_AT)
    credential = Credential("ses-main", {}, {"topic_arns": (VECTOR_TOPIC,)})
    ses.certificates.hold(told["SigningCertURL"], VECTOR_PEM, VECTOR_AT)
    assert not forged(ses, delivery, credential)
    for name in ("Message", "MessageId", "Timestamp", "TopicArn", "Type", "Subject", "Token", "SubscribeURL", "Signature"):
        if name in told:
            assert forged(ses, replace(delivery, body=json.dumps(told | {name: told[name] + "x"}).encode()), credential)
            assert forged(ses, replace(delivery, body=json.dumps(without(told, name)).encode()), credential)
    assert forged(ses, replace(delivery, body=json.dumps(told | {"SignatureVersion": "3"}).encode()), credential)
    assert forged(ses, replace(delivery, received_at=datetime(2026, 10, 15, tzinfo=UTC)), credential)  # the certificate has ended


def test_a_genuine_message_of_somebody_elses_topic_is_forged() -> None:
    for topic in (
        TOPIC.replace("123456789012", "210987654321"),
        TOPIC + "x",
        TOPIC[:-1],
        TOPIC.upper(),
        TOPIC + "\n",
        f" {TOPIC}",
        TOPIC.replace("us-east-1", "us-east-2"),
        TOPIC.replace("aws", "aws-cn", 1),
        "",
    ):
        fields = signed(notification("{}", TopicArn=topic))
        assert forged(known(), posted(fields))
        assert forged(known(), posted(fields), Credential("ses-main", {}, {"topic_arns": topic}))  # a text is no list of topics
    others: list[object] = [None, 7, [TOPIC], {TOPIC: 1}]
    for other in others:
        assert forged(known(), posted(signed(notification("{}", TopicArn=other))))
    assert not forged(known(), posted(signed(notification("{}"))))  # the control


def test_an_account_without_topics_hears_nobody() -> None:
    delivery = posted(signed(notification("{}")))
    for options in (
        {},
        {"topic_arns": ()},
        {"topic_arns": None},
        {"topic_arns": "arn"},
        {"topic_arns": {TOPIC: 1}},
        {"topic_arns": ("x",)},
    ):
        assert forged(known(), delivery, Credential("ses-main", {}, options))


@pytest.mark.parametrize("version", ["1", "2"])
def test_both_versions_of_the_signature_hold(version: str) -> None:
    fields = signed(notification("{}", SignatureVersion=version))
    assert not forged(known(), posted(fields))
    assert forged(known(), posted(fields | {"SignatureVersion": "3" if version == "1" else "1"}))
    for other in ("", "0", "3", "02", "1.0", "sha256", 1, 2, None):
        assert forged(known(), posted(fields | {"SignatureVersion": other}))


def test_a_subject_is_signed_where_there_is_one_and_null_is_none() -> None:
    assert not forged(known(), posted(signed(notification("{}", Subject="Amazon SES Email Event Notification"))))
    fields = signed(notification("{}"))
    assert not forged(known(), posted(fields | {"Subject": None}))
    others: list[object] = ["", "x", 0, False, [], {}]
    for added in others:
        assert forged(known(), posted(fields | {"Subject": added}))


def test_an_unsubscribe_confirmation_may_be_signed_as_a_page_or_as_a_validator_of_amazons_says() -> None:
    asked = asking("UnsubscribeConfirmation")
    assert not forged(known(), posted(signed(asked, ASKING_NAMES)))
    assert not forged(known(), posted(signed(asked, NAMES)))
    assert forged(known(), posted(signed(asking(), NAMES)))  # of all the others there is one list
    assert not forged(known(), posted(signed(asking(), ASKING_NAMES)))
    assert forged(known(), posted(signed(asking("Notification"), ASKING_NAMES)))


def test_a_line_end_is_no_way_to_another_field() -> None:
    """What is signed is one text: a line end in a value could pass for its end. A message may hold them, nothing else does."""
    fields = signed(notification("innocent\nMessageId\nm-2\nSubject\nrest"))
    assert not forged(known(), posted(fields))
    cut = fields | {"Message": "innocent", "MessageId": "m-2", "Subject": f"rest\nMessageId\n{fields['MessageId']}"}
    assert {name: fields[name] for name in ("Timestamp", "TopicArn", "Type")} == {n: cut[n] for n in ("Timestamp", "TopicArn", "Type")}
    spelt = "".join(f"{name}\n{cut[name]}\n" for name in NAMES)
    assert spelt == "".join(f"{name}\n{fields[name]}\n" for name in NAMES if name in fields)  # the control: the same text was signed
    assert forged(known(), posted(cut))


def test_raw_delivery_is_refused() -> None:
    body = json.dumps({"eventType": "Bounce"}).encode()
    assert forged(known(), Delivery([("x-amz-sns-rawdelivery", "true")], body, RECEIVED))


def test_a_field_of_another_kind_is_forged_and_no_more() -> None:
    fields = signed(notification("{}"))
    for name in fields:
        assert forged(known(), posted(without(fields, name)))
        odds: list[object] = [None, True, 0, 1.5, "", "\x00", "é", [], {}, [fields[name]], "x" * 100_000]
        for odd in odds:
            assert forged(known(), posted(fields | {name: odd}))
    for body in (
        b"",
        b"null",
        b"[]",
        b"7",
        b'"x"',
        b"{}",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"Type": "Notification", "Type": "Notification"}',
    ):
        assert forged(known(), Delivery([], body, RECEIVED))


async def test_whoever_has_not_the_password_makes_us_ask_for_nothing(served: tuple[Amazon, ClientSession]) -> None:
    server, http = served
    guarded = replace(CREDENTIAL, secrets={"webhook_user": "mailprefs", "webhook_password": "first-password"})
    delivery = posted(signed(notification("{}")))
    for headers in ([], [("Authorization", "Basic bWFpbHByZWZzOng=")], [("Authorization", "Bearer x")]):
        with pytest.raises(Forged):
            await SES().fetch(http, guarded, replace(delivery, headers=headers))
        assert forged(known(), replace(delivery, headers=headers), guarded)
    assert not server.asked
    allowed = replace(delivery, headers=[("Authorization", "Basic bWFpbHByZWZzOmZpcnN0LXBhc3N3b3Jk")])
    await SES().fetch(http, guarded, allowed)  # the control
    assert not forged(known(), allowed, guarded)
    assert len(server.served) == 1
    assert dict(SES.answers.challenge)["WWW-Authenticate"].startswith("Basic ")  # SNS sends them to nobody who has not asked
