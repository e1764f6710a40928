"""One canonical form and one key for each reachable place. Keys are computed here a second time, with hmac alone."""

from __future__ import annotations

import hmac
import time
import traceback
import unicodedata
from collections import Counter
from contextlib import suppress
from uuid import UUID

import idna
import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mailprefs import addresses
from mailprefs.addresses import Addresses
from mailprefs.errors import Unreadable
from mailprefs.words import BUCKETS, Address, Channel

DIGEST = bytes(range(32))
READER = Addresses(DIGEST)


def independent_key(channel: str, canonical: str) -> UUID:
    """docs/tokens.md, once more."""
    return UUID(bytes=hmac.digest(DIGEST, channel.encode() + b"\0" + canonical.encode(), "sha256")[:16])


def by_the_library(text: str) -> str | None:
    """The canonical form by email-validator and idna alone; None where they refuse."""
    try:
        found = validate_email(text, strict=True, check_deliverability=False)
    except EmailNotValidError:
        return None
    local = text.rpartition("@")[0]
    if len(local.encode()) > 64:
        return None
    twice = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", local).casefold())
    assert found.ascii_domain == idna.encode(text.rpartition("@")[2], uts46=True).decode()
    return f"{twice}@{found.ascii_domain}"


def ours(text: str) -> str | None:
    try:
        return addresses.email(text)
    except Unreadable:
        return None


# The canonical form

SAME = {  # canonical form → what else is that very address
    "someone@example.com": ["Someone@Example.COM", " someone@example.com\r\n", "SOMEONE@example。com"],
    "o'brien+news@example.org": ["O'Brien+News@example.org"],
    "first.last@example.net": ["First.Last@EXAMPLE.net"],
    "user@xn--bcher-kva.example.com": ["user@bücher.example.com", "USER@BÜCHER.example.com", "user@XN--BCHER-KVA.example.com"],
    "用户@xn--fsqu00a.example.com": ["用户@例子.example.com"],
    "ss@example.com": ["ß@example.com", "ẞ@example.com", "SS@example.com", "ſs@example.com"],
    "k@example.com": ["K@example.com", "K@example.com", "k@example.com", "\u212a@example.com"],
    "fi@example.com": ["ﬁ@example.com", "FI@example.com"],
    "i\u0307@example.com": ["İ@example.com"],
    "ı@example.com": [],
    "josé@example.com": ["jose\u0301@example.com", "JOSÉ@example.com"],
    "a@xn--strae-oqa.example.com": ["a@straße.example.com"],
    "a@strasse.example.com": [],
}


@pytest.mark.parametrize("canonical", SAME)
def test_every_spelling_of_an_address_has_one_wide_key(canonical: str) -> None:
    expected = unicodedata.normalize("NFKC", canonical)
    for text in [canonical, *SAME[canonical]]:
        assert READER.read(text).key == independent_key("email", expected), ascii(text)


def test_capital_greek_and_its_small_letters_are_one_address() -> None:
    """NFKC and then folding alone would keep these apart: folding takes ΐ to pieces."""
    for letter in "ΐΰῒῢῗῧǰẖẗẘẙᾶῆῖῦῶ":
        assert READER.read(f"{letter}@example.com").key == READER.read(f"{letter.upper()}@example.com").key, letter


def test_what_differs_stays_apart() -> None:
    apart = [
        "firstlast@example.com",
        "first.last@example.com",  # no dot folding: another mailbox at most providers
        "first.last+news@example.com",
        "mike@example.com",
        "mıke@example.com",  # a dotless i folds to itself
        "mike@example.org",
        "mike@strasse.example.com",
        "mike@straße.example.com",
    ]
    assert len({READER.read(text).key for text in apart}) == len(apart)


def test_the_text_is_kept_as_it_was_written() -> None:
    found = READER.read("  O'Brien@Bücher.Example.COM \n")
    assert found == Address(independent_key("email", "o'brien@xn--bcher-kva.example.com"), Channel.EMAIL, "O'Brien@Bücher.Example.COM")


_ATOMS = st.text(st.sampled_from("abzABZ019!#$%&'*+/=?^_`{|}~.-ßẞİıſﬁéΐ用K\u0301"), min_size=1, max_size=70)
_LABELS = st.text(st.sampled_from("abzABZ019-_éßü例ı\u212a"), min_size=1, max_size=66)
_TOPS = st.sampled_from(
    [
        "com",
        "COM",
        "c1",
        "1c",
        "c-c",
        "c-",
        "test",
        "TEST",
        "local",
        "Localhost",
        "arpa",
        "onion",
        "invalid",
        "xn--p1ai",
        "рф",
        "c.",
        "1",
        "a--b",
        "xn--",
    ]
)
_EMAILS = st.builds(lambda local, labels, top: f"{local}@{'.'.join([*labels, top])}", _ATOMS, st.lists(_LABELS, max_size=4), _TOPS)


@settings(deadline=None)
@given(_EMAILS)
@example("a@b.c1")
@example("a@b.1c")
@example("a@b.TEST")
@example("a@ab--c.com")
@example("a" * 64 + "@example.com")
@example("a" * 65 + "@example.com")
@example("é" * 32 + "@example.com")
@example("é" * 33 + "@example.com")
def test_the_fast_path_and_the_library_agree(text: str) -> None:
    assert ours(text) == by_the_library(text)


@settings(deadline=None)
@given(st.emails())
def test_the_fast_path_and_the_library_agree_on_ordinary_addresses(text: str) -> None:
    assert ours(text) == by_the_library(text)


def test_nearly_every_address_takes_the_fast_path() -> None:
    plain = ["someone@example.com", "Some.One+news@mail.example.org", "o'brien@example.net", "a@b.co", "x" * 64 + "@example.com"]
    assert all(addresses._PLAIN.match(text) for text in plain)


@settings(deadline=None)
@given(st.text(st.characters(categories=["L", "Mn", "N"]), min_size=1, max_size=16))
def test_reading_the_canonical_form_gives_it_back(local: str) -> None:
    canonical = ours(f"{local}@example.com")
    assume(canonical is not None)
    assert canonical is not None
    again = ours(canonical)
    assert again in (canonical, None)  # None: NFKC opens some signs into brackets and spaces; such an address is only ever keyed
    assert again == canonical or not local.isascii()


# What is refused

REFUSED = {
    "no address": "hello",
    "nothing": "",
    "no local part": "@example.com",
    "no domain": "someone@",
    "two at signs": "a@b@example.com",
    "a quoted local part": '"some one"@example.com',
    "a display name": "Some One <someone@example.com>",
    "brackets": "<someone@example.com>",
    "a trailing dot": "someone@example.com.",
    "a leading dot": ".someone@example.com",
    "two dots": "some..one@example.com",
    "a dot before the at sign": "someone.@example.com",
    "a literal": "someone@[127.0.0.1]",
    "a number": "someone@127.0.0.1",
    "no dot in the domain": "someone@example",
    "a domain that is none": "someone@exa_mple.com",
    "a false A-label": "someone@xn--a.com",
    "test": "someone@shop.test",
    "invalid": "someone@shop.INVALID",
    "local": "someone@printer.local",
    "localhost": "someone@localhost",
    "onion": "someone@shop.onion",
    "arpa": "someone@home.arpa",
    "a local part of 65": "a" * 65 + "@example.com",
    "a local part of 66 octets in 33 letters": "é" * 33 + "@example.com",
    "255 octets": "a" * 64 + "@" + "b" * 62 + "." + "c" * 62 + "." + "d" * 60 + ".com",
    "a label of 64": "a@" + "b" * 64 + ".com",
    "254 letters of more octets": "a@" + "ñ." * 120 + "example.com",
    "a NUL": "some\0one@example.com",
    "a lone surrogate": "some\ud800one@example.com",
    "a line break": "some\none@example.com",
    "a right-to-left mark": "some\u202eone@example.com",
    "a filler": "some\u3164one@example.com",
    "a grapheme joiner": "some\u034fone@example.com",
    "a variation selector": "someone\ufe0f@example.com",
    "a selector of ideographs": "some\U000e0100one@example.com",
    "a space": "some one@example.com",
    "a phone number without its country": "555 0100",
    "too short a phone number": "+1 23",
    "a phone number of no country": "+999 5550100",
    "an impossible phone number": "+1 555 01001 234 567",
    "fifty thousand letters": "a" * 50_000 + "@example.com",
    "fifty thousand at signs": "@" * 50_000,
    "fifty thousand labels": "a@" + "b." * 25_000 + "com",
    "fifty thousand plus signs": "+" * 50_000,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_an_address_is_refused_quickly_and_never_repeated(text: str) -> None:
    began = time.process_time()
    with pytest.raises(Unreadable) as refused:
        READER.read(text)
    assert time.process_time() - began < 1  # second of the processor; about a millisecond in fact
    shown = "".join(traceback.format_exception(refused.value)) + repr(refused.value)
    assert len(text) < 3 or (text not in shown and text.encode("utf-8", "backslashreplace").decode() not in shown)


def test_more_octets_than_an_address_has_are_refused_without_a_look_at_them() -> None:
    """One whose domain is looked at takes a hundred times as long: the control."""

    def seconds(text: str) -> float:
        began = time.process_time()
        for _ in range(50):
            with suppress(Unreadable):
                READER.read(text)
        return time.process_time() - began

    label = "ñandú" * 3
    READER.read(f"a@{label}.example.com")  # the libraries are loaded
    unseen, seen = (min(seconds("a@" + f"{label}." * labels + "com") for _ in range(5)) for labels in (14, 8))
    assert unseen * 10 < seen


@pytest.mark.parametrize(
    "text", ["a" * 64 + "@example.com", "é" * 32 + "@example.com", "a" * 64 + "@" + "b" * 62 + "." + "c" * 62 + "." + "d" * 59 + ".com"]
)
def test_the_longest_address_is_accepted(text: str) -> None:
    """The control of the limits above."""
    assert READER.read(text).text == text


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_read_or_unreadable_and_nothing_else(text: str) -> None:
    said = ""
    try:
        READER.read(text)
    except Unreadable as error:
        said = str(error)
    assert len(text) < 20 or text not in said


# What a provider reports


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_we_would_not_accept_is_still_keyed_when_a_provider_reports_it(text: str) -> None:
    found = READER.heard(f"  {text}\n")
    channel = "sms" if text.startswith("+") and "@" not in text else "email"
    spelled = text.strip().casefold().encode("utf-8", "surrogatepass")
    assert found.key == UUID(bytes=hmac.digest(DIGEST, channel.encode() + b"\0" + spelled, "sha256")[:16])
    assert READER.heard(text.upper()).key == READER.heard(text.upper().lower()).key


@settings(deadline=None)
@given(st.text(max_size=400))
def test_the_text_of_what_is_heard_can_be_stored_or_is_left_out(text: str) -> None:
    found = READER.heard(text)
    if found.text is not None:
        found.text.encode()
        assert "\0" not in found.text
        assert len(found.text) <= 254


def test_what_an_application_asks_about_is_what_is_read_or_else_what_would_be_heard() -> None:
    for text in ("jane@example.org", " Jane@Example.ORG ", "+12025550123", "jörg@bücher.example.com"):
        assert READER.asked(text) == (READER.read(text), True)
    for text in ("Jane <jane@example.org>", "garbage", "+1 23", "", "a@" + "b" * 300, "x\0y@example.org"):
        assert READER.asked(text) == (READER.heard(text), False)


def test_what_we_accept_is_heard_as_it_is_read() -> None:
    for text in ("Someone@Example.com", "用户@例子.example.com", "+1 415 555 0100"):
        assert READER.heard(text) == READER.read(text)


@pytest.mark.parametrize("text", ["+15551234567", "+1 415 555 0100", "+plus", "+"])
def test_what_a_provider_of_mail_reports_is_no_phone_however_it_is_spelled(text: str) -> None:
    found = READER.heard(text, Channel.EMAIL)
    assert (found.channel, found.key) == (Channel.EMAIL, READER.key(Channel.EMAIL, text))
    assert READER.heard(text, Channel.SMS) == READER.heard(text), "the control: told by a provider of texts, it is one"
    assert READER.heard(text).channel is Channel.SMS


def test_what_a_provider_of_texts_reports_is_no_mailbox() -> None:
    assert READER.heard("Someone@Example.com", Channel.SMS).channel is Channel.SMS
    assert READER.heard("Someone@Example.com", Channel.EMAIL) == READER.read("Someone@Example.com"), "the control"


# Keys


def test_the_pinned_keys_are_what_anyone_can_compute() -> None:
    """Literal, so that no later version can lose what is stored or stand in a link."""
    assert READER.read("Someone@Example.COM").key == UUID("a5318b89-2af3-f654-7ffe-3f3a5602a2eb")
    assert READER.read("用户@例子.example.com").key == UUID("52dc893c-168a-932d-3b17-409ee6bc399b")
    assert READER.read("+1 (415) 555-0100").key == UUID("d54bacc8-de54-f88f-fdfa-1bc9660dd779")


@settings(deadline=None)
@given(st.text(), st.sampled_from(Channel))
def test_a_key_is_hmac_of_channel_nul_and_text(canonical: str, channel: Channel) -> None:
    assert READER.key(channel, canonical) == independent_key(channel.value, canonical)


def test_a_key_depends_on_the_channel_and_on_the_digest_key() -> None:
    keys = {reader.key(channel, "+14155550100") for reader in (READER, Addresses(DIGEST[::-1])) for channel in Channel}
    assert len(keys) == 4


PHONES = {
    "+14155550100": ["+1 415 555 0100", "+1 (415) 555-0100", "+1.415.555.0100"],
    "+442079460958": ["+44 20 7946 0958", "+44 (0)20 7946 0958"],
    "+390612345678": ["+39 06 1234 5678"],  # Italy keeps its zero
    "+4915112345678": ["+49 151 12345678", "+49-151-12345678"],
}


@pytest.mark.parametrize("number", PHONES)
def test_a_phone_number_is_kept_in_e164(number: str) -> None:
    for text in [number, *PHONES[number]]:
        assert READER.read(f" {text} ") == Address(independent_key("sms", number), Channel.SMS, number)


@settings(deadline=None)
@given(st.uuids())
def test_a_bucket_is_between_0_and_1023(key: UUID) -> None:
    assert 0 <= Address(key).bucket < BUCKETS == 1024


def test_addresses_spread_evenly_over_the_buckets() -> None:
    counted = Counter(READER.read(f"person{n}@example.com").bucket for n in range(51_200))
    assert len(counted) == BUCKETS
    assert max(counted.values()) < 2 * 50  # 50 is the mean; 100 is seven standard deviations off
    assert min(counted.values()) > 50 / 4
