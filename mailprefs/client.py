"""For applications: decisions, links and changes over HTTP, and a guard to ask right before a message is sent.

``Client`` needs the standard library alone, and threads may share it; ``AsyncClient`` is the same on aiohttp. What is safe to ask again
is asked until its time is over. No error repeats an address.
"""

from __future__ import annotations

import asyncio
import json
import re
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from urllib.parse import urlsplit

from mailprefs.errors import MailprefsError, Misconfigured, Unavailable
from mailprefs.patience import Timed, Tries, connected
from mailprefs.words import Decision, Reason

if TYPE_CHECKING:
    from aiohttp import ClientSession

BATCH = 10_000  # entries of one request
CHANGES = 1_000  # of one request that changes something
TIMEOUT = 5.0  # seconds for one request with all its tries
LARGEST = 64 << 20  # bytes of an answer
_CHUNK = 1 << 16  # bytes of it that are read at once
_KEY = re.compile(r"mp_[\w-]*", re.ASCII)
_AGAIN = (408, 429, 500, 502, 503, 504)  # statuses of an answer that may be another one in a moment

Answer = TypeVar("Answer")


class Refused(MailprefsError):
    """The service refused the request."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        super().__init__(f"{kind} ({status}): {detail}" if detail else f"{kind} ({status})")
        self.status = status
        self.kind = kind  # as in docs/errors.md, such as "unknown-scope"


@dataclass(frozen=True, slots=True)
class Link:
    """What one message needs: the link for its body, and its three headers."""

    address: str
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One change to hand in: ``effect`` is "stop", "lift", "consent" or "signup". A consent says when it was given."""

    address: str
    scope: str
    effect: str
    evidence: str  # where the reason is written down; kept for ever, so nothing about the person
    cause: str = "choice"
    at: datetime | None = None  # with its time zone; None is now


class _Again(Exception):
    """Another try may have more luck, ``after`` so many seconds."""

    def __init__(self, after: float | None = None) -> None:
        super().__init__()
        self.after = after


@dataclass(frozen=True)
class _Question(Generic[Answer]):
    path: str
    body: bytes
    read: Callable[[Any], Answer]
    again: bool = True  # to ask twice changes nothing

    def answered(self, status: int, after: str | None, body: bytes) -> Answer:
        """Return what an answer says. Raises Refused, _Again, or Unavailable for what is no answer of ours."""
        if status in _AGAIN:
            raise _Again(float(after) if after and after.isdecimal() else None)
        try:
            found = json.loads(body)
            if status == 200:
                return self.read(found)
            kind, detail = str(found["type"]).rpartition("/")[2], str(found["detail"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Unavailable(f"what answers there is not mailprefs ({status})") from None
        raise Refused(status, kind, detail)


def _pairs(asked: Sequence[tuple[str, str]]) -> _Question[list[Decision]]:
    pairs = [(address, topic) for address, topic in asked]
    body = {"pairs": [{"address": address, "topic": topic} for address, topic in pairs]}
    return _Question("/v1/decisions", json.dumps(body).encode(), lambda found: _of(pairs, map(_decision, found["decisions"]), _pair))


def _links(topic: str, addresses: Sequence[str]) -> _Question[list[Link]]:
    body = {"topic": topic, "addresses": addresses}
    return _Question(
        "/v1/links", json.dumps(body).encode(), lambda found: _of(addresses, (Link(**each) for each in found["links"]), _address)
    )


def _changes(wanted: Sequence[Wanted], before: int) -> _Question[dict[int, str]]:
    rows = [{name: value for name, value in asdict(each).items() if value is not None} for each in wanted]
    body = json.dumps({"changes": rows}, default=datetime.isoformat).encode()
    again = all(each.effect != "signup" for each in wanted)  # each of those is a mail; the others are known the second time
    return _Question("/v1/changes", body, lambda found: {before + r["row"]: r["reason"] for r in found["refused"]}, again)


def _of(asked: Sequence[object], found: Iterable[Answer], about: Callable[[Answer], object]) -> list[Answer]:
    """Return an answer for each question, in order. Raises ValueError where one is about somebody else, or about something else."""
    answers = list(found)
    if [about(each) for each in answers] != list(asked):
        raise ValueError
    return answers


def _pair(found: Decision) -> tuple[str, str]:
    return found.address, found.topic


def _address(found: Link) -> str:
    return found.address


def _decision(found: Mapping[str, Any]) -> Decision:
    reasons = tuple(Reason(r["scope"], r["cause"], _time(r["since"]), _time(r["until"])) for r in found["reasons"])
    return Decision(found["address"], found["topic"], found["allowed"] is True, reasons)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _batches(asked: Iterable[Answer], most: int = BATCH) -> Iterator[list[Answer]]:
    each = iter(asked)
    while batch := list(islice(each, most)):
        yield batch


def _is_base(text: str) -> bool:
    """True for a URL that questions can be put to."""
    try:
        found = urlsplit(text)
        plain = found.path.isascii() and text.isprintable() and " " not in text
        whole = found.scheme in ("http", "https") and (found.hostname or "").encode("idna") and found.port != 0
        return bool(plain and whole and found.username is None and not found.query + found.fragment)  # a name would be a second proof
    except ValueError:  # no such port or name, or half a bracket
        return False


@dataclass
class _Place:
    """Where the service is, and how to get in."""

    base: str
    key: str = field(repr=False)
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        if not _is_base(self.base):
            raise Misconfigured("the address of the service is a URL such as https://mailprefs.example.com")
        if not _KEY.fullmatch(self.key):  # with the end of its line, every refusal of the header would repeat it
            raise Misconfigured("an API key begins with mp_, and no space is in it; `mailprefs api-keys new links decide` makes one")
        self.base = self.base.rstrip("/")

    @property
    def headers(self) -> dict[str, str]:
        # what came packed would be larger than it looks
        return {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", "Accept-Encoding": "identity"}


class Client(_Place):
    """Asks a mailprefs service. Raises Refused for what it refuses, and Unavailable where it gives no answer in time.

    Keeps as many connections as there were ever calls at once, and follows no redirect: a key is told to nobody else.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._idle: list[HTTPConnection] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def decide(self, pairs: Iterable[tuple[str, str]]) -> list[Decision]:
        """Return a Decision for each (address, topic), in order. Of more than 10,000, each 10,000 are of one moment."""
        return [each for batch in _batches(pairs) for each in self._ask(_pairs(batch))]

    def links(self, topic: str, addresses: Iterable[str]) -> list[Link]:
        """Return the link and the headers for each address of a topic, in order."""
        return [each for batch in _batches(addresses) for each in self._ask(_links(topic, batch))]

    def change(self, wanted: Iterable[Wanted]) -> dict[int, str]:
        """Hand in changes, each taken or refused by itself, and return why those were that were not taken, by their place from 0.

        Stops, lifts and consents may be handed in again, and are where no answer comes; signups are not, since each is a mail.
        """
        refused: dict[int, str] = {}
        for n, batch in enumerate(_batches(wanted, CHANGES)):
            more: dict[int, str] = self._ask(_changes(batch, n * CHANGES))
            refused |= more
        return refused

    def close(self) -> None:
        """Let go of all connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    def _ask(self, question: _Question[Answer]) -> Answer:
        tries = Tries(self.timeout)
        while True:
            try:
                return question.answered(*self._sent(question, tries))
            except (OSError, HTTPException, _Again) as trouble:
                time.sleep(tries.pause(trouble, again=question.again))

    def _sent(self, question: _Question[Answer], tries: Tries) -> tuple[int, str | None, bytes]:
        connection = self._connection(tries)
        try:
            connection.response_class = cast("type[HTTPResponse]", partial(Timed, tries))
            connection.request("POST", urlsplit(self.base).path + question.path, question.body, self.headers)
            answer = connection.getresponse()
            body = self._whole(answer)
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:
            self._idle.append(connection)
        return answer.status, answer.headers.get("Retry-After"), body

    def _whole(self, answer: HTTPResponse) -> bytes:
        body = bytearray()
        with answer:
            while chunk := answer.read(_CHUNK):
                body += chunk
                if len(body) > LARGEST:
                    raise _Again
            if answer.length:  # of what was announced, so much never came
                raise _Again
        return bytes(body)

    def _connection(self, tries: Tries) -> HTTPConnection:
        """Return a connection that nobody uses, of those that the service has not closed meanwhile; else a new one."""
        while kept := self._kept():
            if kept.sock is not None and not _is_over(kept.sock):
                kept.sock.settimeout(tries.socket)
                return kept
            kept.close()
        return self._made(tries)

    def _made(self, tries: Tries) -> HTTPConnection:
        found = urlsplit(self.base)
        host, port = found.hostname or "", found.port
        if found.scheme == "http":
            made = HTTPConnection(host, port)
            made.sock = connected(host, made.port, tries)
            return made
        context = ssl.create_default_context()
        made = HTTPSConnection(host, port, context=context)
        with connected(host, made.port, tries) as plain:  # closed here where no proof follows; else it was taken over
            made.sock = context.wrap_socket(plain, server_hostname=host)
        return made

    def _kept(self) -> HTTPConnection | None:
        try:
            return self._idle.pop()
        except IndexError:  # another thread may have taken the last
            return None


def _is_over(kept: socket.socket) -> bool:
    """True where there is something to read though nothing was asked: it is the end."""
    with selectors.DefaultSelector() as selector:
        selector.register(kept, selectors.EVENT_READ)
        return bool(selector.select(0))


class AsyncClient(_Place):
    """The same for asyncio, on aiohttp: ``async with AsyncClient(base, key) as client``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._session: ClientSession | None = None

    async def __aenter__(self) -> AsyncClient:
        from aiohttp import ClientSession, DummyCookieJar

        self._session = ClientSession(cookie_jar=DummyCookieJar(), headers=self.headers, auto_decompress=False)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def decide(self, pairs: Iterable[tuple[str, str]]) -> list[Decision]:
        """As ``Client.decide``."""
        return [each for batch in _batches(pairs) for each in await self._ask(_pairs(batch))]

    async def links(self, topic: str, addresses: Iterable[str]) -> list[Link]:
        """As ``Client.links``."""
        return [each for batch in _batches(addresses) for each in await self._ask(_links(topic, batch))]

    async def change(self, wanted: Iterable[Wanted]) -> dict[int, str]:
        """As ``Client.change``."""
        refused: dict[int, str] = {}
        for n, batch in enumerate(_batches(wanted, CHANGES)):
            more: dict[int, str] = await self._ask(_changes(batch, n * CHANGES))
            refused |= more
        return refused

    async def _ask(self, question: _Question[Answer]) -> Answer:
        from aiohttp import ClientError

        tries = Tries(self.timeout)
        while True:
            try:
                async with asyncio.timeout(tries.left):
                    return question.answered(*await self._sent(question))
            except (OSError, ClientError, TimeoutError, _Again) as trouble:
                await asyncio.sleep(tries.pause(trouble, again=question.again))

    async def _sent(self, question: _Question[Answer]) -> tuple[int, str | None, bytes]:
        if self._session is None:
            raise Misconfigured("open it first: async with AsyncClient(…) as client")
        async with self._session.post(self.base + question.path, data=question.body, allow_redirects=False) as answer:
            body = bytearray()
            async for chunk in answer.content.iter_chunked(_CHUNK):
                body += chunk
                if len(body) > LARGEST:
                    raise _Again
            return answer.status, answer.headers.get("Retry-After"), bytes(body)


@dataclass
class Guard:
    """The last look before a message goes out: yes or no, and never an error.

    What cannot be known is no, since a message that was not sent can be sent later. Topics named in ``transactional`` are the
    exception: where the service gives no answer they are yes, since a receipt or a new password must not wait for it. Its own no
    counts for them too.
    """

    client: Client
    transactional: Collection[str] = ()  # names of topics, as they are asked for
    alarm: Callable[[str], None] = lambda _kind: None  # told what went wrong, such as "unavailable"; never an address

    def may_send(self, address: str, topic: str) -> bool:
        """Return whether an address may be sent a topic now."""
        try:
            (decision,) = self.client.decide([(address, topic)])
        except Exception as error:
            self.alarm(_kind(error))
            return topic in self.transactional
        return _told(decision, self.alarm)


@dataclass
class AsyncGuard:
    """The same for asyncio."""

    client: AsyncClient
    transactional: Collection[str] = ()
    alarm: Callable[[str], None] = lambda _kind: None

    async def may_send(self, address: str, topic: str) -> bool:
        """As ``Guard.may_send``."""
        try:
            (decision,) = await self.client.decide([(address, topic)])
        except Exception as error:
            self.alarm(_kind(error))
            return topic in self.transactional
        return _told(decision, self.alarm)


def _told(decision: Decision, alarm: Callable[[str], None]) -> bool:
    """Return the answer. A topic that the service does not know is a mistake of whoever asks, and would be no for ever."""
    if any(reason.cause == "unknown_topic" for reason in decision.reasons):
        alarm("unknown_topic")
    return decision.allowed


def _kind(error: Exception) -> str:
    return error.kind if isinstance(error, Refused) else "unavailable" if isinstance(error, Unavailable) else type(error).__name__
