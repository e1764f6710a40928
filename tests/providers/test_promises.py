"""The promises that every provider keeps. One suite, run over the list; what a provider must bring to it is in ``cases.py``.

``MAILPREFS_TEST_PAIRS`` says how many odd values in two fields at once each provider's reader is given.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailprefs.errors import Forged, Misconfigured
from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import MOVING, Credential, Delivery, Heard, Provider
from mailprefs.words import Kind

from .cases import DOCS, PAYLOADS, RECEIVED, Case, case_of

HEADINGS = ["What we hear", "How it is verified", "What we tell", "What to set at the provider", "What is unconfirmed"]
MUTATIONS = 4_000  # a provider
PAIRS = int(os.environ.get("MAILPREFS_TEST_PAIRS", "30000"))  # a provider
POISON = {  # a first member that spoils the object it is put into
    "not utf-8": b'"x": "\xff\xfe", ',
    "utf-8 of a surrogate": b'"x": "\xed\xa0\x80", ',
    "lone surrogate": b'"x": "\\ud800", ',
    "NaN": b'"x": NaN, ',
    "Infinity": b'"x": -Infinity, ',
    "a key twice": b'"x": 1, "x": 1, ',
    "a key twice, escaped": b'"x": 1, "\\u0078": 1, ',
    "NUL": b'"x": "\x00", ',
    "escaped NUL": b'"x": "\\u0000", ',
    "depth 10,000": b'"x": ' + b"[" * 10_000 + b"]" * 10_000 + b", ",
    "5,000 digits": b'"x": ' + b"9" * 5_000 + b", ",
    "no JSON": b"<html>",
    "missing value": b'"x": , ',
    "wrong bracket": b'"x": 1], ',
    "bracket left open": b'"x": [1, ',
}
ODD: tuple[object, ...] = (None, True, 0, -1, 10**400, 1.5, "", " ", "\x7f", "a" * 200, [], [[]], ["bounce"], {}, {"a": []})


TOLD = [name for name, provider in PROVIDERS.items() if isinstance(provider, Provider)]


@pytest.fixture(params=PROVIDERS)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


@pytest.fixture
def delivery(case: Case) -> Delivery:
    return case.sign(case.body(list(case.documented.values()) if case.batched else [case.tokened]))


def forged(case: Case, delivery: Delivery, credential: Credential | None = None) -> bool:
    """True if the delivery is refused as forged, False if it is accepted; whatever else is raised fails the test."""
    try:
        case.provider.verify(credential or case.credential, delivery)
    except Forged:
        return True
    return False


def harmed(case: Case, delivery: Delivery, changed: Delivery) -> bool:
    """True if a changed delivery is accepted, unless the proof is over what a body says alone and this one still says the same."""
    if forged(case, changed):
        return False
    before, after = case.provider.parse(delivery), case.provider.parse(changed)
    same = (before.events, before.counted, len(before.kept)) == (after.events, after.counted, len(after.kept))
    return not (case.by_value and same)


def flipped(text: str) -> Iterator[str]:
    """Yield the text with each of its bits flipped in turn."""
    for n, letter in enumerate(text):
        for bit in range(8):
            yield text[:n] + chr(ord(letter) ^ 1 << bit) + text[n + 1 :]


def spoiled(event: bytes, poison: bytes) -> bytes:
    """Return a sound event with the poison as its first member."""
    return event.replace(b"{", b"{" + poison, 1)


def told_in(heard: Heard) -> int:
    """How many events a delivery told, read or not."""
    return len(heard.events) + len(heard.kept) + sum(heard.counted.values())


# Who says it


def test_a_signed_delivery_is_accepted(case: Case, delivery: Delivery) -> None:
    assert not forged(case, delivery)


def test_the_case_of_header_names_does_not_matter(case: Case, delivery: Delivery) -> None:
    assert not forged(case, replace(delivery, headers=[(key.lower(), value) for key, value in delivery.headers]))


def test_a_flipped_bit_in_any_proof_is_forged(case: Case, delivery: Delivery) -> None:
    for name in case.proofs:
        proof = case.proof(delivery, name)
        assert proof
        accepted = [wrong for wrong in flipped(proof) if not forged(case, case.with_proof(delivery, name, wrong))]
        assert not accepted


def test_a_flipped_bit_in_the_body_is_forged_where_the_proof_covers_it(case: Case, delivery: Delivery) -> None:
    body, random = delivery.body, Random(1)
    harm = []
    for n in sorted(random.sample(range(len(body)), min(len(body), 400))):
        wrong = bytearray(body)
        wrong[n] ^= 1 << random.randrange(8)
        harm.append(harmed(case, delivery, replace(delivery, body=bytes(wrong))))
    assert any(harm) is not case.covered


def test_bytes_added_or_lost_at_either_end_are_forged_where_the_proof_covers_them(case: Case, delivery: Delivery) -> None:
    body = delivery.body
    others = [replace(delivery, body=wrong) for wrong in (body + b" ", b" " + body, body[:-1], body[1:], body + body, b"")]
    assert any(harmed(case, delivery, other) for other in others) is not case.covered


def test_a_missing_or_repeated_proof_is_forged(case: Case, delivery: Delivery) -> None:
    for name in case.proofs:
        proof = case.proof(delivery, name)
        assert proof
        assert not forged(case, case.with_proof(delivery, name, proof))  # the control
        assert forged(case, case.with_proof(delivery, name))
        assert forged(case, case.with_proof(delivery, name, ""))
        assert forged(case, case.with_proof(delivery, name, proof, proof))
        assert forged(case, case.with_proof(delivery, name, proof, "x"))


def test_another_spelling_of_a_proof_is_forged(case: Case, delivery: Delivery) -> None:
    for name in case.proofs:
        proof = case.proof(delivery, name) or ""
        others = {proof + " ", " " + proof, proof + "\n", proof + "=", proof.rstrip("="), proof.swapcase(), proof * 2, f"+{proof}"}
        assert not [other for other in others - {proof} if not forged(case, case.with_proof(delivery, name, other))]


def test_whatever_a_header_holds_it_is_only_forged(case: Case, delivery: Delivery) -> None:
    every_byte = "".join(map(chr, range(256)))
    odd = [*every_byte, every_byte, "é", "日本", "\ud800", "\udcff", "\x00", "=" * 5, "A" * 100_000, "AAAA", "MEUCIQ=="]
    for name in case.proofs:
        assert all(forged(case, case.with_proof(delivery, name, value)) for value in odd)


def test_a_key_of_nobodys_is_forged(case: Case, delivery: Delivery) -> None:
    assert forged(case, case.sign_strange(delivery.body))


def test_an_empty_body_is_no_event_even_when_signed(case: Case) -> None:
    signed = case.sign(b"")
    assert forged(case, signed) is case.inside
    assert not case.provider.parse(signed).events


def test_two_keys_are_valid_in_a_rotation_and_one_after_it(case: Case, delivery: Delivery) -> None:
    by_next = case.sign_next(delivery.body)
    assert not forged(case, delivery, case.rotated)
    assert not forged(case, by_next, case.rotated)
    assert forged(case, by_next, case.credential)  # the control: before the rotation the next key is nobody's
    assert forged(case, case.sign_strange(delivery.body), case.rotated)


def test_without_a_secret_everything_is_forged(case: Case, delivery: Delivery) -> None:
    assert forged(case, delivery, case.nobody or replace(case.credential, secrets={}))
    for name in case.provider.secrets_in:
        for secret in ("", "x", "é", case.short[name]):
            assert forged(case, delivery, replace(case.credential, secrets={name: secret}))


def test_what_was_signed_a_month_ago_is_accepted(case: Case) -> None:
    late = replace(case.sign(case.body([case.tokened])), received_at=RECEIVED.replace(month=12))
    assert not forged(case, late)
    assert len(case.provider.parse(late).events) == 1


# Who may start


def test_a_sound_account_is_accepted(case: Case) -> None:
    case.provider.check(case.credential)
    case.provider.check(case.rotated)


def test_a_missing_or_short_secret_refuses_to_start_and_says_what_to_do(case: Case) -> None:
    assert case.credential.groups
    secrets_out = case.provider.secrets_out if isinstance(case.provider, Provider) else ()
    for name in (*case.provider.secrets_in, *secrets_out):
        for secret in (None, "", "x", case.short[name], case.short[name] + " ", "é" * 100, case.credential.secrets[name] + "\n"):
            secrets = {k: v for k, v in case.credential.secrets.items() if k != name} | ({} if secret is None else {name: secret})
            with pytest.raises(Misconfigured) as refused:
                case.provider.check(replace(case.credential, secrets=secrets))
            said = str(refused.value)
            assert case.credential.account in said
            assert name in said
            assert len(said) > 80  # it says what to do
            assert not secret or len(secret) < 8 or secret.strip() not in said


def test_a_broken_next_key_refuses_to_start(case: Case) -> None:
    for name, secret in case.short.items():
        if name.endswith("_next"):
            with pytest.raises(Misconfigured, match=name):
                case.provider.check(replace(case.rotated, secrets=dict(case.rotated.secrets) | {name: secret}))


def test_an_account_that_is_only_heard_needs_no_secret_to_tell(case: Case) -> None:
    heard = {name: case.credential.secrets[name] for name in case.provider.secrets_in}
    options = {name: option for name, option in case.credential.options.items() if name != "scopes"}
    case.provider.check(replace(case.credential, secrets=heard, options=options))


@pytest.mark.parametrize("name", TOLD)
def test_an_api_base_elsewhere_refuses_to_start(name: str) -> None:
    case = case_of(name)
    assert isinstance(case.provider, Provider)
    host = case.provider.hosts[0]
    for sound in ("http://127.0.0.1:8025", "http://[::1]:1/x", "http://localhost:8025/sendgrid", f"https://{host}", f"https://{host}/"):
        case.provider.check(replace(case.credential, api_base=sound))
    for strange in (
        "https://example.com",
        f"http://{host}",
        f"https://{host}.example.com",
        f"https://example.com/{host}",
        f"https://x@{host}",
        f"https://x:y@{host}",
        f"https://{host}:8443",
        f"https://{host}/v3",
        f"https://{host}?x",
        f"https://{host}#x",
        "http://169.254.169.254",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://127.0.0.1.example.com",
        "http://2130706433",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "//127.0.0.1",
        "127.0.0.1:8025",
        "http://[::1",
        "http://127.0.0.1:99999",
        "",
        " ",
    ):
        with pytest.raises(Misconfigured, match="api_base"):
            case.provider.check(replace(case.credential, api_base=strange))


# What it says


def test_every_documented_event_is_mapped_or_ignored_with_a_reason(case: Case) -> None:
    assert case.provider.kinds.keys() == case.documented.keys()
    for name, event in case.documented.items():
        kind = case.provider.kinds[name]
        heard = case.heard([event])
        assert told_in(heard) == 1
        if kind in MOVING:
            assert [event.kind for event in heard.events] == [kind]
        else:
            assert not heard.events
            assert isinstance(kind, Kind) or len(kind) > 20  # a reason is a sentence, not a word


def test_an_unknown_kind_is_kept_as_it_came_and_no_event(case: Case) -> None:
    heard = case.heard([case.unknown])
    assert not heard.events
    assert [(kept.reason, kept.raw) for kept in heard.kept] == [("unknown_kind", case.wrapped(case.unknown))]


def test_what_a_provider_held_back_is_no_new_opt_out() -> None:
    assert not MOVING & {Kind.DROPPED, Kind.DELIVERED, Kind.DEFERRED}
    assert Kind.UNSUBSCRIBED in MOVING  # the control


def test_our_own_token_comes_back(case: Case) -> None:
    [event] = case.heard([case.tokened]).events
    assert event.token == case.token


def test_the_same_event_again_has_the_same_id_and_another_has_another(case: Case) -> None:
    kinds = MOVING - {Kind.RESUBSCRIBED, Kind.COMPLAINT_RETRACTED} if case.windowed else MOVING
    moving = [event for name, event in case.documented.items() if case.provider.kinds[name] in kinds]
    once = case.heard(moving)
    often = case.heard(moving[::-1] * 46, RECEIVED.replace(month=12))
    assert len({event.id for event in once.events}) == len(moving) > 1
    assert len(often.events) == 46 * len(moving)
    if case.time is None:  # what says no time happened when it came
        once, often = (replace(each, events=tuple(replace(event, happened_at=RECEIVED) for event in each.events)) for each in (once, often))
    assert set(often.events) == set(once.events)


def test_one_poison_event_in_a_thousand_costs_nobody_else_theirs(case: Case) -> None:
    random = Random(2)
    sound = [random.choice(list(case.documented.values())) for _ in range(999)]
    alone = case.heard(sound)
    for member in POISON.values():
        poison, at = spoiled(case.tokened, member), random.randrange(1000)
        heard = case.heard([*sound[:at], poison, *sound[at:]])
        assert heard.events == alone.events
        assert heard.counted == alone.counted
        assert [case.inside or kept.raw for kept in heard.kept if kept not in alone.kept] == [case.inside or case.wrapped(poison)]


@pytest.mark.parametrize("member", POISON.values(), ids=POISON)
def test_poison_is_kept_and_stops_nobody(case: Case, member: bytes) -> None:
    assert len(case.heard([spoiled(case.tokened, b'"x": 1, ')]).events) == 1  # the control
    poison = spoiled(case.tokened, member)
    for body in (poison, *case.bodies([poison]), *case.bodies([poison, poison]), case.body([poison])[:-5]):
        signed = case.sign(body)
        assert case.inside or not forged(case, signed)
        heard = case.provider.parse(signed)
        assert not heard.events
        assert heard.kept


@pytest.mark.parametrize(
    "value", [b"null", b"7", b"true", b'"text"', b"[]", b"[[]]", b"[7]", b"[null]", b"{}", b"[{}]", b"[[{}]]", b"", b" "]
)
def test_json_that_is_no_event_is_no_event(case: Case, value: bytes) -> None:
    for body in (value, case.body([value])):
        assert not case.provider.parse(case.sign(body)).events


@pytest.mark.parametrize(
    "body",
    [b" " * 5_000_000, b"[" * 1_000_000, b'["' + b'\\"' * 2_000_000, b'[{"event": "open"},' * 100_000, b"\x00" * 5_000_000],
    ids=["space", "brackets", "a string without end", "an array without end", "zeros"],
)
def test_a_huge_body_is_read_in_time_that_grows_with_it(case: Case, body: bytes) -> None:
    heard = case.provider.parse(case.unsigned(body))
    assert not heard.events
    assert told_in(heard) >= 1


def test_a_time_that_is_none_is_the_time_of_receipt(case: Case) -> None:
    for name, event in case.documented.items():
        if case.provider.kinds[name] in MOVING:
            [heard] = case.heard([event]).events
            assert heard.happened_at == RECEIVED if case.time is None else heard.happened_at < RECEIVED  # the control
            for odd in case.odd_times if case.time else ():
                changed = re.sub(case.time or b"", rb"\g<1>" + odd, event)
                assert changed != event
                [heard] = case.heard([changed]).events
                assert heard.happened_at == RECEIVED


# Whatever comes


def mutated(seed: bytes, random: Random) -> bytes:
    """Return the bytes with a few changes of the kinds that parsers stumble over."""
    body = bytearray(seed)
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(body) + 1)
        match random.randrange(5):
            case 0:
                body[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                del body[at : at + random.randint(1, 30)]
            case 2:
                body[at:at] = random.choice(list(POISON.values()))[:300]
            case 3:
                body[at:at] = random.choice([b"[", b"]", b"{", b"}", b'"', b",", b"\\", b"null", b"\\u0000", b"1e9", b"\xf0\x9f"])
            case _:
                start = random.randrange(len(body) + 1)
                body[at:at] = body[start : start + 50]
    return bytes(body)


def test_nothing_raises_over_mutations_of_what_providers_send(case: Case) -> None:
    random = Random(3)
    documented = list(case.documented.values())
    seeds = [case.sign(body) for body in (*case.bodies(documented), *(case.body([event]) for event in documented))]
    read = 0
    for _ in range(MUTATIONS):
        seed = random.choice(seeds)
        delivery = replace(seed, body=mutated(seed.body, random))
        assert not case.covered or delivery.body == seed.body or not harmed(case, seed, delivery)
        heard = case.provider.parse(delivery)
        read += len(heard.events) + sum(heard.counted.values())
    assert read > MUTATIONS // 50  # the control: the mutations did not only make rubbish


@given(body=st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
@pytest.mark.parametrize("name", PROVIDERS)
def test_parse_never_raises_over_any_bytes(name: str, body: bytes) -> None:
    case = case_of(name)
    for delivered in (body, case.body([body])):
        assert isinstance(case.provider.parse(case.unsigned(delivered)), Heard)


def test_parse_takes_any_value_in_any_two_fields(case: Case) -> None:
    """The fields of one event together: a value is often looked at only when another says so."""
    random = Random(4)
    for event in case.documented.values():
        fields = json.loads(event)
        pairs = [*combinations(fields, 2), *((field, field) for field in fields)]
        every = len(pairs) * len(ODD) ** 2  # ways to change it, of which few are made
        changed = []
        for way in random.sample(range(every), min(every, (PAIRS if case.batched else PAIRS // 5) // len(case.documented))):
            (pair, odd), another = divmod(way // len(ODD), len(ODD)), way % len(ODD)
            one, other = pairs[pair]
            changed.append(fields | {one: ODD[odd], other: ODD[another]})
        assert told_in(case.heard([json.dumps(each).encode() for each in changed])) == len(changed)


# What stands beside the code


def test_every_provider_says_where_its_payloads_come_from_and_has_its_page(case: Case) -> None:
    source = (PAYLOADS / case.provider.name / "SOURCE.md").read_text(encoding="utf-8")
    files = [path.name for path in (PAYLOADS / case.provider.name).iterdir() if path.name != "SOURCE.md"]
    assert files
    assert all(f"`{name}`" in source for name in files)
    page = (DOCS / f"{case.provider.name}.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == HEADINGS
