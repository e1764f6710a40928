"""Requests to AWS are signed as its own vectors say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from yarl import URL

from mailprefs.providers import sigv4

# AWS's Signature Version 4 test suite (aws-sig-v4-test-suite): get-vanilla, post-vanilla, post-x-www-form-urlencoded
KEY = sigv4.Key("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1", "service")
AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
ROOT = URL("https://example.amazonaws.com/")
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
VECTORS = {
    "get-vanilla": ("GET", b"", {}, "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "post-vanilla": ("POST", b"", {}, "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    "post-x-www-form-urlencoded": (
        "POST",
        b"Param1=value1",
        FORM,
        "content-type;host;x-amz-date",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
}


@pytest.mark.parametrize(("method", "body", "headers", "names", "signature"), VECTORS.values(), ids=VECTORS)
def test_the_published_vectors_come_out(method: str, body: bytes, headers: dict[str, str], names: str, signature: str) -> None:
    assert sigv4.signed(KEY, method, ROOT, body, AT, headers) == {
        **headers,
        "X-Amz-Date": "20150830T123600Z",
        "Authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}",
    }


# What botocore 1.44.5 makes of the same requests
SES = sigv4.Key("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-central-1", "ses")
CONTACTS = "https://email.eu-central-1.amazonaws.com/v2/email/contact-lists/main/contacts/"
BOTOCORE = {
    "plain%40example.com": "9d30710e1090d4783c6835bd68dc26519478355e484ce280293ae35d21074e7a",
    "b%2Bc%2Fd%3Fe%23f%40example.com": "ee85fdeb572533efcc885dc3a48b5b948e31e42fd246007e05eb9fd073915bad",
    "%C3%89lise%40example.com": "373c22690f90575efe0bbcfbc80d8301f7cd06f3f89e3a9572979686ec627271",
    "..%2F..%2F~x_-.%27%2A%40example.com": "fca3da05b858cb3cb7839cd96243ffbe357388e2f113f8282205d046a05c464b",
    "a%40example.com?b=%2F&a=x%20y&c=": "3beb2360ddbc3e43b1dd37106faac53231be5cf69652f8d3d980c4316cab4529",
}


@pytest.mark.parametrize("path", BOTOCORE)
def test_an_address_in_a_path_is_encoded_once_more(path: str) -> None:
    signed = sigv4.signed(SES, "PUT", URL(CONTACTS + path, encoded=True), b'{"a": 1}', AT, {"Content-Type": "application/json"})
    assert signed["Authorization"].rpartition("=")[2] == BOTOCORE[path]


def test_whatever_changes_changes_the_proof() -> None:
    def proof(key: sigv4.Key = KEY, method: str = "GET", url: URL = ROOT, body: bytes = b"", at: datetime = AT) -> str:
        return sigv4.signed(key, method, url, body, at, {})["Authorization"]

    proofs = [
        proof(),
        proof(key=sigv4.Key("AKIDEXAMPLE", "x" * 40, "us-east-1", "service")),
        proof(key=sigv4.Key("AKIDEXAMPLE", KEY.secret, "eu-west-1", "service")),
        proof(method="POST"),
        proof(url=ROOT / "x"),
        proof(url=ROOT.with_query(a="b")),
        proof(url=ROOT.with_host("other.amazonaws.com")),
        proof(url=ROOT.with_port(8443)),
        proof(body=b"x"),
        proof(at=AT + timedelta(seconds=1)),
    ]
    assert len(set(proofs)) == len(proofs)
    assert proof(at=AT.astimezone(timezone(timedelta(hours=5)))) == proofs[0]  # the same moment


def test_a_key_does_not_show_its_secret() -> None:
    assert KEY.secret not in repr(KEY)
