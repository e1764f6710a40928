"""A sender is proven by the operator's own mail server alone, for the domain in From, and by nothing that a letter brings along."""

from __future__ import annotations

from email import message_from_string

import pytest

from mailprefs.senders import claimed, proven

US = "mx.example.com"
GOOD = "dmarc=pass (p=REJECT sp=REJECT dis=NONE) header.from=example.org"


def judged(*results: str, sender: str = "Jane <jane@example.org>", authserv: str | None = US) -> str | None:
    heads = "".join(f"Authentication-Results: {each}\n" for each in results)
    return proven(message_from_string(f"{heads}From: {sender}\nSubject: x\n\n"), authserv)


@pytest.mark.parametrize(
    "results",
    [
        f"{US}; {GOOD}",
        f"{US.upper()} 1;\n\t{GOOD};\n\tspf=softfail smtp.mailfrom=x@example.net",
        f"{US}; spf=none; dkim=fail header.d=example.org; {GOOD}",
        f"{US}; dkim=pass (2048-bit key; unprotected) header.d=example.org header.b=Ab/12=",
        f"{US}; dkim=pass header.i=@example.org header.s=s1",
        f"{US}; dmarc=none header.from=example.org; spf=pass (it's (quite) \\) fine) smtp.mailfrom=bounce@example.org",
        f"{US}; dmarc=bestguesspass action=none header.from=example.org; dkim=pass header.d=example.org; compauth=pass reason=109",
        f'"{US}"; {GOOD}',
    ],
)
def test_a_pass_for_the_very_domain_proves(results: str) -> None:
    assert judged(results) == "jane@example.org"
    assert judged(results, authserv="mx.example.net") is None
    assert judged(results, authserv=None) is None


@pytest.mark.parametrize(
    "results",
    [
        "mx.example.net; " + GOOD,
        GOOD,
        f"{US}",
        f"{US}; none",
        f"{US}; dmarc=fail header.from=example.org; dkim=pass header.d=example.org",
        f"{US}; dmarc=temperror header.from=example.org; spf=pass smtp.mailfrom=example.org",
        f"{US}; dmarc=pass header.from=example.net",
        f"{US}; dmarc=pass",
        f"{US}; dmarc=pass header.from=example.org; dmarc=fail header.from=example.org",
        f"{US}; dmarc=pass header.from=example.org header.from=example.net",
        f"{US}; spf=pass smtp.mailfrom=jane@example.net; dkim=pass header.d=example.net",
        f"{US}; dkim=pass header.d=mail.example.org",  # below: only a list of public suffixes could tell
        f"{US}; dkim=pass header.d=org",
        f"{US}; dkim=pass header.d=notexample.org",
        f"{US}; dkim=policy header.d=example.org",
        f"{US}; spf=pass smtp.helo=example.org",
        f'{US}; spf=pass smtp.mailfrom="x; dmarc=pass header.from=example.org"@example.net',
        f"{US}; spf=pass smtp.mailfrom=x@example.net (; dmarc=pass header.from=example.org)",
        f"{US}; spf=pass (x) ) smtp.mailfrom=x@example.net; {GOOD}",
        f"{US}; {GOOD}; spf=fail (never closed",
        f'{US}; {GOOD}; reason="never closed',
        f"{US}; {GOOD}; " + "x" * 5000,
    ],
)
def test_anything_less_proves_nobody(results: str) -> None:
    assert judged(results) is None


def test_only_the_field_that_the_server_wrote_last_counts() -> None:
    fail = f"{US}; dmarc=fail header.from=example.org"
    assert judged(fail, f"{US}; {GOOD}") is None
    assert judged("mx.example.net; dmarc=pass header.from=example.org", fail, f"{US}; {GOOD}") is None
    assert judged("mx.example.net; dmarc=fail header.from=example.org", f"{US}; {GOOD}", fail) == "jane@example.org"


@pytest.mark.parametrize(
    ("sender", "address"),
    [
        ("jane@example.org", "jane@example.org"),
        ("<jane@example.org>", "jane@example.org"),
        ('"Doe, Jane" <jane@EXAMPLE.org>', "jane@EXAMPLE.org"),
        ("=?utf-8?q?J=C3=A1ne?= <jane@example.org>", "jane@example.org"),
        ('"a@example.net" <jane@example.org>', "jane@example.org"),
        ("victim@example.org <jane@example.org>", None),
        ("victim@example.org, jane@example.org", None),
        ("<victim@example.org><jane@example.org>", None),
        ("jane@example.org(victim@example.org)", None),
        ("us: victim@example.org, jane@example.org;", None),
        ("jane@example.org\nFrom: victim@example.org", None),
        ("", None),
        ("jane", None),
        ("jane@[192.0.2.1]", None),
    ],
)
def test_a_sender_is_one_address_written_plainly(sender: str, address: str | None) -> None:
    assert judged(f"{US}; {GOOD}", sender=sender) == address


def test_a_subdomain_is_stood_for_by_the_domain_above_it() -> None:
    assert judged(f"{US}; dkim=pass header.d=example.org", sender="jane@mail.example.org") == "jane@mail.example.org"


def test_what_is_claimed_is_claimed_by_from_and_envelope() -> None:
    message = message_from_string("From: a@example.org, b@example.org\n\n")
    assert claimed(message, "c@example.org") == ["a@example.org", "b@example.org", "c@example.org"]
    assert claimed(message_from_string("\n"), None) == []
