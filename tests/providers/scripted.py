"""A provider that answers by a script: what it may say, and the sandbox never does."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from aiohttp import ClientSession, ClientTimeout, web
from aiohttp.test_utils import TestServer

from mailprefs.providers.base import Credential, Listed, Provider, Settlement, Telling


@dataclass(frozen=True)
class Reply:
    """One answer."""

    body: bytes = b"{}"
    status: int = 200
    type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        return web.Response(body=self.body, status=self.status, content_type=self.type, headers=self.headers)


def reply(value: object, status: int = 200, type: str = "application/json", **headers: str) -> Reply:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(json.dumps(value).encode(), status, type, named)


GONE = reply({}, 404)
Script = Mapping[str, Reply | Sequence[Reply]]  # a pattern of method and path → its answer, or its answers in turn; the last one stays


@dataclass
class Scripted:
    """An account whose provider keeps to the script, and what it was asked."""

    http: ClientSession
    provider: Provider
    credential: Credential
    asked: list[str] = field(default_factory=list)

    async def tell(self, group: str, *addresses: str, stop: bool = True) -> list[Settlement]:
        return await self.provider.tell(self.http, self.credential, [Telling(address, group, stop) for address in addresses])

    async def pulled(self, group: str) -> list[Listed]:
        return [listed async for listed in self.provider.pull(self.http, self.credential, group)]

    @property
    def writes(self) -> list[str]:
        return [each for each in self.asked if not each.startswith("GET ")]


@asynccontextmanager
async def scripted(provider: Provider, credential: Credential, script: Script) -> AsyncIterator[Scripted]:
    """Serve the script. What it does not foresee is answered 418, which no provider documents."""
    turns = {re.compile(known): iter(answers) for known, answers in script.items() if not isinstance(answers, Reply)}
    last = {re.compile(known): answers if isinstance(answers, Reply) else answers[-1] for known, answers in script.items()}

    async def answer(request: web.Request) -> web.Response:
        asked = f"{request.method} {request.raw_path}"
        one.asked.append(asked)
        await request.read()
        known = next((each for each in last if each.fullmatch(asked)), None)
        if known is None:
            return web.Response(status=418)
        return next(turns.get(known, iter(())), last[known]).response()

    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server, ClientSession(timeout=ClientTimeout(total=5)) as http:
        one = Scripted(http, provider, replace(credential, api_base=str(server.make_url("")).rstrip("/")))
        yield one
