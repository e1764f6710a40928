"""Takes letters from the operator's own mail server, over LMTP (RFC 2033), on loopback: an answer for each recipient, after its commit.

What is said goes to nobody but that server. It is told 250 when the letter is on disk, 4xx when it should come back, and 5xx for an
address that is not ours, or for more octets than a letter may have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import AnyStr

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, Envelope, Session

from mailprefs import db, telemetry
from mailprefs.errors import Misconfigured, Unavailable
from mailprefs.letters import Letter
from mailprefs.mailroom import Mailroom, Read

HOST = "127.0.0.1"  # whoever can reach it can have mail stopped
LARGEST = 16 * 1024 * 1024  # octets of a letter
AT_ONCE = 2  # letters that are read and recorded: the couriers share the pool
RECIPIENTS = 100  # of one letter
PATIENCE = 60  # seconds that a client may keep silent

KEPT = "250 2.0.0 kept"
LATER = "451 4.3.0 not kept: try again"
_TOO_LARGE = "552 Error: Too much mail data"  # aiosmtpd's words

for _chatty in ("mail.log", "mail.error", "mail.debug"):  # they quote what is said, addresses and all
    logging.getLogger(_chatty).setLevel(logging.CRITICAL + 1)


class _Line(LMTP):
    """One connection."""

    line_length_limit = LARGEST  # a long line is no reason to lose a letter

    def __init__(self, clerk: _Clerk, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            clerk, data_size_limit=LARGEST, enable_SMTPUTF8=True, hostname="mailprefs", ident="LMTP", timeout=PATIENCE, loop=loop
        )
        self._open = clerk.open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._open.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._open.difference_update({self.transport})
        super().connection_lost(error)

    def hush(self) -> None:
        """Wait for no word of the client until something is said: while a letter is recorded the silence is ours."""
        if self._timeout_handle:
            self._timeout_handle.cancel()

    async def push(self, status: AnyStr) -> None:
        """Say something, from when on the client may keep silent for a while.

        What became of a letter that was too large is said once for each recipient (RFC 2033 §4.2).
        """
        times = len(self.envelope.rcpt_tos) if self.envelope and str(status) == _TOO_LARGE else 1
        self._reset_timeout()
        for _ in range(times):
            await super().push(status)


@dataclass(frozen=True)
class _Clerk:
    """What the server asks about each letter."""

    room: Mailroom
    pool: db.Pool
    clock: Callable[[], datetime]
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    open: set[asyncio.BaseTransport | None] = field(default_factory=set)

    async def handle_EHLO(self, _server: SMTP, session: Session, _envelope: Envelope, host: str, answers: list[str]) -> list[str]:  # noqa: N802
        session.host_name = host
        return [*answers[:-1], "250-PIPELINING", answers[-1]]  # RFC 2033 §5 wants it

    async def handle_RCPT(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Sequence[str]) -> str:  # noqa: N802
        if not self.room.takes(address):
            return "550 5.1.1 no such address here"
        if len(envelope.rcpt_tos) >= RECIPIENTS:
            return "452 4.5.3 too many recipients"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, line: _Line, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Answer for each recipient, in order and as soon as it is done (RFC 2033 §4.2)."""
        line.hush()
        letter = Letter(envelope.original_content or b"", sender=(envelope.mail_from or "").strip("<>"))
        async with self.places:
            read = await asyncio.to_thread(self.room.opened, letter, now=self.clock())
        *others, last = envelope.rcpt_tos
        for recipient in others:
            await line.push(await self._kept(read, recipient))
            line.hush()
        return await self._kept(read, last)

    async def handle_exception(self, error: Exception) -> str:
        telemetry.log.error("lmtp_failed", exc_info=error)
        return LATER

    async def _kept(self, read: Read, recipient: str) -> str:
        try:
            async with self.places:
                said = await asyncio.to_thread(self.room.said, read, recipient)
                async with db.acquired(self.pool) as connection:
                    await self.room.record(connection, said, now=read.now)
        except Unavailable:
            telemetry.count("letters_not_kept")
            return LATER
        except Exception as error:
            telemetry.alarm("letter_not_kept", account="mail")
            telemetry.log.error("letter_not_kept", exc_info=error)
            return LATER
        return KEPT


@asynccontextmanager
async def listening(room: Mailroom, pool: db.Pool, port: int, clock: Callable[[], datetime]) -> AsyncIterator[int]:
    """Take letters, and lend the port that is listened on. At the end, those on their way are answered first. Raises Misconfigured."""
    clerk = _Clerk(room, pool, clock)
    loop = asyncio.get_running_loop()
    try:
        listener = await loop.create_server(lambda: _Line(clerk, loop), HOST, port)
    except OSError as error:
        raise Misconfigured(f"port {port} on {HOST} cannot be had ({error.strerror}). LMTP_PORT names another.") from None
    try:
        yield int(listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        for _ in range(AT_ONCE):  # until nobody has a letter in hand any more
            await clerk.places.acquire()
        for transport in [each for each in clerk.open if each]:
            transport.close()  # what has been said is still sent
