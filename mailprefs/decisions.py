"""May we send? One address or ten thousand, with every reason why not. The rule itself is SQL, one definition for all who ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from mailprefs.catalogue import Catalogue, Scope
from mailprefs.db import Connection, queries, spelt, text
from mailprefs.errors import UnknownScope
from mailprefs.words import Address, Channel, Decision, Reason, Stream


@dataclass(frozen=True, slots=True)
class Question:
    """May this address be sent this topic? ``asked`` and ``topic`` are given back as they came."""

    address: Address
    asked: str
    topic: str
    unreadable: bool = False  # the text spells no address we would accept: for marketing, a doubt


async def decide(connection: Connection, questions: Sequence[Question], catalogue: Catalogue, *, now: datetime) -> list[Decision]:
    """Answer each question, in order. An unknown topic, or any doubt, is no.

    A denied Decision carries every hold on the topic's path and, where consent is wanted and missing, ``consent_missing``.
    """
    scopes = {name: _scope(catalogue, name) for name in {q.topic for q in questions}}
    known = [(q, s) for q in questions if (s := scopes[q.topic]) is not None]
    allowed, missing = await _places(connection, known, now)
    denied = [q.address for n, (q, _) in enumerate(known) if n not in allowed]
    holds = await _holds(connection, denied, now) if denied else {}
    answers = iter([_decision(q, s, n in allowed, n in missing, holds, catalogue) for n, (q, s) in enumerate(known)])
    return [next(answers) if scopes[q.topic] is not None else _unknown(q) for q in questions]


async def why(
    connection: Connection,
    address: Address,
    asked: str,
    topics: Sequence[Scope],
    catalogue: Catalogue,
    *,
    now: datetime,
    unreadable: bool = False,
) -> dict[str, Any]:
    """Return everything behind the answers about one address, as JSON values: decisions, history, who was told, and whether it was ``met``.

    An imported consent has two keys more, ``source`` and ``notice``: where it was given, and what it said.
    """
    questions = [Question(address, asked, topic.name, unreadable) for topic in topics]
    place = {"bucket": address.bucket, "key": address.key}
    history = [_entry(row) async for row in queries("decisions").history(connection, **place)]
    told = [dict(row) async for row in queries("decisions").told(connection, **place)]
    met = bool(await queries("decisions").is_met(connection, **place))
    for row in (*history, *told):
        row["scope"] = name_of(catalogue, row["scope"])
    answers = await decide(connection, questions, catalogue, now=now)
    return {"address": asked, "met": met, "decisions": answers, "history": history, "told": told}


def _entry(row: Any) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("source", "notice") or value is not None}


async def is_held(connection: Connection, address: Address, scope: int, *, now: datetime) -> bool:
    """Return whether a hold keeps this scope from this address: what a page reads back after a press."""
    return bool(await queries("decisions").is_held(connection, bucket=address.bucket, key=address.key, scope=scope, now=now))


def name_of(catalogue: Catalogue, number: int) -> str:
    """Return a scope's name, or its number where the catalogue does not know it."""
    scope = catalogue.by_number.get(number)
    return scope.name if scope else str(number)


def _scope(catalogue: Catalogue, topic: str) -> Scope | None:
    try:
        scope = catalogue.topic(topic)
    except UnknownScope:
        return None
    return None if scope.retired else scope


async def _places(connection: Connection, known: Sequence[tuple[Question, Scope]], now: datetime) -> tuple[set[int], set[int]]:
    """Return at which places, from 0, the rule says yes, and at which the consent that is wanted is missing."""
    ((allowed, missing),) = await connection.fetch(
        text("decisions", "decide"),
        spelt(str(q.address.bucket) for q, _ in known),
        [q.address.key for q, _ in known],
        spelt(q.address.channel or "null" for q, _ in known),
        spelt(str(s.number) for _, s in known),
        now,
    )
    return {n - 1 for n in allowed}, {n - 1 for n in missing}


async def _holds(connection: Connection, addresses: Sequence[Address], now: datetime) -> Mapping[UUID, list[Any]]:
    holds: dict[UUID, list[Any]] = {}
    for row in await connection.fetch(text("decisions", "holds"), [a.bucket for a in addresses], [a.key for a in addresses], now):
        holds.setdefault(row["key"], []).append(row)
    return holds


def _decision(
    question: Question, scope: Scope, allowed: bool, missing: bool, holds: Mapping[UUID, list[Any]], catalogue: Catalogue
) -> Decision:
    doubt = question.unreadable and scope.stream is not Stream.TRANSACTIONAL
    if allowed and not doubt:
        return Decision(question.asked, question.topic, True)
    reasons = [
        Reason(name_of(catalogue, hold["scope"]), hold["cause"], hold["off_at"], hold["until"])
        for hold in holds.get(question.address.key, ())
        if hold["scope"] in scope.path
    ]
    if missing:
        reasons.append(Reason(scope.name, "consent_missing"))
    if doubt:
        reasons.append(Reason(scope.name, "unreadable"))
    return Decision(question.asked, question.topic, False, tuple(reasons))


def _unknown(question: Question) -> Decision:
    return Decision(question.asked, question.topic, False, (Reason(question.topic, "unknown_topic"),))


def channel_of(text: str) -> Channel:
    """Return the channel named by a text, ``email`` or ``sms``. Raises UnknownScope."""
    try:
        return Channel(text)
    except ValueError:
        raise UnknownScope("no such channel; there are: email, sms") from None
