"""The numbers that can never change: scopes, accounts, key ids. The database remembers every one the catalogue ever gave out.

A token says a scope by its number and lives for years, so a number that came to mean something else would stop the wrong mail.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from mailprefs import telemetry
from mailprefs.catalogue import Account, Catalogue, Scope
from mailprefs.db import Connection, durable, pending, queries, text
from mailprefs.errors import Misconfigured
from mailprefs.words import ADS, Channel

FILLING = 3600.0  # seconds that owing a newly mapped scope to everyone may take, whatever limit the connection has


async def ready(
    connection: Connection, catalogue: Catalogue, ring: Mapping[int, bytes], channels: Mapping[str, Channel], *, now: datetime
) -> None:
    """Make sure that a database is durable, up to date and knows our numbers: what every process asks before it serves or works.

    ``ring`` is the fingerprints of the key ring. Raises Misconfigured, which says what to do. What a newer release has made the
    database know beyond our catalogue stays: a process that is older takes nothing away from it.
    """
    await _sound(connection, ring)
    await _keep_keys(connection, sorted(number for number in ring if number >= 0), now)
    await _covered(connection, catalogue, channels)


async def introduce(
    connection: Connection, catalogue: Catalogue, ring: Mapping[int, bytes], channels: Mapping[str, Channel], *, now: datetime
) -> None:
    """Make a database that is durable and up to date know our numbers, as the release step does. Raises as ``ready`` and ``register``."""
    await _sound(connection, ring)
    await register(connection, catalogue, [number for number in ring if number >= 0], channels, now=now)


async def _sound(connection: Connection, ring: Mapping[int, bytes]) -> None:
    await durable(connection)
    if lacking := await pending(connection):
        raise Misconfigured(f"the database lacks {', '.join(lacking)}. Bring it up to date: mailprefs migrate")
    await _same_ring(connection, ring)


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
        known = await _known(connection)
        async with _a_way_out(connection):
            _unchanged(catalogue, known)
            _whole(catalogue, known)
        await _keep_keys(connection, sorted(keys), now)
        await _keep_scopes(connection, catalogue.scopes)
        await _keep_accounts(connection, catalogue, channels)
    await _fill(connection, now)


async def _known(connection: Connection) -> Mapping[int, Mapping[str, Any]]:
    return {row["scope"]: row async for row in queries("numbers").scopes(connection)}


def _unchanged(catalogue: Catalogue, known: Mapping[int, Mapping[str, Any]]) -> None:
    """Raise Misconfigured for a number that came to mean something else."""
    for number, row in known.items():
        scope = catalogue.by_number.get(number)
        if scope and scope.name != row["name"]:
            raise Misconfigured(
                f"number {number} is '{row['name']}' for ever and cannot mean '{scope.name}'. Give that one a number of its own."
            )
        if scope and scope.path != tuple(row["path"]):
            raise Misconfigured(f"'{scope.name}' changed its stream. Consent was given to the old one: make a new topic instead.")


@asynccontextmanager
async def _a_way_out(connection: Connection) -> AsyncIterator[None]:
    """Say beside what cannot be changed how one begins anew, as long as the database knows nobody."""
    try:
        yield
    except Misconfigured as error:
        if not await queries("numbers").knows_nobody(connection):
            raise
        raise Misconfigured(
            f"{error} Or begin anew, if no link has been sent yet: nobody is recorded here. Take an empty database; "
            "without DATABASE_URL, delete the folder `.mailprefs` beside the catalogue."
        ) from None


def _whole(catalogue: Catalogue, known: Mapping[int, Mapping[str, Any]]) -> None:
    """Raise Misconfigured for a number that is in the catalogue no longer."""
    for number in sorted(known.keys() - catalogue.by_number.keys()):
        if number & 255 != ADS:
            name = known[number]["name"]
            raise Misconfigured(f"'{name}' (number {number}) is gone from the catalogue, but old links name it: write retired = true.")


async def current(connection: Connection, catalogue: Catalogue) -> None:
    """Raise Misconfigured unless a database that may be read only is up to date and knows the scopes of the catalogue as they are."""
    known = {} if (lacking := await pending(connection)) else await _known(connection)
    lacking += [scope.name for scope in catalogue.scopes if scope.number not in known or _varies(scope) != _as_kept(known[scope.number])]
    if lacking:
        raise Misconfigured(f"the database lacks {', '.join(lacking)}")


async def _covered(connection: Connection, catalogue: Catalogue, channels: Mapping[str, Channel]) -> None:
    """Raise Misconfigured unless the database knows all that the catalogue says. What it knows besides is only logged."""
    known = await _known(connection)
    async with _a_way_out(connection):
        _unchanged(catalogue, known)
    accounts = {row["account"]: (row["name"], row["channel"]) async for row in queries("numbers").accounts(connection)}
    mappings = {(accounts[row["account"]][0], row["scope"]): row async for row in queries("numbers").mappings(connection)}
    wanted = _mapped(catalogue)
    lacking = [
        *(scope.name for scope in catalogue.scopes if scope.number not in known or _varies(scope) != _as_kept(known[scope.number])),
        *(each.name for each in catalogue.account if (each.name, _channel(each, channels)) not in accounts.values()),
        *(f"{name}: {catalogue.by_number[scope].name}" for (name, scope), to in wanted.items() if to != _told(mappings.get((name, scope)))),
    ]
    if lacking:
        raise Misconfigured(f"the database does not know what the catalogue says of {', '.join(lacking)}. Tell it: mailprefs migrate")
    beyond = {"scopes": len(known.keys() - catalogue.by_number.keys()), "mappings": len(mappings.keys() - wanted.keys())}
    if any(beyond.values()):
        telemetry.log.warning("database_knows_more", **beyond)
    for name in sorted({name for (name, _), row in mappings.items() if not row["filled"]}):
        telemetry.alarm("mapping_not_filled", account=name)  # a release step that was cut short: the next one owes the rest


def _varies(scope: Scope) -> tuple[int, int, bool]:
    """Return what of a scope may change: what it wants, and whether it is retired."""
    return scope.wants(Channel.EMAIL), scope.wants(Channel.SMS), scope.retired


def _as_kept(row: Mapping[str, Any]) -> tuple[int, int, bool]:
    return row["wants_email"], row["wants_sms"], row["retired"]


def _mapped(catalogue: Catalogue) -> dict[tuple[str, int], tuple[list[int], str]]:
    """Return what is mapped: account's name and scope → the part of the path that counts, and which provider's id.

    Under another id, and at another provider, it has been told nothing.
    """
    return {
        (account.name, scope): (_path_for(account, catalogue.by_number[scope]), called)
        for account in catalogue.account
        for scope, called in catalogue.called(account).items()
    }


def _told(row: Mapping[str, Any] | None) -> tuple[list[int], str] | None:
    return (row["path"], row["called"]) if row else None


def _channel(account: Account, channels: Mapping[str, Channel]) -> Channel:
    if (channel := channels.get(account.provider)) is None:
        raise Misconfigured(f"account '{account.name}' names the provider '{account.provider}'; there are: {', '.join(channels)}")
    return channel


async def _keep_keys(connection: Connection, keys: Sequence[int], now: datetime) -> None:
    issued = [row["id"] async for row in queries("numbers").signing_keys(connection)]
    if lost := sorted(set(issued) - set(keys)):
        raise Misconfigured(f"the key ring lacks the key {', '.join(map(str, lost))}: links in people's inboxes were signed with it.")
    await queries("numbers").keep_signing_keys(connection, ids=list(keys), now=now)


async def _keep_scopes(connection: Connection, scopes: Sequence[Scope]) -> None:
    for scope in scopes:
        wants_email, wants_sms, retired = _varies(scope)
        await queries("numbers").keep_scope(
            connection,
            scope=scope.number,
            path=list(scope.path),
            name=scope.name,
            stream=scope.stream,
            wants_email=wants_email,
            wants_sms=wants_sms,
            retired=retired,
        )


async def _keep_accounts(connection: Connection, catalogue: Catalogue, channels: Mapping[str, Channel]) -> None:
    number = {
        each.name: await queries("numbers").keep_account(connection, name=each.name, channel=_channel(each, channels))
        for each in catalogue.account
    }
    wanted = {(number[name], scope): to for (name, scope), to in _mapped(catalogue).items()}
    known = {(row["account"], row["scope"]): _told(row) async for row in queries("numbers").mappings(connection)}
    if known == wanted:
        return
    await queries("numbers").lock_mappings(connection)
    await queries("numbers").drop_mappings(connection, accounts=[account for account, _ in wanted], scopes=[scope for _, scope in wanted])
    await queries("numbers").drop_unreachable(connection)
    for (account, scope), (path, group) in wanted.items():
        await queries("numbers").keep_mapping(connection, account=account, scope=scope, path=path, called=group)


async def _fill(connection: Connection, now: datetime) -> None:
    """Owe what was held before a scope was mapped, each mapping in a transaction of its own; one that was cut short is done again."""
    for row in [row async for row in queries("numbers").unfilled(connection)]:
        async with connection.transaction():
            owe = text("numbers", "owe_everything_held")
            await connection.execute(owe, row["account"], row["scope"], now, timeout=FILLING)
            await queries("numbers").filled(connection, account=row["account"], scope=row["scope"])


def _path_for(account: Account, scope: Scope) -> list[int]:
    """Return the part of the path whose holds count for this account (docs/state.md §6)."""
    return list(scope.path if account.share_bounces else scope.path[2:])
