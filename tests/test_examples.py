"""The examples do what they are for: every row can be read, the letter can be filled and keeps the rules, the catalogue loads."""

from __future__ import annotations

import csv
import subprocess
import sys
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from mailprefs import catalogue, checkup, links
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.checkup import Verdict
from mailprefs.errors import Unguarded
from mailprefs.links import KeyRing, Links
from mailprefs.words import Channel, Stream, Wanted

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def known() -> Catalogue:
    return catalogue.load(EXAMPLES / "mailprefs.toml")


@pytest.fixture(scope="module")
def recipients() -> list[dict[str, str]]:
    with (EXAMPLES / "recipients.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_generator_writes_the_same_bytes_again(tmp_path: Path) -> None:
    script = EXAMPLES / "make_recipients.py"
    again = subprocess.run([sys.executable, "-I", script], cwd=tmp_path, env={}, check=True, capture_output=True, timeout=60).stdout
    assert again == (EXAMPLES / "recipients.csv").read_bytes()


def test_all_1000_recipients_can_be_read_and_are_told_apart(recipients: list[dict[str, str]], addresses: Addresses) -> None:
    found = [addresses.read(row["address"]) for row in recipients]
    assert len(found) == len({address.key for address in found}) == 1000
    assert sum(address.channel is Channel.SMS for address in found) == 40
    assert all(row["address"] == row["address"].strip() for row in recipients)


def test_a_phone_belongs_to_the_party_of_an_e_mail_address(recipients: list[dict[str, str]]) -> None:
    parties = {row["party"] for row in recipients if "@" in row["address"]}
    phones = [row["party"] for row in recipients if "@" not in row["address"]]
    assert len(parties) == 960
    assert len(set(phones)) == len(phones) == 40
    assert set(phones) <= parties


def test_the_recipients_hold_awkward_addresses_of_every_kind(recipients: list[dict[str, str]]) -> None:
    emails = [row["address"] for row in recipients if "@" in row["address"]]
    locals_, domains = zip(*(email.rsplit("@", 1) for email in emails), strict=True)
    kinds = {
        "an international local part": any(not local.isascii() for local in locals_),
        "an international domain": any(not domain.isascii() for domain in domains),
        "an A-label": any("xn--" in domain for domain in domains),
        "capitals": any(email.isupper() for email in emails),
        "a plus": any("+" in local[1:] for local in locals_),
        "an apostrophe": any("'" in local for local in locals_),
        "what a spreadsheet takes for a formula": {"=", "+", "-"} <= {email[0] for email in emails},
        "a local part of nearly 64": any(len(local) > 55 for local in locals_),
        "a long domain": any(len(domain) > 70 for domain in domains),
    }
    assert all(kinds.values()), kinds


def test_no_example_could_reach_anyone(recipients: list[dict[str, str]]) -> None:
    for row in recipients:
        domain = row["address"].rpartition("@")[2].casefold()
        digits = "".join(filter(str.isdigit, row["address"]))
        assert domain.endswith(("example.com", "example.org", "example.net")) or digits[4:8] == "5550" or digits[:8] == "44770090"


def test_the_catalogue_is_the_telehealth_sender_of_the_story(known: Catalogue) -> None:
    streams = {stream: [s.name.partition("/")[2] for s in known.topics if s.stream is stream] for stream in Stream}
    assert streams[Stream.MARKETING] == ["newsletter", "offers", "surveys", "partners"]
    assert streams[Stream.TRANSACTIONAL] == ["account-notices", "orders", "policy-changes", "care", "replies"]
    assert [s.name for s in known.topics if s.wanted is not Wanted.OPT_OUT] == ["connective/partners"]
    assert known.scope("ads").number == 259
    assert {known.by_number[n].name for n in known.mapped(known.account[0])} == {
        f"connective/{t}" for t in ("newsletter", "offers", "surveys")
    }


def test_the_link_host_keeps_headers_safe(known: Catalogue, ring: KeyRing) -> None:
    brand = known.brand[0]
    assert Links(ring, brand.link_host, brand.mailto).longest <= links.LONGEST_WORD


def letter(name: str, url: str = "") -> EmailMessage:
    """A message of the campaign, its placeholder filled."""
    raw = (EXAMPLES / "campaign" / name).read_bytes()
    return message_from_bytes(raw.replace(b"{unsubscribe_url}", url.encode()), EmailMessage, policy=policy.SMTP)


def test_the_newsletter_keeps_every_rule_once_its_link_is_filled_in(known: Catalogue, ring: KeyRing, addresses: Addresses) -> None:
    brand = known.brand[0]
    minted = Links(ring, brand.link_host, brand.mailto).mint(addresses.read("a@example.org").key, known.topic("newsletter"))
    message = letter("newsletter.eml", minted.url)
    minted.put_on(message)
    links.guard(message, stream=Stream.MARKETING, ring=ring)
    found = {f.rule: f.verdict for f in checkup.check(message.as_bytes(), ring, known)}
    assert {rule for rule, verdict in found.items() if verdict is not Verdict.PASS} == {"dkim-covers", "dkim-valid"}, (
        "only a signature lacks"
    )


def test_the_forgotten_message_lacks_everything_and_is_refused(known: Catalogue, ring: KeyRing) -> None:
    message = letter("forgotten.eml")
    with pytest.raises(Unguarded):
        links.guard(message, stream=Stream.MARKETING, ring=ring)
    failed = {f.rule for f in checkup.check(message.as_bytes(), ring, known) if f.verdict is Verdict.FAIL}
    assert {"list-unsubscribe", "list-unsubscribe-post", "list-id", "token", "link-in-html", "postal-address", "dkim-covers"} <= failed
