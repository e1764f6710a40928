"""LMTP, as a mail server speaks it: an answer for each recipient, after the commit, and nothing is lost in between."""

from __future__ import annotations

import asyncio
import logging
import smtplib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import asyncpg
import pytest

from mailprefs import db, lmtp, worker
from mailprefs.catalogue import Catalogue
from mailprefs.errors import Misconfigured
from mailprefs.links import KeyRing
from mailprefs.mailroom import Mailroom
from mailprefs.settings import Settings

from .postbox import ENTRIES, NEWSLETTER, Postbox, aside, rows

OURS = "bounces@go.example.com"
BOUNCE = next(entry for entry in ENTRIES if entry["file"] == "bounce-postfix-no-such-mailbox.eml")


@dataclass
class MailServer:
    """The other end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def hear(self) -> str:
        """Return the next answer, all its lines."""
        lines = []
        while True:
            line = (await asyncio.wait_for(self.reader.readline(), 10)).decode()
            lines.append(line.rstrip("\r\n"))
            if line[3:4] != "-":
                return "\n".join(lines)

    async def say(self, *commands: str) -> list[str]:
        """Send commands in one go, as a pipelining client does, and return an answer for each."""
        self.writer.write("".join(f"{command}\r\n" for command in commands).encode())
        return [await self.hear() for _ in commands]

    async def send(self, raw: bytes, answers: int) -> list[str]:
        self.writer.write(raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n").replace(b"\r\n.", b"\r\n..") + b"\r\n.\r\n")
        return [await self.hear() for _ in range(answers)]

    async def deliver(self, raw: bytes, recipients: Sequence[str], sender: str = "") -> list[str]:
        """Return what became of a letter, for each recipient that was taken."""
        taken = await self.say(f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{each}>" for each in recipients), "DATA")
        assert taken[-1].startswith("354"), taken
        return await self.send(raw, sum(answer.startswith("250") for answer in taken[1:-1]))


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[MailServer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    server = MailServer(reader, writer)
    assert (await server.hear()).startswith("220 ")
    assert "SIZE" in (await server.say("LHLO mx.example.com"))[0]
    yield server
    writer.close()
    await writer.wait_closed()


def clock() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[db.Pool]:
    pool = await db.pool(database, size=3, command_timeout=5, purpose="tests")
    yield pool
    pool.terminate()


@pytest.fixture
async def port(room: Mailroom, pool: db.Pool) -> AsyncIterator[int]:
    async with lmtp.listening(room, pool, 0, clock) as port:
        yield port


async def test_an_answer_is_given_for_each_recipient_after_its_commit(port: int, conn: asyncpg.Connection, box: Postbox) -> None:
    letter = box.letter(BOUNCE)
    async with connected(port) as server:
        assert await server.deliver(letter.raw, [OURS, "nobody@go.example.com", f"u+{box.token}@go.example.com"]) == [lmtp.KEPT] * 2
        assert await rows(conn) == box.expected(BOUNCE)
        assert (await server.say("QUIT"))[0].startswith("221")


async def test_each_recipient_is_answered_as_soon_as_it_is_done(port: int, conn: asyncpg.Connection, box: Postbox) -> None:
    """Also where the next one has to wait: what was answered is not sent again."""
    await conn.execute("begin; lock table event in exclusive mode")  # where what a person should read is kept aside
    async with connected(port) as server:
        to = [f"u+{box.token}@go.example.com", "u@go.example.com"]
        await server.say("MAIL FROM:<jane@example.org>", *(f"RCPT TO:<{each}>" for each in to), "DATA")
        assert await server.send(b"Subject: unsubscribe\n\n", 1) == [lmtp.KEPT]
        await conn.execute("commit")
        assert await server.hear() == lmtp.KEPT
    assert await aside(conn) == ["sender_not_proven"]


async def test_a_client_is_not_hung_up_on_while_its_letter_is_recorded(
    room: Mailroom, pool: db.Pool, conn: asyncpg.Connection, box: Postbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The silence is ours. The control: a client that says nothing of its own is hung up on."""
    monkeypatch.setattr(lmtp, "PATIENCE", 0.5)
    async with lmtp.listening(room, pool, 0, clock) as port, connected(port) as server:
        await conn.execute("begin; lock table consent in exclusive mode")
        sending = asyncio.create_task(server.deliver(box.letter(BOUNCE).raw, [OURS] * 3))
        await asyncio.sleep(1)
        await conn.execute("commit")
        assert await sending == [lmtp.KEPT] * 3
        assert await asyncio.wait_for(server.reader.read(), 10) == b""


async def test_another_client_is_understood(port: int, conn: asyncpg.Connection, box: Postbox) -> None:
    def send() -> dict[str, tuple[int, bytes]]:
        with smtplib.LMTP("127.0.0.1", port, local_hostname="mx.example.com") as client:
            return client.sendmail("jane@example.org", ["nobody@example.com", f"u+{box.token}@go.example.com"], b"Subject: x\r\n\r\n")

    assert {whom: code for whom, (code, _) in (await asyncio.to_thread(send)).items()} == {"nobody@example.com": 550}
    assert {row[1:] for row in await rows(conn)} == {(NEWSLETTER, "choice", "stop")}


async def test_an_unsubscribe_is_on_disk_when_it_is_answered(port: int, conn: asyncpg.Connection, box: Postbox) -> None:
    async with connected(port) as server:
        raw = b"From: jane@example.org\nTo: u@go.example.com\n\n.\n..a line that begins with a dot\n"
        assert await server.deliver(raw, [f"u+{box.token}@go.example.com"], "jane@example.org") == [lmtp.KEPT]
        assert {row[1:] for row in await rows(conn)} == {(NEWSLETTER, "choice", "stop")}


async def test_only_our_own_addresses_are_taken(port: int) -> None:
    ours = ["u@go.example.com", "U+x@GO.example.com", "u+bounces@go.example.com", OURS, "bounces+tag@go.example.com"]
    others = ["u@example.com", "hello@go.example.com", "uu@go.example.com", "u@go.example.com.example.net", "postmaster"]
    async with connected(port) as server:
        answers = await server.say("MAIL FROM:<>", *(f"RCPT TO:<{each}>" for each in ours + others))
    assert [answer[:3] for answer in answers[1:]] == ["250"] * len(ours) + ["550"] * len(others)


async def test_a_letter_comes_back_while_there_is_no_database_and_is_recorded_then(
    port: int, room: Mailroom, pool: db.Pool, database: str, conn: asyncpg.Connection, box: Postbox
) -> None:
    letter = box.letter(BOUNCE)
    pool.terminate()
    async with connected(port) as server:
        assert await server.deliver(letter.raw, [OURS, OURS]) == [lmtp.LATER] * 2
        assert await rows(conn) == set()
    again = await db.pool(database, size=1, command_timeout=5, purpose="tests")
    async with lmtp.listening(room, again, 0, clock) as second, connected(second) as server:
        assert await server.deliver(letter.raw, [OURS]) == [lmtp.KEPT]
        assert await server.deliver(letter.raw, [OURS]) == [lmtp.KEPT]  # and twice is once
    again.terminate()
    assert await rows(conn) == box.expected(BOUNCE)
    assert await conn.fetchval("select count(*) from consent") == 1


async def test_what_the_ledger_refuses_is_kept_aside_and_not_sent_back_for_ever(port: int, conn: asyncpg.Connection, box: Postbox) -> None:
    await conn.execute("delete from mapping; delete from scope where scope = 272")
    async with connected(port) as server:
        assert await server.deliver(b"Subject: unsubscribe\n\n", [f"u+{box.token}@go.example.com"]) == [lmtp.KEPT]
    assert await aside(conn) == ["not_recorded"]
    assert await rows(conn) == set()


async def test_a_letter_that_is_too_large_is_refused_for_each_recipient(port: int, conn: asyncpg.Connection) -> None:
    line = b"x" * 1_000_000 + b"\n"  # no line is too long: only all of them are too many
    async with connected(port) as server:
        assert [answer[:3] for answer in await server.deliver(line * 17, [OURS, OURS])] == ["552", "552"]
        assert await server.deliver(line * 2, [OURS]) == [lmtp.KEPT]
    assert await conn.fetchval("select max(length(raw)) from event") <= 1 << 20


async def test_a_connection_that_breaks_off_leaves_nothing_behind(port: int, conn: asyncpg.Connection, box: Postbox) -> None:
    raw = box.letter(BOUNCE).raw
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<{OURS}>\r\nDATA\r\n".encode() + raw)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await reader.read()
    assert await rows(conn) == set()
    async with connected(port) as server:
        assert await server.deliver(raw, [OURS]) == [lmtp.KEPT]


async def test_hostile_commands_are_answered_and_the_next_letter_is_taken(port: int, box: Postbox, conn: asyncpg.Connection) -> None:
    random = Random(5)
    odd = [b"MAIL FROM:", b"MAIL FROM:<\xff@x>", b"RCPT TO:<>", b"RCPT TO:<\"@go.example.com>", b"DATA", b"EHLO x", b"HELO x", b"LHLO",
           b"AUTH PLAIN AAAA", b"VRFY \xed\xa0\x80", b"HELP \xff", b"BDAT 5 LAST", b"MAIL FROM:<> SIZE=9999999999", b"NOOP \0"]  # fmt: skip
    odd += [bytes(random.randrange(1, 256) for _ in range(40)).translate(None, b"\r\n") for _ in range(200)]
    for line in odd:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"LHLO x\r\n" + line + b"\r\nQUIT\r\n")
        said = await asyncio.wait_for(reader.read(), 10)
        assert b"\r\n221 " in said, line
        assert b"Traceback" not in said
        assert b"Error(" not in said
        writer.close()
        await writer.wait_closed()
    async with connected(port) as server:
        assert await server.deliver(box.letter(BOUNCE).raw, [OURS]) == [lmtp.KEPT]
    assert await rows(conn) == box.expected(BOUNCE)


async def test_nothing_that_is_said_is_logged(
    port: int, box: Postbox, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async with connected(port) as server:
        for entry in ENTRIES[:20]:
            letter = box.letter(entry)
            await server.deliver(letter.raw, [letter.recipient], "jane@example.org")
        await server.say("MAIL FROM:<jane@example.org>", "RCPT TO:<canary@example.net>")
    out, err = capfd.readouterr()
    whole = out + err + caplog.text
    assert not [word for word in ("jane", "canary", "example.org", box.token[:20]) if word in whole]
    logging.getLogger("tests").warning("canary")
    assert "canary" in caplog.text  # the control


async def test_a_letter_in_hand_is_answered_before_the_end(room: Mailroom, pool: db.Pool, conn: asyncpg.Connection, box: Postbox) -> None:
    await conn.execute("begin; lock table consent in exclusive mode")  # holds the letter's transaction for a while
    listening = lmtp.listening(room, pool, 0, clock)
    port = await listening.__aenter__()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    server = MailServer(reader, writer)
    await server.hear()
    await server.say("LHLO x")
    letter = asyncio.create_task(server.deliver(box.letter(BOUNCE).raw, [OURS]))
    await asyncio.sleep(0.3)
    end = asyncio.create_task(listening.__aexit__(None, None, None))
    await asyncio.sleep(0.2)
    assert not letter.done()
    assert not end.done()
    await conn.execute("commit")
    assert await letter == [lmtp.KEPT]
    await asyncio.wait_for(end, 5)
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_port_that_is_taken_is_said_at_start(room: Mailroom, pool: db.Pool, port: int) -> None:
    with pytest.raises(Misconfigured, match="LMTP_PORT"):
        await lmtp.listening(room, pool, port, clock).__aenter__()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_the_worker_takes_letters_on_loopback_where_a_port_is_named(
    pool: db.Pool, conn: asyncpg.Connection, shared_catalogue: Catalogue, ring: KeyRing, box: Postbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("LMTP_PORT", str(port))
    unheard = shared_catalogue.model_copy(update={"account": ()})
    stop = asyncio.Event()
    working = asyncio.create_task(worker.work(pool, unheard, ring, Settings(), stop=stop))
    for _ in range(200):
        try:
            async with connected(port) as server:
                assert await server.deliver(box.letter(BOUNCE).raw, [OURS]) == [lmtp.KEPT]
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
    assert await rows(conn) == box.expected(BOUNCE)
    assert _listening(port) == {"0100007F"}
    stop.set()
    await asyncio.wait_for(working, 10)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


def _listening(port: int) -> set[str]:
    """The addresses, in the kernel's hexadecimal, on which somebody listens at a port."""
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        lines = table.read_text().splitlines() if table.exists() else []
        found |= {row[1].split(":")[0] for row in map(str.split, lines) if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
    return found
