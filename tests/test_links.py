"""Tokens, headers and the guard. The bytes are computed here a second time, from docs/tokens.md, with hmac and base64 alone."""

from __future__ import annotations

import base64
import hmac
import json
import random
import re
import string
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from datetime import date
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from pathlib import Path
from typing import Any
from uuid import UUID

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from itsdangerous import BadSignature, Signer

from mailprefs import links
from mailprefs.errors import Forged, MailprefsError, Misconfigured, NotMintable, Unguarded
from mailprefs.links import KeyRing, KeyState, Links, Minted
from mailprefs.words import Stream

ROOT = Path(__file__).parent.parent
DIGEST, SECRET, SEED = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
RING = KeyRing.parse(
    json.dumps(
        {
            "digest": base64.b64encode(DIGEST).decode(),
            "keys": [{"id": 1, "secret": base64.b64encode(SECRET).decode(), "state": "mint", "created": "2026-11-22"}],
            "export": base64.b64encode(SEED).decode(),
        }
    )
)
SOMEONE = UUID("00112233-4455-6677-8899-aabbccddeeff")
PINNED = "AQEQABEiM0RVZneImaq7zN3u_w.NLMu3W1RxxPeSVBIKg"  # in inboxes for ever: this line never changes
ALPHABET = string.ascii_letters + string.digits + "-_"
KINDS = ("manage", "undo", "confirm", "receipt", "console")
POLICIES = {name: getattr(policy, name) for name in ("compat32", "default", "SMTP", "SMTPUTF8", "HTTP", "strict")}


@dataclass(frozen=True)
class Topic:
    number: int = 272
    stream: Stream | None = Stream.MARKETING
    name: str = "connective/newsletter"
    sensitive: bool = False


NEWSLETTER = Topic()
EIGHTEEN = Links(RING, "emails.example.com", "u@emails.example.com")  # the longest host that fits


def independent_token(key_id: int, secret: bytes, scope: int, address: UUID) -> str:
    """docs/tokens.md, once more."""
    body = base64.urlsafe_b64encode(bytes([key_id]) + scope.to_bytes(2, "big") + address.bytes).rstrip(b"=")
    subkey = hmac.digest(secret, b"mailprefs/u/1", "sha256")
    tag = base64.urlsafe_b64encode(hmac.digest(subkey, body, "sha256")[:13]).rstrip(b"=")
    return (body + b"." + tag).decode()


# The bytes


def test_the_pinned_token_is_what_the_library_mints_reads_and_anyone_can_compute() -> None:
    assert EIGHTEEN.token(SOMEONE, NEWSLETTER) == PINNED
    assert independent_token(1, SECRET, 272, SOMEONE) == PINNED
    assert links.read(RING, PINNED) == links.Token(1, 272, SOMEONE)


@settings(deadline=None)
@given(address=st.uuids(), scope=st.integers(0, 65535), key_id=st.integers(0, 255), secret=st.binary(min_size=32, max_size=32))
def test_every_token_has_45_characters_one_spelling_and_ends_in_a_letter_or_digit(
    address: UUID, scope: int, key_id: int, secret: bytes
) -> None:
    ring = KeyRing(DIGEST, (links.Key(key_id, secret, KeyState.MINT, date(2026, 11, 22)),), SEED)
    token = Links(ring, "go.example.com", "u@go.example.com").token(address, replace(NEWSLETTER, number=scope))
    assert len(token) == links.LENGTH == 45
    assert token[-1].isalnum()
    assert token == independent_token(key_id, secret, scope, address)
    assert links.read(ring, token) == links.Token(key_id, scope, address)


@settings(deadline=None)
@given(addresses=st.lists(st.uuids(), max_size=50), scope=st.integers(256, 65535))
def test_a_stream_of_links_is_the_same_bytes_as_each_minted_alone(addresses: list[UUID], scope: int) -> None:
    topic = replace(NEWSLETTER, number=scope)
    assert list(EIGHTEEN.stream(addresses, topic)) == [EIGHTEEN.token(address, topic) for address in addresses]
    assert list(EIGHTEEN.minted_stream(addresses, topic)) == [EIGHTEEN.mint(address, topic) for address in addresses]


def accepted(text: str, ring: KeyRing = RING) -> bool:
    try:
        links.read(ring, text)
    except Forged:
        return False
    return True


def alterations(token: str) -> set[str]:
    """Every text that is one character away: changed, put in, left out; and the usual paddings."""
    every = ALPHABET + "=.+/ \n\0é"
    changed = {token[:i] + c + token[i + 1 :] for i in range(len(token)) for c in every}
    inserted = {token[:i] + c + token[i:] for i in range(len(token) + 1) for c in every}
    missing = {token[:i] + token[i + 1 :] for i in range(len(token))}
    return (changed | inserted | missing | {token.lower(), token.upper(), token + "==", f" {token}", ""}) - {token}


def test_no_altered_token_is_accepted() -> None:
    tried = alterations(PINNED)
    assert accepted(PINNED)
    assert not [text for text in tried if accepted(text)]
    sys.stdout.write(f"{len(tried)} altered tokens refused\n")
    assert len(tried) > 5_000


def test_the_same_alterations_do_fool_a_signer_that_does_not_insist_on_one_spelling() -> None:
    """The control: without it, the sweep above might simply be blind."""
    signer = Signer("secret")
    token = signer.sign("272").decode()
    fooled = [text for text in alterations(token) if "\0" not in text and signer.validate(text.encode())]
    sys.stdout.write(f"{len(fooled)} altered strings pass a default Signer\n")
    assert fooled


def test_a_hundred_thousand_guesses_are_refused() -> None:
    chance = random.Random(8058)
    key_and_scope = PINNED[:4]
    for _ in range(100_000):
        address, tag = ("".join(chance.choices(ALPHABET, k=length)) for length in (22, 17))
        assert not accepted(f"{key_and_scope}{address}.{tag}{chance.choice('AQgw')}")
    sys.stdout.write("100000 guesses refused\n")


@settings(deadline=None)
@given(st.text(max_size=200) | st.text(st.characters(max_codepoint=127), min_size=links.LENGTH, max_size=links.LENGTH))
def test_any_text_is_read_or_forged_and_nothing_else(text: str) -> None:
    assert not accepted(text)


def test_a_refusal_says_nothing_about_the_token() -> None:
    with pytest.raises(Forged) as refused:
        links.read(RING, PINNED[:-1] + "w")
    assert PINNED[:10] not in "".join(traceback.format_exception(refused.value))


def test_a_transactional_topic_has_no_link() -> None:
    for stream in (Stream.TRANSACTIONAL, None):
        topic = replace(NEWSLETTER, stream=stream)
        for mint in (EIGHTEEN.mint, EIGHTEEN.token):
            with pytest.raises(NotMintable):
                mint(SOMEONE, topic)
        for stream_of in (EIGHTEEN.stream, EIGHTEEN.minted_stream):
            with pytest.raises(NotMintable):  # at once, not when the first is taken
                stream_of([SOMEONE], topic)


# The key ring


def test_no_kind_of_token_works_as_another() -> None:
    made = {kind: RING.timed(kind).dumps("x") for kind in KINDS}
    for kind, value in made.items():
        assert not accepted(str(value))
        for other in KINDS:
            if other == kind:
                assert RING.timed(other).loads(value, max_age=60) == "x"
            else:
                with pytest.raises(BadSignature):
                    RING.timed(other).loads(value, max_age=60)
    for kind in KINDS:
        with pytest.raises(BadSignature):
            RING.timed(kind).loads(PINNED, max_age=60)


def with_state(ring: KeyRing, number: int, state: KeyState) -> KeyRing:
    return replace(ring, keys=tuple(replace(key, state=state) if key.id == number else key for key in ring.keys))


def test_a_key_that_no_longer_mints_still_stops_mail() -> None:
    newer = RING.renewed(date(2027, 1, 1))
    assert [(key.id, key.state) for key in newer.keys] == [(1, KeyState.VERIFY), (2, KeyState.MINT)]
    assert Links(newer, "go.example.com", "u@go.example.com").token(SOMEONE, NEWSLETTER) != PINNED
    for ring in (newer, newer.retired(1), with_state(newer, 1, KeyState.COMPROMISED)):
        assert links.read(ring, PINNED) == links.Token(1, 272, SOMEONE)
    assert not accepted(PINNED, replace(newer, keys=newer.keys[1:])), "the control: without its key a token is nothing"


def test_a_compromised_key_may_stop_and_nothing_else() -> None:
    newer = RING.renewed(date(2027, 1, 1))
    for kind in KINDS:
        old = RING.timed(kind).dumps("x")
        assert newer.timed(kind).loads(old, max_age=60) == "x"
        with pytest.raises(BadSignature):
            with_state(newer, 1, KeyState.COMPROMISED).timed(kind).loads(old, max_age=60)


def test_timed_values_are_signed_by_the_key_that_mints() -> None:
    newer = RING.renewed(date(2027, 1, 1))
    alone = replace(newer, keys=newer.keys[1:])
    assert alone.timed("undo").loads(newer.timed("undo").dumps("x"), max_age=60) == "x"


def test_the_last_minting_key_cannot_be_retired() -> None:
    with pytest.raises(Misconfigured, match="keys new"):
        RING.retired(1)
    with pytest.raises(Misconfigured, match="no key 9"):
        RING.retired(9)


def test_a_key_ring_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(RING.dumped())
    file.chmod(0o600)
    assert KeyRing.load(str(file)) == KeyRing.load(RING.dumped()) == RING
    fresh = KeyRing.new(date(2026, 11, 22))
    assert KeyRing.parse(fresh.dumped()) == fresh != KeyRing.new(date(2026, 11, 22))


def test_a_key_ring_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(RING.dumped())
    for mode in (0o640, 0o604, 0o620, 0o644):
        file.chmod(mode)
        with pytest.raises(Misconfigured, match="chmod 600"):
            KeyRing.load(str(file))


def _broken(change: Callable[[dict[str, Any]], object]) -> str:
    raw = json.loads(RING.dumped())
    change(raw)
    return json.dumps(raw)


BROKEN = {
    "two that mint": lambda raw: raw["keys"].append({**raw["keys"][0], "id": 2}),
    "none that mints": lambda raw: raw["keys"][0].update(state="verify"),
    "the same id twice": lambda raw: raw["keys"].append({**raw["keys"][0], "state": "verify"}),
    "no digest": lambda raw: raw.pop("digest"),
    "a short secret": lambda raw: raw["keys"][0].update(secret=raw["keys"][0]["secret"][:40]),
    "a secret that is a number": lambda raw: raw["keys"][0].update(secret=7),
    "an unknown state": lambda raw: raw["keys"][0].update(state="asleep"),
    "an id too large": lambda raw: raw["keys"][0].update(id=256),
    "an id that is a word": lambda raw: raw["keys"][0].update(id="1"),
    "a date that is none": lambda raw: raw["keys"][0].update(created="yesterday"),
    "keys that are no list": lambda raw: raw.update(keys=3),
    "no export seed": lambda raw: raw.update(export=None),
}


@pytest.mark.parametrize("text", [*map(_broken, BROKEN.values()), RING.dumped()[:-9], "{", "{}", "[]", "{" * 100_000], ids=str.split)
def test_a_broken_key_ring_is_a_clear_error_that_holds_no_secret(text: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text)
    file.chmod(0o600)
    for source in (text, str(file)):
        with pytest.raises(Misconfigured) as refused:
            KeyRing.load(source)
        assert_no_secret(refused.value)


@pytest.mark.parametrize(
    "source",
    [
        base64.b64encode(SECRET).decode(),
        base64.urlsafe_b64encode(SECRET).decode().rstrip("="),
        base64.b64encode(RING.dumped().encode()).decode(),
        RING.dumped().lstrip("{ \n"),
        f"{base64.b64encode(SECRET).decode()}\0",
    ],
    ids=["a bare secret", "urlsafe", "the ring in base64", "without its brace", "a NUL"],
)
def test_a_secret_given_in_place_of_a_path_is_not_repeated(source: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        KeyRing.load(source)
    assert_no_secret(refused.value)
    assert source[:20] not in str(refused.value)


def test_a_missing_key_ring_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"keys\.json does not exist.*mailprefs keys new") as refused:
        KeyRing.load(str(tmp_path / "keys.json"))
    assert "MAILPREFS_KEYS" in str(refused.value)
    tmp_path.chmod(0o700)
    with pytest.raises(Misconfigured, match="cannot be read: IsADirectoryError"):
        KeyRing.load(str(tmp_path))


def test_no_repr_shows_a_secret() -> None:
    assert_no_secret(RING, RING.keys, EIGHTEEN, RING.signer(1))


def assert_no_secret(*shown: object) -> None:
    for thing in shown:
        text = "".join(traceback.format_exception(thing)) if isinstance(thing, MailprefsError) else f"{thing!r} {thing}"
        for secret in (DIGEST, SECRET, SEED):
            assert base64.b64encode(secret).decode()[:12] not in text
            assert repr(secret)[2:20] not in text


# The headers


def test_url_and_mailto_word_of_a_host_of_18_characters_fit_in_74_octets() -> None:
    minted = EIGHTEEN.mint(SOMEONE, NEWSLETTER)
    assert len("emails.example.com") == 18
    assert len(minted.url) == EIGHTEEN.longest == links.LONGEST_WORD == 74
    assert minted == Minted(
        f"https://emails.example.com/u/{PINNED}",
        f"<https://emails.example.com/u/{PINNED}>, <mailto:u+{PINNED}@emails.example.com>",
        "List-Unsubscribe=One-Click",
        "<newsletter.emails.example.com>",
    )
    assert all(len(word) <= 74 for word in re.findall(r"<(.*?)>", minted.list_unsubscribe))


def test_the_list_id_of_a_sensitive_topic_is_its_brand() -> None:
    assert EIGHTEEN.mint(SOMEONE, replace(NEWSLETTER, sensitive=True)).list_id == "<connective.emails.example.com>"
    assert Links(RING, "127.0.0.1:8080", "u@example.com").mint(SOMEONE, NEWSLETTER).list_id == "<newsletter.127.0.0.1>"


def written(minted: Minted, rules: policy.Policy) -> Message[Any, Any]:
    """A message under one policy, with words that force folding and encoding elsewhere."""
    message: Message[Any, Any] = Message(policy.compat32) if rules is policy.compat32 else EmailMessage(rules)
    message["From"] = "Connective Care <hello@example.com>"
    message["To"] = "someone@example.org"
    message["Subject"] = "The monthly newsletter, with a subject that is long enough to be folded, " * 2
    minted.put_on(message)
    message.set_payload(f"To stop these letters: {minted.url}\r\n")
    return message


def survives(minted: Minted, raw: bytes, rules: policy.Policy) -> bool:
    """Is there, in the bytes and after parsing them anew, one whole https link and no encoded word?"""
    lines = raw.partition(b"\n\r\n")[0].partition(b"\n\n")[0].replace(b"\r\n", b"\n").decode("ascii")
    field = re.search(r"(?ms)^List-Unsubscribe:(.*?)(?=^\S|\Z)", lines)
    assert field
    parsed = message_from_bytes(raw, policy=rules)
    unfolded = re.sub(r"\s*\n\s*", " ", str(parsed["List-Unsubscribe"])).strip()
    return (
        f"<{minted.url}>" in field[1]
        and "=?" not in lines
        and max(map(len, lines.split("\n"))) <= 998
        and unfolded == minted.list_unsubscribe
        and parsed["List-Unsubscribe-Post"].strip() == minted.list_unsubscribe_post
        and parsed["List-Id"].strip() == minted.list_id
    )


@pytest.mark.parametrize("writing", POLICIES)
@pytest.mark.parametrize("reading", POLICIES)
def test_the_headers_survive_every_mail_policy(writing: str, reading: str) -> None:
    minted = EIGHTEEN.mint(SOMEONE, NEWSLETTER)
    assert survives(minted, written(minted, POLICIES[writing]).as_bytes(), POLICIES[reading])


def test_a_longer_host_does_not_survive_so_the_74_octets_are_no_superstition() -> None:
    """The control of the test above."""
    minted = Links(RING, "unsubscribe.example.com", "u@emails.example.com").mint(SOMEONE, NEWSLETTER)
    broken = [name for name, rules in POLICIES.items() if not survives(minted, written(minted, rules).as_bytes(), rules)]
    assert {"default", "SMTP"} <= set(broken), "the policies that most senders use"


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("name", POLICIES)
def test_dkim_covers_both_headers_and_verifies(name: str, rsa_key: rsa.RSAPrivateKey) -> None:
    minted = EIGHTEEN.mint(SOMEONE, NEWSLETTER)
    raw = re.sub(rb"\r?\n", b"\r\n", written(minted, POLICIES[name]).as_bytes())
    pem = rsa_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    public = rsa_key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    covered = [b"from", b"to", b"subject", b"list-unsubscribe", b"list-unsubscribe-post", b"list-id"]
    signature = dkim.sign(raw, b"mail", b"example.com", pem, include_headers=covered)
    tags = dkim.util.parse_tag_value(re.sub(rb"\s+", b"", signature.partition(b":")[2]))
    assert {b"list-unsubscribe", b"list-unsubscribe-post"} <= set(tags[b"h"].split(b":"))

    def dns(name: bytes, timeout: int = 5) -> bytes:
        assert name == b"mail._domainkey.example.com."
        return b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)

    assert dkim.verify(signature + raw, dnsfunc=dns)
    for header in ("List-Unsubscribe", "List-Unsubscribe-Post"):
        altered = re.sub(rf"(?m)^({header}:\s+)".encode(), rb"\1x", signature + raw)
        assert altered != signature + raw
        assert not dkim.verify(altered, dnsfunc=dns), "the control: an altered header breaks the signature"


def test_headers_are_put_on_in_place_of_any_that_were_there() -> None:
    message = EmailMessage()
    for name in ("List-Unsubscribe", "list-unsubscribe-post", "LIST-ID"):
        message[name] = "<mailto:old@example.com>"
    minted = EIGHTEEN.mint(SOMEONE, NEWSLETTER)
    minted.put_on(message)
    minted.put_on(message)
    assert message.items() == list(minted.headers.items())


# The guard

MINTED = EIGHTEEN.mint(SOMEONE, NEWSLETTER)


def letter(
    text: str | None = f"Stop these letters: {MINTED.url}.", html: str | None = f'<a href="{MINTED.url}">Unsubscribe</a>'
) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "hello@example.com"
    MINTED.put_on(message)
    if text is not None:
        message.set_content(text)
    if html is not None:
        (message.add_alternative if text is not None else message.set_content)(html, subtype="html")
    return message


def guarded(message: Message[Any, Any], stream: Stream = Stream.MARKETING) -> None:
    links.guard(message, stream=stream, ring=RING)


RIGHT = {
    "text and html": letter(),
    "text alone": letter(html=None),
    "html alone": letter(text=None),
    "html with the link escaped": letter(html=f'<a href="{MINTED.url.replace("/", "&#x2F;").replace(".", "&#46;")}">Stop</a>'),
    "html with the link written out": letter(html=f"<p>Stop: {MINTED.url}</p>"),
    "html with a picture as the link": letter(html=f'<a href="{MINTED.url}"><img src="x.png" alt="Stop"></a>'),
    "html with words inside other tags": letter(html=f'<p><a class="x" href="{MINTED.url}"><b>Unsubscribe</b></a>'),
    "a message of the old kind": message_from_bytes(letter().as_bytes(), policy=policy.compat32),
}


@pytest.mark.parametrize("message", RIGHT.values(), ids=RIGHT)
def test_the_guard_lets_the_right_message_through(message: EmailMessage) -> None:
    guarded(message)


def without(name: str, *instead: str) -> EmailMessage:
    message = letter()
    del message[name]
    for value in instead:
        message[name] = value
    return message


def _attachment_only() -> EmailMessage:
    message = letter(text=None, html=None)
    message.add_attachment(f"Stop: {MINTED.url}".encode(), maintype="text", subtype="plain", filename="notes.txt")
    return message


def _forwarded_only() -> EmailMessage:
    message = letter(text=None, html=None)
    message.add_attachment(letter())
    return message


FOREIGN = Links(KeyRing.new(date(2026, 11, 22)), "emails.example.com", "u@emails.example.com").mint(SOMEONE, NEWSLETTER)
TWICE = message_from_bytes(f"List-Unsubscribe: {MINTED.list_unsubscribe}\n".encode() + letter().as_bytes(), policy=policy.default)
WRONG = {
    "no header": (without("List-Unsubscribe"), "exactly one List-Unsubscribe header"),
    "no post header": (without("List-Unsubscribe-Post"), "exactly one List-Unsubscribe-Post header"),
    "two of one": (TWICE, "exactly one List-Unsubscribe header"),
    "another pair": (without("List-Unsubscribe-Post", "List-Unsubscribe=Yes"), "must be List-Unsubscribe=One-Click"),
    "mailto alone": (without("List-Unsubscribe", "<mailto:u@example.com>"), "exactly one https link"),
    "two links": (without("List-Unsubscribe", f"<{MINTED.url}>, <https://example.com/>"), "exactly one https link"),
    "a plain one beside": (without("List-Unsubscribe", f"<{MINTED.url}>, <http://example.com/>"), "exactly one https link"),
    "another's token": (without("List-Unsubscribe", FOREIGN.list_unsubscribe), "not minted by this key ring"),
    "a redirector": (without("List-Unsubscribe", f"<https://click.example.net/?u={MINTED.url}>"), "not minted by this key ring"),
    "a redirector's path": (without("List-Unsubscribe", f"<https://click.example.net/{MINTED.url}>"), "not minted by this key ring"),
    "a longer link": (without("List-Unsubscribe", f"<{MINTED.url}?x=1>"), "not minted by this key ring"),
    "no link in html": (letter(html="<p>Hello</p>"), "text/html part lacks"),
    "no link in text": (letter(text="Hello"), "text/plain part lacks"),
    "a link in a comment": (letter(html=f'<p>Hello</p><!-- <a href="{MINTED.url}">Stop</a> -->'), "text/html part lacks"),
    "a link without words": (letter(html=f'<p>Hello</p><a href="{MINTED.url}"> </a>'), "text/html part lacks"),
    "a link in a script": (letter(html=f'<script>location = "{MINTED.url}"</script><p>Hello</p>'), "text/html part lacks"),
    "another link that begins alike": (letter(text=f"Stop: {MINTED.url}x"), "text/plain part lacks"),
    "someone else's link in the body": (letter(text=f"Stop: {FOREIGN.url}"), "text/plain part lacks"),
    "an attachment alone": (_attachment_only(), "no text part"),
    "a forwarded message alone": (_forwarded_only(), "no text part"),
    "nothing at all": (EmailMessage(), "exactly one List-Unsubscribe header"),
}


@pytest.mark.parametrize(("message", "reason"), WRONG.values(), ids=WRONG)
def test_the_guard_refuses_a_message_that_lacks_one_thing(message: EmailMessage, reason: str) -> None:
    with pytest.raises(Unguarded, match=re.escape(reason)) as refused:
        guarded(message)
    assert PINNED not in str(refused.value)


def test_the_guard_asks_nothing_of_a_transactional_message() -> None:
    guarded(EmailMessage(), Stream.TRANSACTIONAL)


# Without a network


def isolated(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter that may not open a socket."""
    barred = """
        import sys
        def bar(event, _):
            if event.startswith("socket."):
                raise SystemExit(f"barred: {event}")
        sys.addaudithook(bar)
    """
    whole = textwrap.dedent(barred) + textwrap.dedent(script)
    return subprocess.run([sys.executable, "-c", whole], check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_links_bring_in_nothing_that_opens_a_socket() -> None:
    found = isolated("""
        import mailprefs.links
        heavy = {"socket", "_socket", "select", "selectors", "asyncio", "ssl", "http", "email", "aiohttp", "asyncpg", "pydantic",
                 "pydantic_core", "idna", "email_validator", "phonenumbers", "dns", "cryptography", "yarl", "click"}
        print(*sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
        print(*sorted(name for name in sys.modules if name.startswith("mailprefs")))
    """)
    assert found.stdout.split("\n")[0] == "", found.stdout + found.stderr
    rooms = {"mailprefs", "mailprefs.addresses", "mailprefs.bodies", "mailprefs.errors", "mailprefs.links", "mailprefs.words"}
    assert set(found.stdout.split("\n")[1].split()) == rooms


def test_minting_works_where_no_socket_can_be_opened() -> None:
    found = isolated(f"""
        sys.modules["socket"] = sys.modules["_socket"] = sys.modules["asyncio"] = None
        from types import SimpleNamespace
        from mailprefs import Addresses, KeyRing, Links, Stream
        topic = SimpleNamespace(number=272, stream=Stream.MARKETING, name="connective/newsletter", sensitive=False)
        ring = KeyRing.parse({RING.dumped()!r})
        links = Links(ring, "go.example.com", "u@go.example.com")
        print(links.mint(Addresses(ring.digest).read("Someone@Example.COM").key, topic).url)
    """)
    someone = UUID(bytes=hmac.digest(DIGEST, b"email\0someone@example.com", "sha256")[:16])
    assert found.stdout.strip() == f"https://go.example.com/u/{independent_token(1, SECRET, 272, someone)}", found.stderr


def test_the_bar_on_sockets_does_bar() -> None:
    """The control of the two tests above."""
    assert "barred: socket." in isolated("import socket; socket.socket()").stderr


def test_what_signs_quickly_signs_as_itsdangerous_does() -> None:
    signer = RING.signer(1)
    assert signer is not None
    for value in ("", "x", "é", b"\x00\xff", b"a.b", PINNED):
        assert signer.sign(value) == Signer.sign(signer, value)


def test_an_address_that_is_read_quickly_is_a_uuid_like_any_other() -> None:
    read = links.read(RING, PINNED).address
    assert read == SOMEONE
    assert (type(read), hash(read), repr(read), read.bytes) == (UUID, hash(SOMEONE), repr(SOMEONE), SOMEONE.bytes)
    assert (read.is_safe, copy(read)) == (SOMEONE.is_safe, SOMEONE)
