"""``check-receipt``: whether what a recipient shows is what a page of ours gave them."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import click

from mailprefs import receipts, seals
from mailprefs.cli.opening import Opening, contents
from mailprefs.cli.saying import show
from mailprefs.errors import Unreadable


@click.command("check-receipt")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option("--key", help="The public key that signed it, as `export key` prints it; wants no catalogue.  [of the key ring here]")
@click.option("--json", "as_json", is_flag=True, help="What the receipt says, for a program to read.")
def check_receipt_(file: Path, key: str | None, as_json: bool) -> None:
    """Prove the receipt that somebody got who pressed stop. FILE holds its signed text; `-` is stdin.

    Wants no database. Exit 1 if it was not signed here, or a letter of it was altered.
    """
    try:
        text = contents(file).decode()
    except UnicodeDecodeError:
        raise Unreadable("that is no receipt: no text in UTF-8") from None
    facts = receipts.read(seals.public(Opening().ring) if key is None else key, text)
    if as_json:
        click.echo(json.dumps(facts))
        return
    show(f"receipt {facts['number']} is genuine: pressed at {facts['at']}")
    for scope in facts["stopped"]:
        show(f"  stopped: {_name(scope, here=key is None)}")
    show(f"  for the address with the key {UUID(hex=facts['of'])}")


def _name(scope: int, *, here: bool) -> str:
    """Return what a scope is called here; elsewhere, and of what is gone from the catalogue, its number."""
    known = Opening().catalogue.by_number.get(scope) if here else None
    return known.name if known else f"scope {scope}"
