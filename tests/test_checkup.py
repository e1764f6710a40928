"""A message is judged as it will be judged out there: each rule has a message that breaks it, and one message that keeps them all."""

from __future__ import annotations

import base64
import random
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailprefs import checkup
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.checkup import Finding, Verdict, check, passed
from mailprefs.links import KeyRing, Links, Minted

ROOT = Path(__file__).parent.parent
ADDRESS = "Connective Care, 1 Main Street, Springfield"
COVERED = ("from", "to", "subject", "list-unsubscribe", "list-unsubscribe-post", "list-id")


@dataclass(frozen=True)
class Signer:
    """A DKIM key, and the DNS that publishes it."""

    pem: bytes
    record: bytes

    def sign(self, raw: bytes, covered: tuple[str, ...] = COVERED) -> bytes:
        raw = re.sub(rb"\r?\n", b"\r\n", raw)
        signature: bytes = dkim.sign(raw, b"mail", b"example.com", self.pem, include_headers=[name.encode() for name in covered])
        return signature + raw

    def dns(self, name: bytes, timeout: int) -> bytes | None:
        assert timeout > 0
        return self.record if name == b"mail._domainkey.example.com." else None


@pytest.fixture(scope="session")
def signer() -> Signer:
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    return Signer(pem, b"v=DKIM1; k=rsa; p=" + base64.b64encode(public))


@pytest.fixture(scope="session")
def minted(links: Links, addresses: Addresses, shared_catalogue: Catalogue) -> Minted:
    return links.mint(addresses.read("someone@example.org").key, shared_catalogue.topic("newsletter"))


@pytest.fixture(scope="session")
def long(ring: KeyRing, addresses: Addresses, shared_catalogue: Catalogue) -> Minted:
    """The same for a host that is too long for headers."""
    links = Links(ring, "unsubscribe.example.com", "u@go.example.com")
    return links.mint(addresses.read("someone@example.org").key, shared_catalogue.topic("newsletter"))


@pytest.fixture(scope="session")
def right(minted: Minted) -> bytes:
    """A message that keeps every rule, before it is signed."""
    message = EmailMessage(policy.SMTP)
    message["From"] = "Connective Care <hello@example.com>"
    message["To"] = "someone@example.org"
    message["Subject"] = "Your monthly newsletter"
    minted.put_on(message)
    message.set_content(f"Hello.\n\nStop these letters: {minted.url}\n{ADDRESS}\n", cte="8bit")
    message.add_alternative(
        f'<p>Hello.</p><p><a href="{minted.url}">Unsubscribe</a><br>Connective&nbsp;Care<br>1 Main Street<br>Springfield</p>',
        subtype="html",
        cte="8bit",
    )
    return message.as_bytes()


def verdicts(findings: tuple[Finding, ...]) -> Mapping[str, Verdict]:
    return {finding.rule: finding.verdict for finding in findings}


def test_the_right_message_keeps_every_rule(right: bytes, signer: Signer, ring: KeyRing, shared_catalogue: Catalogue) -> None:
    findings = check(signer.sign(right), ring, shared_catalogue, dns=signer.dns)
    assert set(verdicts(findings).values()) == {Verdict.PASS}, [f for f in findings if f.verdict is not Verdict.PASS]
    assert passed(findings)


def test_what_is_not_at_hand_is_a_warning_and_no_failure(right: bytes, signer: Signer) -> None:
    findings = check(signer.sign(right))
    warned = {rule for rule, verdict in verdicts(findings).items() if verdict is Verdict.WARN}
    assert warned == {"token", "postal-address", "dkim-valid"}
    assert passed(findings)


def test_a_message_that_lacks_everything_fails_with_what_to_do(ring: KeyRing, shared_catalogue: Catalogue) -> None:
    findings = check(b"From: hello@example.com\r\nSubject: Sale\r\n\r\nBuy!\r\n", ring, shared_catalogue)
    failed = {rule for rule, verdict in verdicts(findings).items() if verdict is Verdict.FAIL}
    assert failed == {
        *("list-unsubscribe", "list-unsubscribe-post", "list-id", "https-link", "https-first", "token", "link-host"),
        *("link-in-text", "postal-address", "dkim-covers", "dkim-valid"),
    }
    assert not passed(findings)


def test_every_finding_is_one_sentence_with_its_source(right: bytes) -> None:
    for raw in (right, b""):
        findings = check(raw)
        assert [f.rule for f in findings] == [rule for rule, _, _ in checkup.RULES], "always the same rules in the same order"
        for finding in findings:
            assert re.fullmatch(r"[A-Z][^\n]+\.", finding.sentence)
            assert re.match(r"RFC \d{4} §|15 USC", finding.source)


# One broken rule at a time: how the message is changed, and the rules that must then not pass. No other rule may change its verdict.

MORE = "<https://example.com/unsubscribe>"
BROKEN: Mapping[str, tuple[str, str, Verdict, set[str]]] = {
    "no From": (r"From: .*\r\n", "", Verdict.FAIL, {"from"}),
    "two From": (r"(From: .*\r\n)", r"\1\1", Verdict.FAIL, {"from", "dkim-valid"}),
    "From without an address": (r"From: .*\r\n", "From: Connective Care\r\n", Verdict.FAIL, {"from"}),
    "no pair": (r"List-Unsubscribe-Post: .*\r\n", "", Verdict.FAIL, {"list-unsubscribe-post"}),
    "the pair twice": (r"(List-Unsubscribe-Post: .*\r\n)", r"\1\1", Verdict.FAIL, {"list-unsubscribe-post"}),
    "another pair": ("=One-Click", "=one-click", Verdict.FAIL, {"list-unsubscribe-post"}),
    "two pairs": ("=One-Click", "=One-Click&x=y", Verdict.FAIL, {"list-unsubscribe-post"}),
    "no List-Id": (r"List-Id: .*\r\n", "", Verdict.FAIL, {"list-id"}),
    "two List-Ids": (r"(List-Id: .*\r\n)", r"\1\1", Verdict.FAIL, {"list-id"}),
    "List-Id without brackets": (r"List-Id: <(.*)>", r"List-Id: \1", Verdict.FAIL, {"list-id"}),
    "a long List-Id": (r"List-Id: <", "List-Id: <" + "x" * 250 + ".", Verdict.FAIL, {"list-id"}),
    "mailto first": (r"(<https[^>]*>),\s*(<mailto[^>]*>)", r"\2,\r\n \1", Verdict.FAIL, {"https-first"}),
    "a mailto that is long": (r"<mailto:u", "<mailto:unsubscribe", Verdict.WARN, {"word-length"}),
    "an encoded List-Id": (r"List-Id: ", "List-Id: =?utf-8?q?Bolet=C3=ADn?= ", Verdict.FAIL, {"encoded-word"}),
    "raw UTF-8": (r"List-Id: ", "List-Id: Boletín ", Verdict.FAIL, {"encoded-word"}),
    "a long line": (r"Hello\.\r\n", "Hello. " + "x" * 998 + "\r\n", Verdict.FAIL, {"line-length"}),
    "no link in the text": (r"Stop these letters: .*\r\n", "", Verdict.FAIL, {"link-in-text"}),
    "another link in the text": (r"(Stop these letters: .*)\r\n", r"\1?utm_source=x\r\n", Verdict.FAIL, {"link-in-text"}),
    "no link in the html": (r"<a href.*</a>", "", Verdict.FAIL, {"link-in-html"}),
    "a tracked link in the html": (r'<a href="', '<a href="https://click.example.net/', Verdict.FAIL, {"link-in-html"}),
    "no postal address in the text": (re.escape(ADDRESS), "", Verdict.FAIL, {"postal-address"}),
    "half an address": ("1 Main Street", "Main Street", Verdict.FAIL, {"postal-address"}),
}  # fmt: skip
FIELD = r"List-Unsubscribe:.*\r\n(?: .*\r\n)*"
ALL = {"list-unsubscribe", "https-link", "https-first", "token", "link-host"}
LINKS: Mapping[str, tuple[str, str, set[str]]] = {
    "no header": (f"({FIELD})", "", ALL),
    "the header twice": (f"({FIELD})", r"\1\1", ALL),
    "http": (r"<https://", "<http://", {"https-link", "https-first", "token", "link-host"}),
    "two https links": (r"<mailto[^>]*>", MORE, {"https-link", "token", "link-host"}),
    "a fold inside the link": (r"<https://go", "<https://\r\n go", {"https-link", "token", "link-host"}),
    "another's token": (r"(List-Unsubscribe:\s+<https:[^>]*).>", r"\1_>", {"token"}),
    "a known tracker": (r"(List-Unsubscribe:\s+<https://)go.example.com", r"\1u1.ct.sendgrid.net", {"link-host"}),
    "a tracker by its path": (r"(List-Unsubscribe:\s+<https://go.example.com)/u/", r"\1/ls/click?upn=", {"token", "link-host"}),
    "a redirector": (r"(List-Unsubscribe:\s+<https://)", r"\1click.example.net/?to=https%3A%2F%2F", {"token", "link-host"}),
    "another host": (r"(List-Unsubscribe:\s+<https://)go.example.com", r"\1go.example.net", {"link-host"}),
}  # fmt: skip


@pytest.mark.parametrize("cte", ["quoted-printable", "base64", "7bit"])
def test_the_link_is_found_in_whatever_encoding_it_travels(cte: str, right: bytes, minted: Minted, ring: KeyRing) -> None:
    message = EmailMessage(policy.SMTP)
    minted.put_on(message)
    message.set_content(f"Stop these letters, please: {minted.url}\n", cte=cte)
    message.add_alternative(f'<p>Hello.</p><p><a href="{minted.url}">Unsubscribe</a></p>', subtype="html", cte=cte)
    found = verdicts(check(message.as_bytes(), ring))
    assert found["link-in-text"] is found["link-in-html"] is Verdict.PASS


def changed(raw: bytes, pattern: str, into: str) -> bytes:
    result, count = re.subn(pattern, into, raw.decode())
    assert count, "the change must change something"
    return result.encode()


@pytest.mark.parametrize(("pattern", "into", "verdict", "rules"), BROKEN.values(), ids=BROKEN)
def test_each_rule_notices_its_own_mistake_and_no_other_does(
    pattern: str, into: str, verdict: Verdict, rules: set[str], right: bytes, signer: Signer, ring: KeyRing, shared_catalogue: Catalogue
) -> None:
    raw = changed(right, pattern, into)
    findings = verdicts(check(signer.sign(raw) if b"From: " in raw else raw, ring, shared_catalogue, dns=signer.dns))
    unsigned = set() if b"From: " in raw else {"dkim-covers", "dkim-valid"}
    assert {rule: v for rule, v in findings.items() if v is not Verdict.PASS and rule not in unsigned} == dict.fromkeys(rules, verdict)


@pytest.mark.parametrize(("pattern", "into", "rules"), LINKS.values(), ids=LINKS)
def test_a_wrong_link_fails_its_rules_and_is_shown_nowhere(
    pattern: str, into: str, rules: set[str], right: bytes, signer: Signer, ring: KeyRing, shared_catalogue: Catalogue
) -> None:
    findings = verdicts(check(signer.sign(changed(right, pattern, into)), ring, shared_catalogue, dns=signer.dns))
    failed = {rule for rule, verdict in findings.items() if verdict is Verdict.FAIL}
    assert failed == rules | {"link-in-text", "link-in-html"}


def test_a_long_host_is_a_warning(ring: KeyRing, long: Minted, right: bytes, minted: Minted, signer: Signer) -> None:
    findings = verdicts(check(signer.sign(right.replace(minted.url.encode(), long.url.encode())), ring, dns=signer.dns))
    assert {rule for rule, verdict in findings.items() if verdict is not Verdict.PASS} == {"word-length", "postal-address"}
    assert findings["word-length"] is Verdict.WARN


def test_the_encoded_word_of_a_mail_library_is_noticed(long: Minted) -> None:
    """What Python itself writes for a host that is too long: the reason for 74 octets."""
    message = EmailMessage()
    long.put_on(message)
    assert b"=?utf-8?q?" in message.as_bytes()
    assert verdicts(check(message.as_bytes()))["encoded-word"] is Verdict.FAIL


# DKIM


@pytest.mark.parametrize("missing", ["list-unsubscribe", "list-unsubscribe-post"])
def test_a_signature_that_leaves_one_header_out_does_not_count(missing: str, right: bytes, signer: Signer) -> None:
    findings = check(signer.sign(right, tuple(name for name in COVERED if name != missing)), dns=signer.dns)
    assert verdicts(findings)["dkim-covers"] is verdicts(findings)["dkim-valid"] is Verdict.FAIL
    assert f"cover {missing} too" in next(f.sentence for f in findings if f.rule == "dkim-covers")


def test_one_covering_signature_is_enough(right: bytes, signer: Signer) -> None:
    twice = signer.sign(signer.sign(right), ("from", "subject"))
    found = verdicts(check(twice, dns=signer.dns))
    assert found["dkim-covers"] is found["dkim-valid"] is Verdict.PASS


def test_a_message_altered_after_signing_fails(right: bytes, signer: Signer) -> None:
    for piece in (b"Hello.", b"One-Click", b"monthly"):
        altered = signer.sign(right).replace(piece, piece + b"x")
        found = verdicts(check(altered, dns=signer.dns))
        assert (found["dkim-covers"], found["dkim-valid"]) == (Verdict.PASS, Verdict.FAIL)


def test_a_key_that_is_not_published_fails_and_a_silent_dns_only_warns(right: bytes, signer: Signer) -> None:
    def silent(name: bytes, timeout: int) -> bytes | None:
        raise TimeoutError

    signed = signer.sign(right)
    assert verdicts(check(signed, dns=lambda name, timeout: None))["dkim-valid"] is Verdict.FAIL
    assert verdicts(check(signed, dns=silent))["dkim-valid"] is Verdict.WARN
    assert verdicts(check(signed))["dkim-valid"] is Verdict.WARN


def test_only_so_many_signatures_are_asked_for(right: bytes, signer: Signer) -> None:
    asked: list[bytes] = []

    def count(name: bytes, timeout: int) -> bytes | None:
        asked.append(name)
        return None

    signature = signer.sign(right).partition(b"From: ")[0]
    check(signature * 100 + right, dns=count)
    assert 0 < len(asked) <= checkup.SIGNATURES


# Whatever bytes come

_LINES = st.sampled_from(
    [
        b"List-Unsubscribe: <https://go.example.com/u/x>",
        b"List-Unsubscribe: <<>>,<,",
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        b"DKIM-Signature: v=1; a=rsa-sha256; d=x; s=y; h=from:list-unsubscribe:list-unsubscribe-post; bh=!; b=!",
        b"DKIM-Signature: v=1; a=ed25519-sha256; c=x/y; d=x; s=y; h=from:list-unsubscribe:list-unsubscribe-post; bh=eA==; b=eA==",
        b"DKIM-Signature: ;;;=;h=",
        b"From: \xff@\xfe",
        b"List-Id: \x00<a.b>",
        b"Content-Type: multipart/mixed; boundary=x",
        b"Content-Type: multipart/mixed; boundary=",
        b"Content-Type: text/html; charset=no-such",
        b"Content-Type: text/html; charset*=utf-16'x'%00",
        b"Content-Type: message/rfc822",
        b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: x-uuencode",
        b"Content-Transfer-Encoding: quoted-printable",
        b"Content-Disposition: attachment; filename*=x",
        b"",
        b"--x",
        b"--x--",
        b"<![if><!DOCTYPE [<!--<a href='https://go.example.com/u/x'>",
        b"begin 644 x\n#\xff",
        b" folded",
        b"\r",
        b"=\xff=ZZ",
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.binary(max_size=300), st.lists(st.one_of(_LINES, st.binary(max_size=20)), max_size=25).map(b"\r\n".join)))
@example(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n" * 5_000)
@example(b"".join(b"Content-Type: multipart/mixed; boundary=x%d\r\n\r\n--x%d\r\n" % (n, n) for n in range(3_000)))
@example(b"Content-Type: message/rfc822\r\n\r\n" * 3_000)
@example(b"DKIM-Signature: " + b"h=from:" * 20_000 + b"\r\n\r\n")
@example(b"Content-Type: text/html\r\n\r\n<![x<a href=" + b"<" * 5_000)
def test_no_bytes_make_it_raise(raw: bytes) -> None:
    findings = check(raw, dns=lambda name, timeout: b"v=DKIM1; p=" + base64.b64encode(raw[:40]))
    assert len(findings) == len(checkup.RULES)
    assert not passed(findings)


def test_no_damage_to_a_good_message_makes_it_raise(right: bytes, signer: Signer, ring: KeyRing, shared_catalogue: Catalogue) -> None:
    chance = random.Random(8058)
    whole = signer.sign(right)
    for _ in range(1_500):
        raw = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(len(raw))
            raw[at : at + chance.choice([0, 1, 1, 5])] = chance.choice([b"", b"\0", b"\r\n", b"\xff", b"<", b"=?", b";", raw[at : at + 40]])
        assert len(check(bytes(raw), ring, shared_catalogue, dns=signer.dns)) == len(checkup.RULES)


def test_no_finding_repeats_what_the_message_says(
    right: bytes, minted: Minted, signer: Signer, ring: KeyRing, shared_catalogue: Catalogue
) -> None:
    for raw in (signer.sign(right), right, signer.sign(right.replace(minted.url[-20:].encode(), b"x" * 20))):
        said = repr(check(raw, ring, shared_catalogue))
        assert minted.url[-45:] not in said
        assert "someone@" not in said


def test_it_opens_nothing_by_itself(right: bytes, signer: Signer) -> None:
    """Where no DNS answer is passed in, none is asked for: dkimpy, which could, is not even loaded."""
    script = """
import sys
def bar(event, _):
    if event.startswith("socket."):
        raise SystemExit(f"barred: {event}")
sys.addaudithook(bar)
from mailprefs import checkup
print(checkup.passed(checkup.check(sys.stdin.buffer.read())), "dkim" in sys.modules, "dns" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", script], input=signer.sign(right), check=False, cwd=ROOT, capture_output=True, timeout=60)
    assert run.stdout.split() == [b"True", b"False", b"False"], run.stderr
