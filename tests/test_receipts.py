"""A receipt says what was pressed, can be checked by anybody, and gives nobody away."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from mailprefs import receipts, seals
from mailprefs.addresses import Addresses
from mailprefs.errors import Forged, Unreadable
from mailprefs.links import KeyRing

AT = datetime(2026, 11, 22, 9, 31, 7, 999_999, tzinfo=UTC)


def test_the_same_press_has_the_same_receipt_and_another_one_another(ring: KeyRing, addresses: Addresses) -> None:
    jane, john = addresses.read("jane@example.org"), addresses.read("john@example.org")
    first = receipts.issue(ring, jane, [273, 272], AT)
    assert first == receipts.issue(ring, jane, [272, 273], AT.astimezone(timezone(timedelta(hours=5))))
    others = [receipts.issue(ring, john, [272, 273], AT), receipts.issue(ring, jane, [272], AT)]
    others.append(receipts.issue(ring, jane, [272, 273], AT + timedelta(seconds=1)))
    assert len({each.number for each in (first, *others)}) == 4
    assert re.fullmatch(r"[A-Z2-7]{4}-[A-Z2-7]{4}-[A-Z2-7]{4}", first.number)


def test_a_receipt_names_no_address_and_no_title(ring: KeyRing, addresses: Addresses) -> None:
    text = receipts.issue(ring, addresses.read("jane@example.org"), [272], AT).text
    assert "jane" not in text
    assert "example" not in text
    assert "newsletter" not in text.lower()
    assert json.loads(text)["at"] == "2026-11-22T09:31:07+00:00", "the control: it does say something"


def test_a_receipt_is_believed_to_the_letter_alone(ring: KeyRing, addresses: Addresses) -> None:
    public = seals.public(ring)
    text = receipts.issue(ring, addresses.read("jane@example.org"), [272], AT).text
    assert receipts.read(public, text)["stopped"] == [272]
    assert receipts.read(public, json.dumps(json.loads(text)))["stopped"] == [272], "however it was wrapped on its way"
    facts = json.loads(text)
    for name, value in facts.items():
        for other in (None, f"{value}x", [value]):
            with pytest.raises((Forged, Unreadable)):
                receipts.read(public, json.dumps({**facts, name: other}))
    with pytest.raises(Forged):
        receipts.read(public, json.dumps({**facts, "more": 1}))


@pytest.mark.parametrize("none", ["", "{}", "[]", "null", '"x"', "{" * 4000, "x" * 5000, '{"receipt": "another 1"}'])
def test_what_is_no_receipt_is_told_apart_from_a_forged_one(ring: KeyRing, none: str) -> None:
    with pytest.raises(Unreadable):
        receipts.read(seals.public(ring), none)


def test_a_word_that_stands_twice_is_no_receipt(ring: KeyRing, addresses: Addresses) -> None:
    text = receipts.issue(ring, addresses.read("jane@example.org"), [272], AT).text
    assert receipts.read(seals.public(ring), text)["at"] == "2026-11-22T09:31:07+00:00"  # the control
    with pytest.raises(Unreadable):
        receipts.read(seals.public(ring), text.replace("{", '{"at": "2020-01-01T00:00:00+00:00",', 1))
