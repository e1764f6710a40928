"""What mailprefs.toml says, the permanent numbers it gives, and how a mistake in it is told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailprefs import catalogue
from mailprefs.catalogue import Catalogue
from mailprefs.errors import Misconfigured, UnknownScope
from mailprefs.words import Channel, Stream, Wanted

TEXT = (Path(__file__).parent / "catalogue.toml").read_text(encoding="utf-8")
SECOND = """
[[brand]]
name = "second"
title = "Second Care"
number = 2
link_host = "go.example.net"
mailto = "u@go.example.net"
postal_address = "2 Main Street, Springfield"

[[brand.topic]]
name = "newsletter"
title = "Letters"
number = 16
"""


def wrong(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


# Numbers and paths


def test_every_node_has_its_permanent_number_and_path(shared_catalogue: Catalogue) -> None:
    found = {scope.name: (scope.number, scope.path) for scope in shared_catalogue.scopes}
    assert found == {
        "*": (0, (0,)),
        "connective": (256, (0, 256)),
        "connective/marketing": (257, (0, 256, 257)),
        "connective/transactional": (258, (0, 256, 258)),
        "connective/ads": (259, (0, 256, 259)),
        "connective/newsletter": (272, (0, 256, 257, 272)),
        "connective/offers": (273, (0, 256, 257, 273)),
        "connective/partners": (274, (0, 256, 257, 274)),
        "connective/studies": (275, (0, 256, 257, 275)),
        "connective/recovery": (276, (0, 256, 257, 276)),
        "connective/orders": (288, (0, 256, 258, 288)),
        "connective/care": (289, (0, 256, 258, 289)),
    }


@settings(deadline=None)
@given(brand=st.integers(1, 255), topic=st.integers(16, 255), marketing=st.booleans())
def test_a_scope_number_is_brand_times_256_plus_n(brand: int, topic: int, marketing: bool) -> None:
    stream = Stream.MARKETING if marketing else Stream.TRANSACTIONAL
    text = SECOND.replace("number = 16", f'number = {topic}\nstream = "{stream}"').replace("number = 2\n", f"number = {brand}\n")
    found = catalogue.parse(text)
    base = brand * 256
    scope = found.topic("newsletter")
    assert (scope.number, scope.path) == (base + topic, (0, base, base + (1 if marketing else 2), base + topic))
    assert scope.is_topic
    assert scope.brand == brand
    assert found.brand_of(scope.number) is found.brand[0]
    assert "second/ads" not in {s.name for s in found.scopes}
    for node in found.scopes[:-1]:
        assert not node.is_topic


def test_a_parent_comes_before_its_children(shared_catalogue: Catalogue) -> None:
    seen: set[int] = set()
    for scope in shared_catalogue.scopes:
        assert set(scope.path[:-1]) <= seen
        assert scope.path[-1] == scope.number
        seen.add(scope.number)


def test_what_is_unset_is_marketing_by_opt_out(shared_catalogue: Catalogue) -> None:
    offers = shared_catalogue.topic("offers")
    assert (offers.stream, offers.wanted, offers.sensitive, offers.retired) == (Stream.MARKETING, Wanted.OPT_OUT, False, False)
    account = shared_catalogue.account[0]
    assert (account.share_bounces, catalogue.Account(name="x", provider="sendgrid", brand="b").settle) == (False, timedelta(minutes=15))


# Names


def test_a_scope_answers_to_its_full_name_and_to_a_name_that_is_unique(shared_catalogue: Catalogue) -> None:
    for name, number in {
        "*": 0,
        "connective": 256,
        "connective/marketing": 257,
        "marketing": 257,
        "ads": 259,
        "connective/newsletter": 272,
        "newsletter": 272,
        "care": 289,
    }.items():
        assert shared_catalogue.scope(name).number == number


def test_a_name_in_two_brands_must_be_written_in_full() -> None:
    two = catalogue.parse(TEXT + SECOND)
    assert two.scope("second/newsletter").number == 528
    assert two.scope("offers").number == 273
    for name in ("newsletter", "marketing"):
        with pytest.raises(UnknownScope, match="brand/topic"):
            two.scope(name)


@pytest.mark.parametrize(
    "name", ["", "/", "letter", "newsletter/", "/newsletter", "Newsletter", "connective/none", "none/newsletter", "**"]
)
def test_an_unknown_name_says_what_there_is(shared_catalogue: Catalogue, name: str) -> None:
    with pytest.raises(UnknownScope, match="connective/newsletter"):
        shared_catalogue.scope(name)


def test_a_node_that_is_no_topic_is_refused_as_one(shared_catalogue: Catalogue) -> None:
    for name in ("*", "connective", "marketing", "connective/ads"):
        with pytest.raises(UnknownScope, match="that is no topic"):
            shared_catalogue.topic(name)


def test_a_retired_topic_keeps_its_number_and_is_no_longer_offered() -> None:
    old = catalogue.parse(wrong("number = 17", "number = 17\nretired = true"))
    assert old.scope("offers").number == 273
    assert "connective/offers" not in {scope.name for scope in old.topics}
    assert 273 not in old.mapped(old.account[0])


def test_a_sensitive_topic_is_never_told_to_an_account() -> None:
    found = catalogue.parse(wrong('offers = "12346"', 'recovery = "12346"'))
    account = found.account_named("sendgrid-main")
    assert account is not None
    assert found.mapped(account) == {272: "12345"}
    assert found.heard(account) == {"12345": 272, "12346": 276}
    assert found.marketing_of(account) == 257


def test_marketing_by_sms_always_wants_consent(shared_catalogue: Catalogue) -> None:
    wanted = {s.number: (s.wants(Channel.EMAIL), s.wants(Channel.SMS)) for s in shared_catalogue.topics}
    assert {n: wanted[n] for n in (272, 274, 275, 288)} == {
        272: (0, 1),
        274: (1, 1),
        275: (2, 2),
        288: (0, 0),
    }
    assert all(sms >= 1 for n, (_, sms) in wanted.items() if shared_catalogue.by_number[n].stream is Stream.MARKETING)


@pytest.mark.parametrize(
    ("number", "left"),
    {
        272: (272,),
        257: (257,),
        2 * 256 + 16: (2 * 256 + 16,),
        256 + 99: (257,),  # a topic of a file that is lost
        289: (257,),  # no token is minted for what is transactional
        256: (257,),
        2 * 256 + 99: (2 * 256 + 1,),
        9 * 256 + 16: (257, 2 * 256 + 1),  # a brand nobody knows
        0: (257, 2 * 256 + 1),
    }.items(),
)
def test_what_a_token_stops_is_its_scope_and_in_doubt_all_marketing_it_may_mean(number: int, left: tuple[int, ...]) -> None:
    assert catalogue.parse(TEXT.partition("[[account]]")[0] + SECOND).left_by(number) == left


@pytest.mark.parametrize(("stops", "number"), {None: 257, "care": 289, "connective/care": 289, "connective": 256, "ads": 259}.items())
def test_an_account_may_stop_any_node_of_its_brand(stops: str | None, number: int) -> None:
    found = catalogue.parse(TEXT if stops is None else wrong('settle = "2s"', f'stops = "{stops}"'))
    assert found.stopped_by(found.account[0]) == number


# Mistakes

TOPIC = "brand[0].topic[1]"
MISTAKES = {  # what is changed, into what, and what is said; the mistake is on the last line of what it is changed into
    "syntax": ("number = 16", "number = = 16", "number: Invalid value"),
    "an open string": ('title = "Offers and discounts"', 'title = "Offers', "title: Illegal character"),
    "an unknown key": ("number = 17", "number = 17\nweight = 3", f"{TOPIC}.weight: there is no such key"),
    "a text for a number": ("number = 17", 'number = "17"', f"{TOPIC}.number: Input should be a valid integer"),
    "a half number": ("number = 17", "number = 17.5", f"{TOPIC}.number: Input should be a valid integer"),
    "a text for yes": ("ads = true", 'ads = "yes"', "brand[0].ads: Input should be a valid boolean"),
    "a number too small": ("number = 17", "number = 3", f"{TOPIC}.number: Input should be greater than"),
    "a number too large": ("number = 1\n", "number = 256\n", "brand[0].number: Input should be less than"),
    "a number twice": ("number = 17", "number = 16", f"{TOPIC}.number: 16 is used twice"),
    "a name twice": ('name = "offers"', 'name = "newsletter"', f"{TOPIC}.name: 'newsletter' is used twice"),
    "a reserved name": ('name = "offers"', 'name = "ads"', f"{TOPIC}.name: 'ads' is a reserved name"),
    "the name of plain mail": ('name = "sendgrid-main"', 'name = "mail"', "account[0].name: 'mail' is what comes by plain mail"),
    "a reserved brand": ('name = "connective"', 'name = "marketing"', "brand[0].name: 'marketing' is a reserved name"),
    "a name with a capital": ('name = "offers"', 'name = "Offers"', f"{TOPIC}.name: wants lower-case"),
    "an unknown stream": ('stream = "transactional"', 'stream = "other"', "brand[0].topic[5].stream: Input should be 'marketing' or"),
    "consent to receipts": (
        'stream = "transactional"',
        'stream = "transactional"\nconsent = "opt-in"',
        "brand[0].topic[5].consent: a transactional topic asks for no consent",
    ),
    "a URL for a host": ('link_host = "go', 'link_host = "https://go', "brand[0].link_host: wants a host alone"),
    "a title that is no text": ('en = "Monthly newsletter"', "en = 5", "brand[0].topic[0].title.en: Input should be a valid string"),
    "a span without a unit": ('settle = "2s"', "settle = 900", "account[0].settle: wants a span"),
    "a span that is none": ('settle = "2s"', 'settle = "soon"', "account[0].settle: wants a span"),
    "a secret for its variable": (
        '"SENDGRID_API_KEY"',
        '"SG.x7fzK"',
        "account[0].secrets.api_key: wants the NAME of an environment variable",
    ),
    "an account of no brand": ('brand = "connective"', 'brand = "other"', "account[0].brand: there is no brand 'other'"),
    "an account twice": ('name = "sendgrid-second"', 'name = "sendgrid-main"', "account[1].name: 'sendgrid-main' is used twice"),
    "a mapped receipt": ('offers = "12346"', 'orders = "12346"', "account[0].scopes.orders: 'orders' is transactional"),
    "the other side mapped": ('offers = "12346"', 'transactional = "1"', "account[0].scopes.transactional: 'transactional' is"),
    "a mapped nothing": ('offers = "12346"', 'offerz = "12346"', "account[0].scopes.offerz: 'offerz' is no topic"),
    "a number that stops nothing": ('settle = "2s"', 'stops = "offerz"', "account[0].stops: 'offerz' is no scope of 'connective'"),
    "a number that stops all": ('settle = "2s"', 'stops = "*"', "account[0].stops: '*' is no scope of 'connective'"),
    "an empty stops": ('settle = "2s"', 'stops = ""', "account[0].stops: '' is no scope of 'connective'"),
    "one group for two": ('offers = "12346"', 'offers = "12345"', "account[0].scopes.offers: 'newsletter' is mapped to '12345' already"),
}


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_line_and_key(old: str, new: str, said: str) -> None:
    text = wrong(old, new)
    line = 1 + TEXT[: TEXT.index(old)].count("\n") + new.strip().count("\n")
    with pytest.raises(Misconfigured) as refused:
        catalogue.parse(text, "mailprefs.toml")
    assert str(refused.value).startswith(f"mailprefs.toml line {line}: {said}")
    assert len(str(refused.value).splitlines()) == 1, "one mistake, one complaint"
    assert "SG.x7fzK" not in str(refused.value)


def test_a_missing_key_is_told_with_the_line_of_its_table() -> None:
    text = wrong("number = 17\n", "")
    header = TEXT[: TEXT.index('name = "offers"')].count("\n")
    with pytest.raises(Misconfigured, match=rf"^mailprefs\.toml line {header}: brand\[0\]\.topic\[1\]\.number: is missing$"):
        catalogue.parse(text)


def test_the_catalogue_of_these_tests_has_no_mistake() -> None:
    """The control of the mistakes above."""
    assert catalogue.parse(TEXT) == catalogue.parse(TEXT)


def test_every_mistake_of_a_file_is_told_at_once() -> None:
    text = wrong("number = 17", "number = 3").replace("ads = true", "ads = 1").replace('settle = "2s"', "settle = true", 1)
    with pytest.raises(Misconfigured) as refused:
        catalogue.parse(text)
    lines = [line.split(": ")[1] for line in str(refused.value).splitlines()]
    assert lines == ["brand[0].ads", "brand[0].topic[1].number", "account[0].settle"]


def test_a_key_in_a_table_of_its_own_is_found() -> None:
    """[account.secrets] under [[account]] is as good as an inline table."""
    text = TEXT.replace('secrets = { webhook_key = "SENDGRID_SECOND_WEBHOOK_KEY", api_key = "SENDGRID_SECOND_API_KEY" }\n', "")
    text += "\n[account.secrets]\nwebhook_key = 5\n"
    with pytest.raises(Misconfigured, match=rf"line {text.count(chr(10))}: account\[1\]\.secrets\.webhook_key"):
        catalogue.parse(text)


def test_an_empty_catalogue_says_what_it_wants() -> None:
    with pytest.raises(Misconfigured, match=r"at least one \[\[brand\]\]"):
        catalogue.parse("")
    with pytest.raises(Misconfigured, match="line 1: brand: wants a table of its own, in double brackets"):
        catalogue.parse('[brand]\nname = "connective"\n')


@settings(deadline=None)
@given(st.text(st.sampled_from("[]{}=\"brandtopic.name number15\n,#'\\ é"), max_size=120))
def test_any_text_is_a_catalogue_or_a_clear_error(text: str) -> None:
    with pytest.raises(Misconfigured, match=r"^mailprefs\.toml"):
        catalogue.parse(text)


def test_a_missing_catalogue_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"mailprefs init.*MAILPREFS_CONFIG"):
        catalogue.load(tmp_path / "mailprefs.toml")
    (tmp_path / "latin.toml").write_bytes('title = "Boletín"'.encode("latin-1"))
    with pytest.raises(Misconfigured, match="cannot be read: UnicodeDecodeError"):
        catalogue.load(tmp_path / "latin.toml")


def test_spans_are_read_in_all_their_units() -> None:
    for text, span in {"250ms": 0.25, "2s": 2, "15m": 900, "3h": 10_800, "1d": 86_400}.items():
        found = catalogue.parse(wrong('settle = "2s"', f'settle = "{text}"'))
        assert found.account[0].settle == timedelta(seconds=span)
