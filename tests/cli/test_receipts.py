"""``check-receipt``: what a recipient shows is believed if we signed it, and only then."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

from mailprefs import receipts, seals
from mailprefs.addresses import Addresses
from mailprefs.links import KeyRing

from .shell import Shell

AT = datetime(2026, 11, 22, 9, 31, tzinfo=UTC)


async def test_a_receipt_is_proven_with_the_ring_that_signed_it_and_names_what_was_stopped(alone: Shell, addresses: Addresses) -> None:
    jane = addresses.read("jane@example.org")
    receipt = receipts.issue(alone.ring, jane, [272, 7 * 256 + 16], AT)
    (alone.home / "receipt.txt").write_text(receipt.text)
    said = (await alone("check-receipt", "receipt.txt")).said(0)
    assert f"receipt {receipt.number} is genuine: pressed at 2026-11-22T09:31:00+00:00" in said.out
    assert "stopped: connective/newsletter" in said.out
    assert "stopped: scope 1808" in said.out, "what nobody knows any more goes by its number"
    assert str(jane.key) in said.out
    as_json = (await alone("check-receipt", "-", "--json", stdin=receipt.text.encode())).said(0)
    assert json.loads(as_json.out)["stopped"] == [272, 1808]


async def test_whoever_has_the_public_key_needs_nothing_else_of_ours(alone: Shell, addresses: Addresses) -> None:
    receipt = receipts.issue(alone.ring, addresses.read("jane@example.org"), [272], AT)
    for name in ("mailprefs.toml", "mailprefs.keys.json"):
        (alone.home / name).unlink()
    said = await alone("check-receipt", "-", "--key", seals.public(alone.ring), stdin=receipt.text.encode())
    assert "stopped: scope 272" in said.said(0).out
    other = seals.public(KeyRing.new(date(2026, 11, 22)))
    assert (await alone("check-receipt", "-", "--key", other, stdin=receipt.text.encode())).said(1, "does not hold").out == ""


async def test_an_empty_key_is_not_taken_for_one_s_own(alone: Shell, addresses: Addresses) -> None:
    receipt = receipts.issue(alone.ring, addresses.read("jane@example.org"), [272], AT)
    (await alone("check-receipt", "-", "--key", "", stdin=receipt.text.encode())).said(1, "no public key")
    (await alone("check-receipt", "-", stdin=receipt.text.encode())).said(0)  # the control


async def test_an_altered_receipt_and_what_is_none_prove_nothing(alone: Shell, addresses: Addresses) -> None:
    text = receipts.issue(alone.ring, addresses.read("jane@example.org"), [272], AT).text
    altered = text.replace("272", "273")
    assert (await alone("check-receipt", "-", stdin=altered.encode())).said(1, "the signature does not hold").out == ""
    for none in (b"", b"\xff", b"{}", b"[" * 5000, text[:-3].encode()):
        (await alone("check-receipt", "-", stdin=none)).said(1, "that is no receipt")
