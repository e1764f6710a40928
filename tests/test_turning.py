"""A ring that is turned while it is in use: no link of the new key is ever a stranger's."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from uuid import uuid4

import pytest

from mailprefs import links, turning
from mailprefs.catalogue import Catalogue
from mailprefs.errors import Forged
from mailprefs.links import KeyRing, Links

TODAY = date(2026, 11, 22)


def written(path: Path, ring: KeyRing) -> None:
    new = path.with_suffix(".new")
    new.write_text(ring.dumped())
    new.chmod(0o600)
    new.replace(path)


def token(ring: KeyRing, known: Catalogue) -> str:
    return Links(ring, "go.example.com", "u@go.example.com").token(uuid4(), known.topic("newsletter"))


@pytest.fixture
def path(tmp_path: Path, ring: KeyRing) -> Path:
    written(tmp_path / "keys.json", ring)
    return tmp_path / "keys.json"


def test_a_key_that_was_added_verifies_at_once(path: Path, ring: KeyRing, shared_catalogue: Catalogue) -> None:
    live, newer = turning.load(str(path)), ring.renewed(TODAY)
    links.read(live, token(ring, shared_catalogue))
    written(path, newer)
    assert links.read(live, token(newer, shared_catalogue)).key_id == newer.minting.id
    assert live.key(newer.minting.id) is not None
    assert live.minting == ring.minting  # what mints is chosen at the start
    with pytest.raises(Forged):  # the control: a ring that was read once
        links.read(KeyRing.parse(ring.dumped()), token(newer, shared_catalogue))


def test_forged_key_ids_cost_a_look_a_second(
    path: Path, ring: KeyRing, shared_catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, newer = [100.0], ring.renewed(TODAY)
    monkeypatch.setattr(turning, "monotonic", lambda: now[0])
    live = turning.load(str(path))
    assert live.signer(200) is None
    written(path, newer)
    now[0] += turning.PAUSE / 2
    assert live.signer(newer.minting.id) is None
    now[0] += turning.PAUSE / 2
    assert live.signer(newer.minting.id) is not None


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("{"), lambda path: path.chmod(0o644)])
def test_a_ring_that_cannot_be_read_any_more_changes_nothing(path: Path, ring: KeyRing, shared_catalogue: Catalogue, spoil: object) -> None:
    live, newer = turning.load(str(path)), ring.renewed(TODAY)
    assert callable(spoil)
    spoil(path)
    with pytest.raises(Forged):
        links.read(live, token(newer, shared_catalogue))
    links.read(live, token(ring, shared_catalogue))


def test_another_ring_in_its_place_counts_for_nothing(path: Path, ring: KeyRing, shared_catalogue: Catalogue) -> None:
    live, foreign = turning.load(str(path)), KeyRing.new(TODAY).renewed(TODAY)
    written(path, foreign)
    with pytest.raises(Forged):
        links.read(live, token(foreign, shared_catalogue))


def test_a_ring_that_is_no_file_is_read_as_it_is(ring: KeyRing) -> None:
    assert turning.load(ring.dumped()) == ring
