"""The numbers that can never change: scopes, accounts, key ids. The database remembers every one the catalogue ever gave out.

A token says a scope by its number and lives for years, so a number that came to mean something else would stop the wrong mail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from mailprefs.catalogue import Account, Catalogue, Scope
from mailprefs.db import Connection, durable, pending, queries, text
from mailprefs.errors import Misconfigured
from mailprefs.words import ADS, Channel

FILLING = 3600.0  # seconds that owing a newly mapped scope to everyone may take, whatever limit the connection has


async def ready(
    connection: Connection, catalogue: Catalogue, ring: Mapping[int, bytes], channels: Mapping[str, Channel], *, now: datetime
) -> None:
    """Make sure that a database is durable, up to date and knows our numbers: what every process asks before it serves or works.

    ``ring`` is the fingerprints of the key ring. Raises Misconfigured, which says what to do.
    """
    await durable(connection)
    if lacking := await pending(connection):
        raise Misconfigured(f"the database lacks {', '.join(lacking)}. Bring it up to date: mailprefs migrate")
    await _same_ring(connection, ring)
    await register(connection, catalogue, [number for number in ring if number >= 0], channels, now=now)


async def _same_ring(connection: Connection, ring: Mapping[int, bytes]) -> None:
    """Refuse another key ring than the one this database was made with: it would take everyone who has left for a stranger."""
    for _ in range(2):  # the first look remembers what is new
        seen = {
            row["id"]: row["value"] async for row in queries("numbers").fingerprints(connection, ids=list(ring), values=list(ring.values()))
        }
    if other := sorted(number for number, value in ring.items() if seen[number] != value):
        what = "the digest key" if other[0] < 0 else f"key {other[0]}"
        raise Misconfigured(
            f"this is another key ring than the database knows: {what} differs. Restore the ring from your copy; "
            "under a new one nobody's opt-out would be recognised, and old links would be dead."
        )


async def register(
    connection: Connection, catalogue: Catalogue, keys: Iterable[int], channels: Mapping[str, Channel], *, now: datetime
) -> None:
    """Make the database know the catalogue's numbers and the ring's key ids.

    ``channels`` says how each provider reaches people. Raises Misconfigured, before anything is written, for a number used again
    for something else, a topic whose stream changed or that vanished, and a key id that is no longer in the ring.
    """
    async with connection.transaction():
        await queries("numbers").lock(connection)
        known = {row["scope"]: row async for row in queries("numbers").scopes(connection)}
        _unchanged(catalogue, {n: (row["name"], tuple(row["path"])) for n, row in known.items()})
        await _keep_keys(connection, sorted(keys), now)
        await _keep_scopes(connection, catalogue.scopes)
        await _keep_accounts(connection, catalogue, channels)
    await _fill(connection, now)


def _unchanged(catalogue: Catalogue, known: Mapping[int, tuple[str, tuple[int, ...]]]) -> None:
    for number, (name, path) in known.items():
        scope = catalogue.by_number.get(number)
        if scope is None:
            if number & 255 != ADS:
                raise Misconfigured(f"'{name}' (number {number}) is gone from the catalogue, but old links name it: write retired = true.")
        elif scope.name != name:
            raise Misconfigured(f"number {number} is '{name}' for ever and cannot mean '{scope.name}'. Give that one a number of its own.")
        elif scope.path != path:
            raise Misconfigured(f"'{name}' changed its stream. Consent was given to the old one: make a new topic instead.")


async def _keep_keys(connection: Connection, keys: Sequence[int], now: datetime) -> None:
    issued = [row["id"] async for row in queries("numbers").signing_keys(connection)]
    if lost := sorted(set(issued) - set(keys)):
        raise Misconfigured(f"the key ring lacks the key {', '.join(map(str, lost))}: links in people's inboxes were signed with it.")
    await queries("numbers").keep_signing_keys(connection, ids=list(keys), now=now)


async def _keep_scopes(connection: Connection, scopes: Sequence[Scope]) -> None:
    for scope in scopes:
        await queries("numbers").keep_scope(
            connection,
            scope=scope.number,
            path=list(scope.path),
            name=scope.name,
            stream=scope.stream,
            wants_email=scope.wants(Channel.EMAIL),
            wants_sms=scope.wants(Channel.SMS),
            retired=scope.retired,
        )


async def _keep_accounts(connection: Connection, catalogue: Catalogue, channels: Mapping[str, Channel]) -> None:
    wanted: dict[tuple[int, int], tuple[list[int], str]] = {}
    for account in catalogue.account:
        number = await queries("numbers").keep_account(connection, name=account.name, channel=channels[account.provider])
        for scope, group in catalogue.mapped(account).items():
            wanted[number, scope] = _path_for(account, catalogue.by_number[scope]), group
    known = {(row["account"], row["scope"]): (row["path"], row["called"]) async for row in queries("numbers").mappings(connection)}
    if known == wanted:
        return
    await queries("numbers").lock_mappings(connection)
    await queries("numbers").drop_mappings(connection, accounts=[number for number, _ in wanted], scopes=[scope for _, scope in wanted])
    for (number, scope), (path, group) in wanted.items():
        await queries("numbers").keep_mapping(connection, account=number, scope=scope, path=path, called=group)


async def _fill(connection: Connection, now: datetime) -> None:
    """Owe what was held before a scope was mapped, each mapping in a transaction of its own; one that was cut short is done again."""
    for row in [row async for row in queries("numbers").unfilled(connection)]:
        async with connection.transaction():
            owe = text("numbers", "owe_everything_held")
            await connection.execute(owe, row["account"], row["scope"], now, timeout=FILLING)
            await queries("numbers").filled(connection, account=row["account"], scope=row["scope"])


def _path_for(account: Account, scope: Scope) -> list[int]:
    """Return the part of the path whose holds count for this account (state.md §6)."""
    return list(scope.path if account.share_bounces else scope.path[2:])
