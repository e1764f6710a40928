"""One account's way to its provider over HTTP, and what every call keeps to, whichever provider it is (docs/outbox.md §5)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from json import dumps
from types import SimpleNamespace
from typing import Any, NoReturn

from aiohttp import (
    ClientError,
    ClientHandlerType,
    ClientOSError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
    TraceConfig,
    TraceRequestRedirectParams,
)
from yarl import URL

from mailprefs.errors import Misconfigured, Unreadable
from mailprefs.providers import reading
from mailprefs.providers.base import Barred, Credential, Slow, Unclear

LIMIT = 65_536  # bytes of an answer that are read; a longer one is no documented answer to a write
PAGE = 8 << 20  # bytes of one page of a listing
USUAL_WAIT, LONGEST_WAIT, SHORTEST_WAIT = timedelta(minutes=1), timedelta(hours=1), timedelta(seconds=1)
LISTING = ClientTimeout(total=None, connect=5, sock_read=20)  # seconds; a listing may be long, but never silent
LONGEST_ADDRESS = 254  # octets, RFC 5321 §4.5.3.1.3
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_UNIX = 1_000_000_000  # a reset from here on is a moment in Unix time, below it a number of seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer that was neither "slow down" nor "who are you"."""

    status: int
    type: str  # lower case, without parameters
    body: bytes
    date: str = ""  # when it was made, by the provider's clock; "" if it does not say

    def json(self, status: int) -> Any:
        """Return the JSON of an answer that has the documented status and content type. Raises Unclear for any other."""
        if self.status != status:
            raise self.unclear
        if self.type != "application/json":
            raise Unclear("no_json")
        try:
            return reading.value(self.body)
        except Unreadable:
            raise Unclear("broken_json") from None

    @property
    def unclear(self) -> Unclear:
        return Unclear(f"http_{self.status}")


@dataclass(frozen=True, slots=True)
class Line:
    """The way to one account. Paths begin with a slash and are percent-encoded already."""

    http: ClientSession
    base: str
    headers: Mapping[str, str] = field(repr=False)

    async def call(self, method: str, path: str, *, json: object = None, most: int = LIMIT) -> Answer:
        """Return the answer to one request. Raises Slow, Barred, and Unclear for whatever leaves its outcome unknown."""
        return await self.send(method, path, b"" if json is None else dumps(json).encode(), most)

    async def send(self, method: str, path: str, body: bytes, most: int = LIMIT) -> Answer:
        """Return the answer to one request with a body of the line's own type, as ``call`` does."""
        once = None if method == "GET" else (_once,)
        async with self._ask(method, path, body, middlewares=once) as response:
            date = response.headers.get("Date", "")
            return Answer(response.status, response.content_type, await _whole(response, most), date if _moment(date) else "")

    async def chunks(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield the body of a listing while it arrives. Raises as ``call`` does."""
        async with self._ask("GET", path, timeout=LISTING) as response:
            if response.status != 200 or response.content_type != "application/json":
                raise Unclear(f"http_{response.status}" if response.status != 200 else "no_json")
            async for chunk in response.content.iter_any():
                yield chunk

    def dressed(self, method: str, url: URL, body: bytes) -> Mapping[str, str]:
        """Return the headers of one request: of its own, the line may have another type of JSON."""
        return {"Content-Type": "application/json", **self.headers} if body else self.headers

    def is_slow(self, response: ClientResponse) -> bool:
        """True for an answer that asks us to wait: of the line's own, the provider may have another word for it."""
        return response.status == 429

    @asynccontextmanager
    async def _ask(self, method: str, path: str, body: bytes = b"", **more: Any) -> AsyncIterator[ClientResponse]:
        url = URL(self.base + path, encoded=True)  # else yarl would spell the address in the path anew
        headers = self.dressed(method, url, body)
        try:
            async with self.http.request(method, url, headers=headers, data=body or None, allow_redirects=False, **more) as response:
                if self.is_slow(response):
                    raise Slow(wait_asked(response.headers))
                if response.status in (401, 403):
                    raise Barred
                yield response
        except (ClientError, OSError, ValueError):  # OSError: timeouts and resets; ValueError: aiohttp's for a broken answer
            raise Unclear("no_answer") from None


async def _once(request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
    """A write whose connection breaks is unclear. By itself aiohttp would send a PUT or DELETE again (its issue 10790).

    That second one would be answered, and the first could still land after a later write to the contrary: the case that the
    courier's settle delay is for, and it must know of it.
    """
    try:
        return await send(request)
    except (ClientOSError, ServerDisconnectedError):
        raise Unclear("no_answer") from None


async def _whole(response: ClientResponse, most: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most:
            raise Unclear("too_long")
    return bytes(body)


def wait_asked(headers: Mapping[str, str]) -> timedelta:
    """Return how long a 429 asks us to wait, between a second and an hour: Retry-After, else X-RateLimit-Reset, else a minute.

    Moments are measured from the answer's own Date, so that no clock of ours, right or wrong, is in it.
    """
    asked = headers.get("Retry-After", "").strip()
    reset = headers.get("X-RateLimit-Reset", "").strip()
    now = _moment(headers.get("Date", ""))
    if _SECONDS.fullmatch(asked):
        wait = timedelta(seconds=float(asked))
    elif now and (until := _moment(asked)):
        wait = until - now
    elif _SECONDS.fullmatch(reset) and float(reset) < _UNIX:
        wait = timedelta(seconds=float(reset))
    elif now and _SECONDS.fullmatch(reset):
        wait = timedelta(seconds=float(reset) - now.timestamp())
    else:
        wait = USUAL_WAIT
    return min(max(wait, SHORTEST_WAIT), LONGEST_WAIT)


def _moment(text: str) -> datetime | None:
    """Return the moment that an HTTP date names, if it names one with its zone."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else None


def tellable(address: str) -> bool:
    """True if an address can be told at all. An empty one, or dots alone, would make another path of a path that ends in it."""
    local, at, domain = address.rpartition("@")
    return bool(local and at and domain) and address.isprintable() and len(address.encode()) <= LONGEST_ADDRESS and " " not in address


def base_of(credential: Credential, hosts: Sequence[str]) -> str:
    """Return where the account's API is: the provider's first host, or the ``api_base`` that was set. Raises Misconfigured.

    An ``api_base`` is a loopback address, for a sandbox, or https on a host of the provider's own: no other can be reached.
    """
    if credential.api_base is None:
        return f"https://{hosts[0]}"
    try:
        url = URL(credential.api_base)
        sound = not (url.user or url.password or url.query_string or url.fragment)
        own = url.scheme == "https" and url.host in hosts and url.explicit_port is None and url.path in ("", "/")
        if sound and (own or (url.scheme in ("http", "https") and _loopback(url.host or ""))):
            return credential.api_base.rstrip("/")
    except ValueError:
        pass
    raise Misconfigured(
        f"Account '{credential.account}': api_base may name a loopback address (such as http://127.0.0.1:8025/…) "
        f"or one of https://{', https://'.join(hosts)}. Correct it, or leave it out."
    )


def is_loopback(base: str) -> bool:
    """True if a base is on this machine: a sandbox, or a contract check."""
    return _loopback(URL(base).host or "")


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def session(at_once: int) -> ClientSession:
    """Return one account's own way out: bounded in time and number, no cookies, no proxy from the environment, no redirects."""
    refusing = TraceConfig()
    refusing.on_request_redirect.append(_refuse)
    return ClientSession(
        connector=TCPConnector(limit=at_once, ttl_dns_cache=60),
        timeout=ClientTimeout(total=20, connect=5),
        cookie_jar=DummyCookieJar(),
        trust_env=False,
        trace_configs=[refusing],
    )


async def _refuse(_session: ClientSession, _context: SimpleNamespace, _redirect: TraceRequestRedirectParams) -> NoReturn:
    raise ClientError("redirected")
