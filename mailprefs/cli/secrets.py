"""``keys`` and ``api-keys``: what signs links, and what lets applications in."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import click

from mailprefs import apikeys, files
from mailprefs.apikeys import Power
from mailprefs.cli.opening import Opening, now
from mailprefs.cli.saying import Whole, show, tell
from mailprefs.cli.signals import run
from mailprefs.errors import Misconfigured
from mailprefs.links import KeyRing, KeyState


@click.group("keys", cls=Whole)
def keys_() -> None:
    """Make, show and retire signing keys. Many verify, one mints; no link ever dies with its key's retirement."""


@keys_.command("new")
def new() -> None:
    """Make a key ring or, where there is one, a new minting key in it."""
    opening = Opening()
    path = ring_file(opening)
    if path.exists():
        with turning(path) as found:
            ring = found.renewed(now().date())
            write_ring(path, ring)
    else:
        ring = KeyRing.new(now().date())
        write_ring(path, ring, fresh=True)
    tell(f"key {ring.minting.id} mints from now on; {path} holds {len(ring.keys)}")


@keys_.command("list")
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def every(as_json: bool) -> None:
    """Show the keys, never their secrets."""
    rows = [{"id": key.id, "state": key.state.value, "created": key.created.isoformat()} for key in Opening().ring.keys]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        show(f"{row['id']:>3}  {row['state']:<12} {row['created']}")


@keys_.command("retire")
@click.argument("number", metavar="ID", type=int)
@click.option("--compromised", is_flag=True, help="It leaked: its links may stop mail, and nothing else that it signed holds.")
def retire(number: int, compromised: bool) -> None:
    """Stop minting with a key (`keys new` comes first). The links it signed go on stopping mail."""
    path, state = ring_file(Opening()), KeyState.COMPROMISED if compromised else KeyState.VERIFY
    with turning(path) as ring:
        write_ring(path, ring.retired(number, state))
    tell(f"key {number} {'may stop mail, and nothing else' if compromised else 'only verifies'} from now on")


def ring_file(opening: Opening) -> Path:
    """Return where the key ring lies. Raises Misconfigured if it came as JSON in the environment."""
    source = opening.settings.keys.get_secret_value()
    if source.lstrip().startswith("{"):
        raise Misconfigured("MAILPREFS_KEYS holds the key ring itself; set it to a file to change it here")
    return Path(source)


@contextmanager
def turning(path: Path) -> Iterator[KeyRing]:
    """Lend the key ring as it is now, and let nobody else change it meanwhile: of two new keys at once, neither is lost."""
    KeyRing.load(str(path))  # what is wrong with it is said before anybody waits
    while True:
        with path.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(held.fileno()), path.stat()):  # else a new ring was put in its place while we waited
                yield KeyRing.load(str(path))
                return


def write_ring(path: Path, ring: KeyRing, *, fresh: bool = False) -> None:
    """Write the ring so that it is whole or not there, and open to nobody else. Raises Misconfigured."""
    with files.whole(path.resolve(), new=fresh) as file:  # a link to the ring goes on being one
        file.write(ring.dumped().encode("ascii"))


@click.group("api-keys", cls=Whole)
def api_keys_() -> None:
    """Make, show and revoke keys for the API."""


@api_keys_.command("new")
@click.argument("powers", nargs=-1, required=True, type=click.Choice([power.value for power in Power]))
@click.option("--label", default="", help="Whose it is, for the list.")
@click.option("--days", type=click.IntRange(1), help="Ends after so many days.")
def new_api_key(powers: tuple[str, ...], label: str, days: int | None) -> None:
    """Make a key and show it, once. It goes to stdout alone."""
    expires_at = now() + timedelta(days=days) if days else None

    async def issued() -> tuple[str, str]:
        async with Opening().connected() as connection:
            return await apikeys.issue(connection, [Power(p) for p in powers], label, now=now(), expires_at=expires_at)

    number, text = run(issued())
    tell(f"key {number}, shown this once:")
    click.echo(text)


@api_keys_.command("list")
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
def every_api_key(as_json: bool) -> None:
    """Show the keys that were ever made, without their secrets."""

    async def found() -> list[dict[str, object]]:
        async with Opening().connected() as connection:
            return await apikeys.every(connection)

    rows = run(found())
    if as_json:
        click.echo(json.dumps(rows, default=str))
        return
    if not rows:
        tell("no key was made yet: `mailprefs api-keys new` makes one")
    for row in rows:
        state = "revoked" if row["revoked_at"] else f"until {row['expires_at']:%Y-%m-%d}" if row["expires_at"] else "holds"
        powers = " ".join(row["scopes"]) if isinstance(row["scopes"], list) else ""
        show(f"{row['id']}  {state:<16} {powers}  {row['label']}")


@api_keys_.command("revoke")
@click.argument("number", metavar="ID")
def revoke(number: str) -> int:
    """End a key at once. ID is the key's number; the key itself will do."""
    number = number.removeprefix("mp_")[:8]  # so that a secret given in its place is not shown

    async def ended() -> bool:
        async with Opening().connected() as connection:
            return await apikeys.revoke(connection, number, now=now())

    found = run(ended())
    tell(f"key {number} {'is revoked' if found else 'is not there, or was revoked before'}")
    return 0 if found else 1
