"""``init``, ``keys`` and ``api-keys``: secrets are made, kept from others, and shown once at the most."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import asyncpg
import pytest

from mailprefs import apikeys, links
from mailprefs.cli import secrets
from mailprefs.cli.opening import now
from mailprefs.errors import Forged
from mailprefs.links import KeyRing

from .shell import Shell


def ring_of(path: Path) -> KeyRing:
    return KeyRing.load(str(path))


def secrets_of(path: Path) -> list[str]:
    raw = json.loads(path.read_text())
    return [raw["digest"], raw["export"], *(key["secret"] for key in raw["keys"])]


async def test_init_writes_what_serves_and_overwrites_nothing(alone: Shell) -> None:
    place = alone.home / "a new place"
    done = await alone("init", "a new place")
    done.said(
        0,
        r"wrote a new place/mailprefs\.toml and a new place/mailprefs\.keys\.json",
        r"next: .+; then: cd 'a new place' && mailprefs serve",
    )
    assert (place / "mailprefs.keys.json").stat().st_mode & 0o777 == 0o600
    there = {"MAILPREFS_CONFIG": "a new place/mailprefs.toml", "MAILPREFS_KEYS": "a new place/mailprefs.keys.json"}
    assert "https://go.example.com/u/" in (await alone("link", "jane@example.org", "newsletter", env=there)).said(0).out
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert set(before) == {"mailprefs.toml", "mailprefs.keys.json"}
    for gone in ("", "mailprefs.toml", "mailprefs.keys.json"):
        if gone:
            (place / gone).unlink()
        (await alone("init", "a new place")).said(2, "is there already")
        assert {path.name: path.read_bytes() for path in place.iterdir()} == {n: b for n, b in before.items() if n != gone}
        if gone:
            (place / gone).write_bytes(before[gone])
    (alone.home / "file").write_text("x")
    (await alone("init", "file")).said(2, "is a file")
    (await alone("init", "/proc/no/where")).said(2, "cannot be written")


async def test_a_link_goes_on_stopping_through_every_turn_of_the_keys(alone: Shell) -> None:
    path = alone.home / "mailprefs.keys.json"
    minted = [(await alone("link", "jane@example.org", "newsletter")).said(0).out.splitlines()[0]]
    for number in (2, 3):
        (await alone("keys", "new")).said(0, rf"key {number} mints from now on; mailprefs\.keys\.json holds {number}")
        alone.secrets += secrets_of(path)
        minted.append((await alone("link", "jane@example.org", "newsletter")).said(0).out.splitlines()[0])
    (await alone("keys", "retire", "1")).said(0, "key 1 only verifies from now on")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [links.read(ring_of(path), links.token_in(url)).key_id for url in minted] == [1, 2, 3]
    with pytest.raises(Forged):  # the control: before the turn, the ring knew nothing of key 3
        links.read(alone.ring, links.token_in(minted[2]))
    assert len({links.read(ring_of(path), links.token_in(url)).address for url in minted}) == 1, "the digest key never turns"
    shown = (await alone("keys", "list")).said(0).out.splitlines()
    assert [line.split()[:2] for line in shown] == [["1", "verify"], ["2", "verify"], ["3", "mint"]]
    listed = json.loads((await alone("keys", "list", "--json")).said(0).out)
    assert [set(key) for key in listed] == [{"id", "state", "created"}] * 3
    assert [path.name for path in alone.home.iterdir() if "keys" in path.name] == ["mailprefs.keys.json"], "nothing is left beside it"


async def test_a_ring_behind_a_link_turns_for_all_who_read_it(alone: Shell) -> None:
    path, kept = alone.home / "mailprefs.keys.json", alone.home / "kept.json"
    path.rename(kept)
    path.symlink_to("kept.json")
    (await alone("keys", "new")).said(0, "key 2 mints from now on")
    alone.secrets += secrets_of(kept)
    assert path.is_symlink()
    assert ring_of(kept).minting.id == 2
    assert kept.stat().st_mode & 0o777 == 0o600


async def test_the_key_that_mints_stays_and_mistakes_change_nothing(alone: Shell) -> None:
    path = alone.home / "mailprefs.keys.json"
    before = path.read_bytes()
    (await alone("keys", "retire", "1")).said(2, "key 1 is the one that mints; make a new one first")
    (await alone("keys", "retire", "9")).said(2, "the key ring has no key 9")
    inline = {"MAILPREFS_KEYS": before.decode()}
    (await alone("keys", "new", env=inline)).said(2, "MAILPREFS_KEYS holds the key ring itself; set it to a file")
    (await alone("keys", "list", env=inline)).said(0)
    path.chmod(0o644)
    (await alone("keys", "new")).said(2, "is open to others.*chmod 600")
    (await alone("keys", "new", env={"MAILPREFS_KEYS": "no/where.json"})).said(2, "cannot be written: No such file")
    assert path.read_bytes() == before


async def test_of_two_new_keys_at_once_neither_is_lost(alone: Shell) -> None:
    path = alone.home / "mailprefs.keys.json"
    with secrets.turning(path) as ring:
        second = asyncio.create_task(alone("keys", "new"))
        await asyncio.wait([second], timeout=1)
        assert not second.done(), "it waits for the first"
        secrets.write_ring(path, ring.renewed(now().date()))
    (await second).said(0, "key 3 mints from now on; .* holds 3")
    alone.secrets += secrets_of(path)
    assert [key.id for key in ring_of(path).keys] == [1, 2, 3]


async def test_the_first_key_makes_the_ring(alone: Shell) -> None:
    fresh = {"MAILPREFS_KEYS": "fresh.json"}
    (await alone("keys", "new", env=fresh)).said(0, r"key 1 mints from now on; fresh\.json holds 1")
    path = alone.home / "fresh.json"
    assert path.stat().st_mode & 0o777 == 0o600
    alone.secrets += secrets_of(path)
    (await alone("keys", "list", env=fresh)).said(0)
    assert ring_of(path).digest != alone.ring.digest


async def test_an_api_key_is_shown_once_and_ends_when_it_is_revoked(shell: Shell, conn: asyncpg.Connection) -> None:
    made = (await shell("api-keys", "new", "links", "decide", "--label", "shop", "--days", "30")).said(0, "key .*, shown this once:")
    text = made.out.strip()
    assert made.out == f"{text}\n", "stdout holds the key alone"
    assert text not in made.err
    key = await apikeys.recognise(conn, text, now=now())
    assert key.powers == {"links", "decide"}
    shell.secrets.append(text.removeprefix(f"mp_{key.id}_"))
    (line,) = (await shell("api-keys", "list")).said(0).out.splitlines()
    assert line.startswith(f"{key.id}  until 20")
    assert line.endswith("decide links  shop")
    (listed,) = json.loads((await shell("api-keys", "list", "--json")).said(0).out)
    assert (listed["id"], listed["scopes"], listed["label"], listed["revoked_at"]) == (key.id, ["decide", "links"], "shop", None)
    (await shell("api-keys", "revoke", text)).said(0, f"key {key.id} is revoked")
    with pytest.raises(Forged):
        await apikeys.recognise(conn, text, now=now())
    (await shell("api-keys", "revoke", key.id)).said(1, f"key {key.id} is not there, or was revoked before")
    assert "revoked" in (await shell("api-keys", "list")).said(0).out
