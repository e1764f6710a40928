"""Statements as PostgreSQL has read them: the very trees that a planner is given, those of functions too, once they are run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

Node = dict[str, Any]  # its kind stands under "", each field under its name; None is <>, and what is no node stays a text
TOKEN = re.compile(r"[{}()\[\]]|(?:\\.|[^\s{}()\[\]\\])+")
TELLING = "set client_min_messages = log; set log_min_messages = fatal; set debug_print_rewritten = on; set debug_pretty_print = off"


@asynccontextmanager
async def heard(connection: asyncpg.Connection) -> AsyncIterator[list[Node]]:
    """Collect every tree that is read over this connection: they are there once it has been left."""
    found: list[Node] = []
    told: list[tuple[str, str]] = []

    def listener(_connection: Any, message: Any) -> None:
        if message.message == "rewritten parse tree:":
            told.append((message.context or "", message.detail))

    connection.add_log_listener(listener)
    await connection.execute(TELLING)
    try:
        yield found
        await asyncio.sleep(0)  # asyncpg hands them over on the next turn of the loop
        for context, text in told:
            place = next((line for line in context.splitlines() if line.startswith("PL/pgSQL function")), "")
            found.extend({**each, "@": place} for each in read(text) if each[""] == "QUERY")
    finally:
        await connection.execute("reset debug_print_rewritten; reset client_min_messages; reset log_min_messages")
        connection.remove_log_listener(listener)


def read(text: str) -> list[Any]:
    """Read a list of nodes as outfuncs.c of PostgreSQL writes it."""
    tokens = TOKEN.findall(text)
    value, _ = _value(tokens, 0)
    return value if isinstance(value, list) else [value]


def _value(tokens: list[str], at: int) -> tuple[Any, int]:
    token = tokens[at]
    if token == "{":
        return _node(tokens, at + 1)
    if token in "([":
        found, at = [], at + 1
        while tokens[at] not in (")", "]"):
            each, at = _value(tokens, at)
            found.append(each)
        return found, at + 1
    return None if token == "<>" else token.strip('"'), at + 1


def _node(tokens: list[str], at: int) -> tuple[Node, int]:
    node: Node = {"": tokens[at]}
    at += 1
    while tokens[at] != "}":
        name, at = tokens[at][1:], at + 1
        values = []
        while tokens[at] != "}" and not tokens[at].startswith(":"):
            each, at = _value(tokens, at)
            values.append(each)
        node[name] = values[0] if len(values) == 1 else values
    return node, at + 1


def nodes(tree: Any, kind: str = "", *, deep: bool = True) -> Iterator[Node]:
    """Every node in it, or every one of a kind, the outer before the inner; perhaps not those of queries within."""
    if isinstance(tree, list):
        for each in tree:
            yield from nodes(each, kind, deep=deep)
    elif isinstance(tree, dict):
        if not kind or tree[""] == kind:
            yield tree
        if deep or tree[""] != "QUERY":
            for each in tree.values():
                yield from nodes(each, kind, deep=deep)
