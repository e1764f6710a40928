"""The hosts where Amazon SNS keeps its certificates, as a real server on loopback, and a way out that can reach nothing else.

Every name leads to the server; every attempt to look one up, to connect and to ask is counted.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from aiohttp import ClientSession, ClientTimeout, TCPConnector, TraceConfig, TraceRequestStartParams, web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from .sns_sender import certificate, key

Address = tuple[int, int, int, str, tuple[object, ...]]


@dataclass
class Amazon(AbstractResolver):
    """One server for all names. ``answer`` makes what it says, ``pem`` by default."""

    pem: bytes
    answer: Callable[[], web.Response] | None = None
    asked: list[str] = field(default_factory=list)  # every address that was asked for, whether it could be reached or not
    served: list[str] = field(default_factory=list)  # host and path of every request that came
    port: int = 0

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        self.asked.append(f"look-up of {host}:{port}")
        flags = socket.AI_NUMERICHOST
        return [ResolveResult(hostname=host, host="127.0.0.1", port=self.port, family=socket.AF_INET, proto=0, flags=flags)]

    async def close(self) -> None:
        """Nothing is held."""

    def connect(self, to: Address) -> socket.socket:
        """Return a socket for the server alone: whatever else the code under test would reach, the test does not."""
        self.asked.append(f"connection to {to[4]}")
        if to[4][:2] != ("127.0.0.1", self.port):
            raise OSError("that is not on loopback")
        return socket.socket(to[0], to[1], to[2])

    async def started(self, _session: ClientSession, _context: SimpleNamespace, request: TraceRequestStartParams) -> None:
        self.asked.append(f"request for {request.url}")

    async def hear(self, request: web.Request) -> web.Response:
        self.served.append(f"{request.host}{request.rel_url}")
        return self.answer() if self.answer else web.Response(body=self.pem)


@asynccontextmanager
async def amazon(folder: Path, *hosts: str, pem: bytes | None = None) -> AsyncIterator[tuple[Amazon, ClientSession]]:
    """Serve these hosts over TLS on loopback, and lend the session that reaches them."""
    server = Amazon(pem if pem is not None else certificate(key()))
    tls = key("tls")
    (folder / "host.pem").write_bytes(certificate(tls, hosts[0], *hosts))
    (folder / "host.key").write_bytes(tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    inside.load_cert_chain(folder / "host.pem", folder / "host.key")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.hear)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=inside)
    await site.start()
    server.port = runner.addresses[0][1]
    tracing = TraceConfig()
    tracing.on_request_start.append(server.started)
    outside = ssl.create_default_context(cafile=folder / "host.pem")
    connector = TCPConnector(resolver=server, use_dns_cache=False, ssl=outside, socket_factory=server.connect, force_close=True)
    async with ClientSession(connector=connector, timeout=ClientTimeout(total=10), trace_configs=[tracing]) as http:
        yield server, http
    await runner.cleanup()
