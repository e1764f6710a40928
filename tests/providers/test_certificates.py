"""Certificates and RSA: bytes in, a key out; nothing or Forged."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from typing import Literal

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from mailprefs.errors import Forged, Unreadable
from mailprefs.providers import signing

from .cases import PAYLOADS
from .sns_sender import certificate, key

HASHES: dict[Literal["sha1", "sha256"], type[SHA1] | type[SHA256]] = {"sha1": SHA1, "sha256": SHA256}


def test_a_certificate_says_whose_it_is_and_until_when() -> None:
    found = signing.certificate((PAYLOADS / "ses" / "vector.pem").read_bytes())
    assert found.names == {"sns.amazonaws.com"}
    assert (found.begins.isoformat(), found.ends.isoformat()) == ("2025-11-10T00:00:00+00:00", "2026-10-14T23:59:59+00:00")
    assert found.key.key_size == 2048


def test_all_names_of_a_certificate_count_in_lower_case() -> None:
    assert signing.certificate(certificate(key(), "SNS.example.com", "A.example.com", "b.example.com")).names == {
        "sns.example.com",
        "a.example.com",
        "b.example.com",
    }


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # of a serial number that is negative now
@given(at=st.integers(0, 2_000), bits=st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_broken_certificate_is_unreadable_and_no_more(at: int, bits: int) -> None:
    pem = bytearray(certificate(key()))
    pem[at % len(pem)] ^= bits
    with suppress(Unreadable):
        signing.certificate(bytes(pem))


@given(pem=st.binary(max_size=200))
def test_whatever_bytes_are_no_certificate(pem: bytes) -> None:
    for odd in (pem, b"-----BEGIN CERTIFICATE-----\n" + b64encode(pem) + b"\n-----END CERTIFICATE-----\n"):
        with pytest.raises(Unreadable):
            signing.certificate(odd)


@pytest.mark.parametrize("digest", HASHES)
def test_only_the_key_itself_signs_and_only_in_one_spelling(digest: Literal["sha1", "sha256"]) -> None:
    public = signing.certificate(certificate(key())).key
    signature = b64encode(key().sign(b"one, two", PKCS1v15(), HASHES[digest]())).decode()
    signing.rsa(public, signature, b"one,", b" two", digest=digest)
    other: Literal["sha1", "sha256"] = "sha1" if digest == "sha256" else "sha256"
    strange = b64encode(key("nobody's").sign(b"one, two", PKCS1v15(), HASHES[digest]())).decode()
    padded = b64encode(key().sign(b"one, two", PSS(MGF1(SHA256()), 32), SHA256())).decode()
    for wrong in (
        strange,
        padded,
        signature[:-4],
        signature + "\n",
        f" {signature}",
        signature.rstrip("="),
        "",
        "=",
        "é",
        "\udcff",
        "AAAA",
    ):
        with pytest.raises(Forged):
            signing.rsa(public, wrong, b"one, two", digest=digest)
    with pytest.raises(Forged):
        signing.rsa(public, signature, b"one, two", digest=other)
    with pytest.raises(Forged):
        signing.rsa(public, signature, b"one, two.", digest=digest)
