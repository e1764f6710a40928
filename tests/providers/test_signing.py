"""Signatures: bytes in, nothing or Forged out."""

from __future__ import annotations

import base64
import hmac as stdlib_hmac
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from mailprefs.errors import Forged, Misconfigured, Unreadable
from mailprefs.providers import signing
from mailprefs.providers.base import Credential

from .cases import PAYLOADS

VECTOR = json.loads((PAYLOADS / "sendgrid" / "vector.json").read_bytes())
BODY = (PAYLOADS / "sendgrid" / "vector.body").read_bytes()
KEY, SIGNATURE, TIMESTAMP = VECTOR["webhook_key"], VECTOR["signature"], VECTOR["timestamp"].encode()
# From the same vectors: a key and a signature of something else.
OTHER_KEY = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqTxd43gyp8IOEto2LdIfjRQrIbsd4SXZkLW6jDutdhXSJCWHw8REntlo7aNDthvj+y7GjUuFDb/R1NGe1OPzpA=="
OTHER_SIGNATURE = "MEUCIQCtIHJeH93Y+qpYeWrySphQgpNGNr/U+UyUlBkU6n7RAwIgJTz2C+8a8xonZGi6BpSzoQsbVRamr2nlxFDWYNH3j/0="


def spelt(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def test_the_published_vector_holds() -> None:
    assert BODY.endswith(b"\r\n")
    signing.ecdsa_p256([KEY], SIGNATURE, TIMESTAMP, BODY)
    signing.ecdsa_p256([KEY], SIGNATURE, TIMESTAMP + BODY)  # nothing stands between the parts
    signing.ecdsa_p256([OTHER_KEY, KEY], SIGNATURE, TIMESTAMP, BODY)


@pytest.mark.parametrize(
    ("keys", "signature", "parts"),
    [
        ([OTHER_KEY], SIGNATURE, (TIMESTAMP, BODY)),
        ([KEY], OTHER_SIGNATURE, (TIMESTAMP, BODY)),
        ([KEY], SIGNATURE, (TIMESTAMP, BODY.rstrip())),
        ([KEY], SIGNATURE, (b"timestamp", BODY)),
        ([KEY], SIGNATURE, (b"payload",)),
        ([KEY], None, (TIMESTAMP, BODY)),
        ([], SIGNATURE, (TIMESTAMP, BODY)),
        (["", "x", "AAAA"], SIGNATURE, (TIMESTAMP, BODY)),
    ],
    ids=["other key", "other signature", "line end lost", "other time", "other body", "none", "no key", "broken keys"],
)
def test_anything_else_than_the_vector_is_forged(keys: list[str], signature: str | None, parts: tuple[bytes, ...]) -> None:
    with pytest.raises(Forged):
        signing.ecdsa_p256(keys, signature, *parts)


def test_a_p256_key_is_the_only_key() -> None:
    signing.p256_key(spelt(ec.generate_private_key(ec.SECP256R1()).public_key()))
    off_the_curve = base64.b64encode(base64.b64decode(KEY)[:-1] + b"\x00").decode()
    for strange in (
        spelt(ec.generate_private_key(ec.SECP384R1()).public_key()),
        spelt(ec.generate_private_key(ec.SECP256K1()).public_key()),
        spelt(rsa.generate_private_key(65537, 2048).public_key()),
        spelt(ed25519.Ed25519PrivateKey.generate().public_key()),
        off_the_curve,
        KEY[:-4],
        KEY + "\n",
        "",
    ):
        with pytest.raises(Unreadable):
            signing.p256_key(strange)


def test_a_key_is_parsed_once() -> None:
    before = signing.p256_key.cache_info().misses
    fresh = spelt(ec.generate_private_key(ec.SECP256R1()).public_key())
    assert signing.p256_key(fresh) is signing.p256_key(fresh)
    assert signing.p256_key.cache_info().misses == before + 1


@given(spelling=st.binary(max_size=40))
def test_base64_has_one_spelling(spelling: bytes) -> None:
    canonical = base64.b64encode(spelling).decode()
    assert signing.base64(canonical) == spelling
    for other in (canonical + "=", canonical + "\n", " " + canonical, canonical.rstrip("=") if "=" in canonical else canonical + "A"):
        with pytest.raises(Unreadable):
            signing.base64(other)


@pytest.mark.parametrize("text", ["QQ==", "QUI="])
def test_unused_bits_of_base64_are_no_second_spelling(text: str) -> None:
    at = text.index("=") - 1
    other = text[:at] + chr(ord(text[at]) + 1) + text[at + 1 :]
    assert base64.b64decode(other) == base64.b64decode(text)  # the control: others take it
    assert signing.base64(text)
    with pytest.raises(Unreadable):
        signing.base64(other)


@given(text=st.text(max_size=40))
def test_whatever_text_is_no_base64_is_unreadable_and_no_more(text: str) -> None:
    with suppress(Unreadable):
        assert base64.b64encode(signing.base64(text)).decode() == text


# HMAC

Digest = Literal["sha256", "sha1"]
# RFC 4231 §4.2 to §4.4 and §4.7 for SHA-256, RFC 2202 §3 for SHA-1: key, text, digest, what comes out
MACS: tuple[tuple[bytes, bytes, Digest, str], ...] = (
    (b"\x0b" * 20, b"Hi There", "sha256", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (b"Jefe", b"what do ya want for nothing?", "sha256", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    (b"\xaa" * 20, b"\xdd" * 50, "sha256", "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "sha256",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (b"\x0b" * 20, b"Hi There", "sha1", "b617318655057264e28bc0b6fb378c8ef146be00"),
    (b"Jefe", b"what do ya want for nothing?", "sha1", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
)


@pytest.mark.parametrize(("key", "text", "digest", "mac"), MACS)
def test_the_macs_of_the_standards_hold_in_hex_and_base64(key: bytes, text: bytes, digest: Digest, mac: str) -> None:
    in_base64 = base64.b64encode(bytes.fromhex(mac)).decode()
    signing.hmac([key], mac, text, digest=digest)
    signing.hmac([b"other", key], mac, text[:3], text[3:], digest=digest)
    signing.hmac([key], in_base64, text, digest=digest, spelling="base64")
    wrong: tuple[tuple[list[bytes], str | None, bytes], ...] = (
        ([b"other"], mac, text),
        ([key], mac.upper(), text),
        ([key], mac + " ", text),
        ([key], mac[:-2], text),
        ([key], in_base64, text),
        ([key], mac, text + b" "),
        ([key], "", text),
        ([key], None, text),
        ([], mac, text),
    )
    for keys, signature, signed in wrong:
        with pytest.raises(Forged):
            signing.hmac(keys, signature, signed, digest=digest)


def test_a_signature_over_any_of_the_readings_is_accepted_and_over_no_other() -> None:
    mac = stdlib_hmac.digest(b"key", b"two", "sha256").hex()
    signing.hmac_of_any(["other", "key"], mac, [[b"one"], [b"t", b"wo"]])
    others: list[list[list[bytes]]] = [[], [[]], [[b"one"]], [[b"two "]], [[b"t"], [b"wo"]]]
    for readings in others:
        with pytest.raises(Forged):
            signing.hmac_of_any(["key"], mac, readings)


def test_an_empty_key_signs_nothing() -> None:
    mac = stdlib_hmac.digest(b"", b"x", "sha256").hex()
    with pytest.raises(Forged):
        signing.hmac(["", b""], mac, b"x")
    with pytest.raises(Forged):
        signing.bearer(["", "token"], "Bearer ")


# HTTP basic authentication

ADVICE = "Make one up."
FIRST = {"webhook_user": "mailprefs", "webhook_password": "first-password"}


def authorized(secrets: Mapping[str, str], pair: str) -> bool:
    try:
        signing.basic(Credential("a", secrets), "Basic " + base64.b64encode(pair.encode()).decode())
    except Forged:
        return False
    return True


def test_the_pair_of_the_standard_is_accepted() -> None:
    credential = Credential("a", {"webhook_user": "Aladdin", "webhook_password": "open sesame"})
    signing.basic(credential, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")  # RFC 7617 §2
    for other in ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZR==", "basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "", None):
        with pytest.raises(Forged):
            signing.basic(credential, other)


def test_user_and_password_change_one_or_both() -> None:
    both = FIRST | {"webhook_user_next": "hooks", "webhook_password_next": "second-password"}
    password = FIRST | {"webhook_password_next": "second-password"}
    user = FIRST | {"webhook_user_next": "hooks"}
    for secrets, pairs in (
        (FIRST, {"mailprefs:first-password"}),
        (both, {"mailprefs:first-password", "hooks:second-password"}),
        (password, {"mailprefs:first-password", "mailprefs:second-password"}),
        (user, {"mailprefs:first-password", "hooks:first-password"}),
        ({"webhook_user": "mailprefs"}, set()),
        ({"webhook_password": "first-password"}, set()),
        ({}, set()),
    ):
        every = {f"{name}:{word}" for name in ("mailprefs", "hooks", "") for word in ("first-password", "second-password", "")}
        assert {pair for pair in every if authorized(secrets, pair)} == pairs


@pytest.mark.parametrize(
    "wrong",
    [
        {"webhook_user": ""},
        {"webhook_user": "me"},
        {"webhook_user": "mail:prefs"},
        {"webhook_user": "mailprefs\n"},
        {"webhook_password": ""},
        {"webhook_password": "short"},
        {"webhook_password": "é" * 20},
        {"webhook_user_next": "me"},
        {"webhook_user_next": ""},
        {"webhook_user_next": "mail:prefs"},
        {"webhook_password_next": "short"},
        {"webhook_password_next": ""},
    ],
)
def test_a_pair_that_is_none_refuses_to_start(wrong: dict[str, str]) -> None:
    signing.check_basic(Credential("postmark-main", FIRST), ADVICE)
    signing.check_basic(Credential("postmark-main", FIRST | {"webhook_password_next": "second-password"}), ADVICE)
    with pytest.raises(Misconfigured) as refused:
        signing.check_basic(Credential("postmark-main", FIRST | wrong), ADVICE)
    assert f"'postmark-main': the secret {next(iter(wrong))} " in str(refused.value)
    assert str(refused.value).endswith(ADVICE)


def test_a_bearer_is_one_of_its_tokens() -> None:
    signing.bearer(["one", "two"], "Bearer two")
    for other in ("Bearer three", "bearer two", "Bearer two ", "Basic two", "two", "", None):
        with pytest.raises(Forged):
            signing.bearer(["one", "two"], other)


def test_a_word_is_one_of_its_words() -> None:
    signing.word(["one", "two"], "two")
    for other in ("three", "Two", "two ", "", None):
        with pytest.raises(Forged):
            signing.word(["one", "two", ""], other)


def test_a_secret_and_the_next_one_are_both_looked_at() -> None:
    signing.check(Credential("a", {"webhook_key": "long-enough"}), "webhook_key", 8, ADVICE)
    for wrong in ({}, {"webhook_key": "short"}, {"webhook_key": "long-enough", "webhook_key_next": "short"}, {"webhook_key": "a b c d e"}):
        with pytest.raises(Misconfigured, match=ADVICE):
            signing.check(Credential("a", wrong), "webhook_key", 8, ADVICE)


@given(text=st.text(max_size=40) | st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010), max_size=9))
def test_whatever_a_header_holds_it_is_forged_and_no_more(text: str) -> None:
    with pytest.raises(Forged):
        signing.hmac(["key", text], text, b"x")
    with pytest.raises(Forged):
        signing.basic(Credential("a", {"webhook_user": text, "webhook_password": text}), text)
    with pytest.raises(Forged):
        signing.bearer(["token"], text)
