"""A mail server of the tests' own on loopback, which answers as it is told and keeps what it took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope


@dataclass
class Relay:
    """What it says to a recipient and to a letter, and the letters that it took."""

    port: int = 0
    to_recipient: str = "250 OK"
    to_letter: str = "250 OK"
    envelopes: list[Envelope] = field(default_factory=list)
    asked: int = 0  # to take a letter

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def letters(self) -> list[EmailMessage]:
        return [message_from_bytes(each.original_content or b"", policy=policy.default) for each in self.envelopes]

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: list[str]) -> str:  # noqa: N802
        if self.to_recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.to_recipient

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802
        self.asked += 1
        if self.to_letter.startswith("250"):
            self.envelopes.append(envelope)
        return self.to_letter


@asynccontextmanager
async def running() -> AsyncIterator[Relay]:
    """Lend a server on a free port."""
    relay = Relay()
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(relay, enable_SMTPUTF8=True), "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        await server.wait_closed()
