"""What applications ask with: answers as the service gives them, patience with bounds, and a guard whose doubt is a no."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mailprefs import ledger
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.client import LARGEST, AsyncClient, AsyncGuard, Client, Guard, Refused, Wanted
from mailprefs.errors import MailprefsError, Misconfigured, Unavailable
from mailprefs.links import KeyRing
from mailprefs.words import Cause, Change, Decision, Door, Effect
from tests.flows.doors import Doors, opened

KEY = "mp_00000000_" + "x" * 43


@pytest.fixture
async def doors(database: str, shared_catalogue: Catalogue, ring: KeyRing) -> AsyncIterator[Doors]:
    async with opened(database, shared_catalogue, ring) as found:
        yield found


@pytest.fixture
async def left(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    stop = Change(addresses.read("joe@example.org"), 257, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)
    await ledger.record(conn, [stop], now=now)


async def test_both_clients_get_the_service_s_own_answers(doors: Doors, left: None, now: datetime) -> None:
    pairs = [("joe@example.org", "newsletter"), ("joe@example.org", "orders"), ("jane@example.org", "nothing")]
    plain = Client(doors.base, doors.api_key)
    async with AsyncClient(doors.base, doors.api_key) as client:
        for answers in (await asyncio.to_thread(plain.decide, pairs), await client.decide(pairs)):
            assert [(a.address, a.topic, a.allowed) for a in answers] == [
                ("joe@example.org", "newsletter", False),
                ("joe@example.org", "orders", True),
                ("jane@example.org", "nothing", False),
            ]
            assert (answers[0].reasons[0].scope, answers[0].reasons[0].cause, answers[0].reasons[0].since) == (
                "connective/marketing",
                "choice",
                now,
            )
            assert answers[2].reasons[0].cause == "unknown_topic"
        for (link,) in (
            await asyncio.to_thread(plain.links, "newsletter", ["joe@example.org"]),
            await client.links("newsletter", ["joe@example.org"]),
        ):
            assert link.url.startswith("https://")
            assert link.headers["List-Unsubscribe"].startswith(f"<{link.url}>")
    plain.close()


async def test_more_than_one_request_holds_is_asked_in_several(doors: Doors, left: None) -> None:
    pairs = [("joe@example.org" if n == 10_001 else f"p{n}@example.org", "newsletter") for n in range(10_003)]
    async with AsyncClient(doors.base, doors.api_key, timeout=30) as client:
        answers = await client.decide(pairs)
    assert [n for n, answer in enumerate(answers) if not answer.allowed] == [10_001]


async def test_what_is_refused_says_why_and_is_not_asked_again(doors: Doors) -> None:
    async with AsyncClient(doors.base, doors.api_key) as client:
        with pytest.raises(Refused) as refused:
            await client.links("orders", ["jane@example.org"])
        assert (refused.value.status, refused.value.kind) == (422, "not-mintable")
    async with AsyncClient(doors.base, KEY) as stranger:
        with pytest.raises(Refused) as refused:
            await stranger.decide([("jane@example.org", "newsletter")])
        assert refused.value.kind == "unauthorised"
        assert "jane" not in str(refused.value)


async def test_changes_are_handed_in_and_what_is_refused_says_why_by_its_place(
    doors: Doors, now: datetime, conn: asyncpg.Connection
) -> None:
    wanted = [Wanted(f"p{n}@example.org", "newsletter", "stop", "ticket 7", at=now) for n in range(1001)]
    wanted[1000] = Wanted("kim@example.org", "nothing", "stop", "ticket 7")
    wanted += [
        Wanted("kim@example.org", "partners", "consent", "form 7", at=now),
        Wanted("p1@example.org", "newsletter", "lift", "ticket 8"),
    ]
    with Client(doors.base, doors.api_key, timeout=30) as plain:
        refused = await asyncio.to_thread(plain.change, wanted)
    assert list(refused) == [1000, 1002]
    assert "scope" in refused[1000]
    assert "recipient" in refused[1002]
    async with AsyncClient(doors.base, doors.api_key, timeout=30) as client:
        assert await client.change(wanted[:2] + wanted[1001:1002]) == {}  # once more is the same fact
        answers = await client.decide(
            [("p1@example.org", "newsletter"), ("kim@example.org", "partners"), ("kim@example.org", "newsletter")]
        )
    assert [answer.allowed for answer in answers] == [False, True, True]
    assert await conn.fetchval("select count(*) from consent") == 1001


@pytest.mark.parametrize(("effect", "asked"), [("stop", 2), ("signup", 1)])
async def test_what_would_mail_somebody_twice_is_not_handed_in_twice(effect: str, asked: int) -> None:
    async with standing_in(b"", http(200, {"recorded": 1, "refused": []})) as (base, seen), AsyncClient(base, KEY) as client:
        if effect == "signup":
            with pytest.raises(Unavailable, match="may have been taken"):
                await client.change([Wanted("jane@example.org", "newsletter", effect, "form 7")])
        else:
            assert await client.change([Wanted("jane@example.org", "newsletter", effect, "form 7")]) == {}
        assert len(seen) == asked


async def test_a_connection_that_the_service_has_closed_meanwhile_costs_no_try() -> None:
    """What would mail somebody has only one; and as many as there were threads would take all the time that anything else has."""
    signup = [Wanted("jane@example.org", "newsletter", "signup", "form 7")]
    taken = http(200, {"recorded": 1, "refused": []}).replace(b"Connection: close\r\n", b"")  # and yet it hangs up
    async with standing_in(taken) as (base, seen):
        with Client(base, KEY) as client:
            for n in range(3):
                assert await asyncio.to_thread(client.change, signup) == {}
                assert len(seen) == n + 1
                await asyncio.sleep(0.02)  # until its end has come


SLOWLY = b"slowly:"  # the name of a header, or what a body begins with


@asynccontextmanager
async def standing_in(*answers: bytes | None, secret: ssl.SSLContext | None = None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A service that gives these answers, one a connection: None is silence, b"" hangs up. The last one is given again and again.

    What ends with ``SLOWLY`` goes on by a byte now and then.
    """
    seen: list[bytes] = []
    over, ended = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head)
        said = answers[min(len(seen), len(answers)) - 1]
        if said is None:
            await over.wait()
        else:
            writer.write(said)
        for _ in range(600 if said and said.endswith(SLOWLY) else 0):
            if over.is_set() or writer.is_closing():
                break
            writer.write(b" ")
            await asyncio.sleep(0.02)
        writer.close()
        ended.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=secret)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
        over.set()
        await ended.wait()


def http(status: int, body: object, *more: str) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} x", f"Content-Length: {len(text)}", "Content-Type: application/json", "Connection: close", *more]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + text


YES = http(200, {"decisions": [{"address": "jane@example.org", "topic": "t", "allowed": True, "reasons": []}]})
NONE = http(200, {"decisions": []})
ANOTHER = http(200, {"decisions": [{"address": "joe@example.org", "topic": "t", "allowed": True, "reasons": []}]})
ELSE = http(200, {"decisions": [{"address": "jane@example.org", "topic": "receipts", "allowed": True, "reasons": []}]})
SHY = http(503, {"type": "/docs/errors/unavailable", "detail": ""}, "Retry-After: 0")
AWAY = http(302, b"", "Location: http://127.0.0.1:1/elsewhere")


async def asking(base: str, kind: type[Client] | type[AsyncClient], seconds: float = 0.4) -> list[Decision]:
    pairs = [("jane@example.org", "t")]
    if kind is Client:
        with Client(base, KEY, seconds) as plain:
            return await asyncio.to_thread(plain.decide, pairs)
    async with AsyncClient(base, KEY, seconds) as client:
        return await client.decide(pairs)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("before", [(SHY,), (b"",), (YES[:-5],), (SHY, b"", SHY)])
async def test_what_passes_is_asked_again(kind: type[Client], before: tuple[bytes, ...]) -> None:
    async with standing_in(*before, YES) as (base, seen):
        assert (await asking(base, kind, 5))[0].allowed
        assert len(seen) == len(before) + 1
        assert all(f"Bearer {KEY}".encode() in head for head in seen)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_an_answer_without_an_end_is_not_taken_whole(kind: type[Client]) -> None:
    padded = YES.partition(b"\r\n\r\n")[2] + b" " * LARGEST
    async with standing_in(http(200, padded), YES) as (base, seen):
        assert (await asking(base, kind, 60))[0].allowed
        assert len(seen) == 2, "the first, though it says the same, was given up"
        assert all(b"Accept-Encoding: identity" in head for head in seen)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "answer", [SHY, b"", None, AWAY, NONE, ANOTHER, ELSE, http(200, b"<html>"), http(200, []), http(404, b"nginx"),
               b"HTTP/1.1 200 x\r\n" + SLOWLY, b"HTTP/1.1 200 x\r\nContent-Length: 9999\r\n\r\n" + SLOWLY,
               b"HTTP/1.1 200 x\r\nConnection: close\r\n\r\n" + SLOWLY],
)  # fmt: skip
async def test_no_answer_is_unavailable_in_time_and_a_guard_s_no(kind: type[Client], answer: bytes | None) -> None:
    began = time.monotonic()
    async with standing_in(answer) as (base, seen):
        with pytest.raises(Unavailable):
            await asking(base, kind)
        assert seen
    assert time.monotonic() - began < 10  # of which it was given less than half a second


@pytest.mark.parametrize(("kind", "why"), [(Client, "ConnectionRefusedError"), (AsyncClient, "ClientConnectorError")])
async def test_why_there_is_no_answer_is_said(kind: type[Client] | type[AsyncClient], why: str) -> None:
    with pytest.raises(Unavailable, match=f"no answer in time \\({why}\\)"):
        await asking("http://127.0.0.1:1", kind, 0.2)


async def test_a_dead_address_of_the_service_leaves_its_others_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual function gives the first one all of it."""
    async with standing_in(YES) as (base, _):
        with socket.create_server(("127.0.0.1", 0), backlog=0) as dead, ExitStack() as stack:
            for _ in range(3):  # more than it lets wait: whoever comes next hears nothing
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(dead.getsockname())
            places = [dead.getsockname(), ("127.0.0.1", int(base.rpartition(":")[2]))]
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            began = time.monotonic()
            assert (await asking(base, Client, 4))[0].allowed
            assert time.monotonic() - began > 1.9, "the first is dead"


async def test_a_secret_connection_is_with_whom_it_was_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secret.load_cert_chain(certified(tmp_path, "localhost"))
    async with standing_in(YES, secret=secret) as (base, seen):
        named = base.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(Unavailable):
            await asking(named, Client)  # nobody known stands for it
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "localhost.pem"))
        with pytest.raises(Unavailable):
            await asking(named.replace("localhost", "127.0.0.1"), Client)  # it stands for another name
        assert not seen
        assert (await asking(named, Client, 10))[0].allowed


def certified(folder: Path, host: str) -> Path:
    """Return a file with a key and its own certificate for a host."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    begun = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    begun = begun.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2120, 1, 1, tzinfo=UTC))
    begun = begun.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    made = begun.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    spelt = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (path := folder / f"{host}.pem").write_bytes(made.public_bytes(Encoding.PEM) + spelt)
    return path


async def test_a_guard_is_no_in_doubt_but_for_what_must_not_wait(doors: Doors, left: None) -> None:
    said: list[str] = []
    good, deaf = Client(doors.base, doors.api_key), Client("http://127.0.0.1:1", KEY, 0.2)
    sure, unsure = Guard(good, {"orders"}, said.append), Guard(deaf, {"orders"}, said.append)

    def all_of_it() -> list[bool]:
        asked = [("jane@example.org", "newsletter"), ("joe@example.org", "newsletter"), ("joe@example.org", "orders")]
        asked += [("jane@example.org", "nothing"), ("no address", "newsletter")]
        return [guard.may_send(*pair) for guard in (sure, unsure) for pair in asked]

    assert await asyncio.to_thread(all_of_it) == [True, False, True, False, False, False, False, True, False, False]
    good.close()
    assert set(said) == {"unavailable", "unknown_topic"}
    async with AsyncClient(doors.base, KEY) as stranger:
        guard = AsyncGuard(stranger, {"orders"}, said.append)
        assert [await guard.may_send("jane@example.org", topic) for topic in ("newsletter", "orders")] == [False, True]
    assert said[-1] == "unauthorised"


async def test_a_bounce_holds_back_what_must_not_wait_too(
    doors: Doors, conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    bounce = Change(addresses.read("kim@example.org"), 0, Cause.BOUNCE, Effect.STOP, Door.PROVIDER, "1", now, by="sendgrid-main")
    await ledger.record(conn, [bounce], now=now)
    async with AsyncClient(doors.base, doors.api_key) as client:
        assert not await AsyncGuard(client, {"orders"}).may_send("kim@example.org", "orders")


@pytest.mark.parametrize(
    ("base", "key"),
    [
        ("example.com", KEY),
        ("ftp://example.com", KEY),
        ("https://example.com:99999", KEY),
        ("https://[::1", KEY),
        ("https://example..com", KEY),
        ("https://example.com/a b", KEY),
        ("https://secret@example.com", KEY),
        ("https://example.com", "secret"),
        ("https://example.com", "mp_secret\n"),
    ],
)
def test_what_cannot_work_is_said_at_once(base: str, key: str) -> None:
    with pytest.raises(Misconfigured) as wrong:
        Client(base, key)
    assert isinstance(wrong.value, MailprefsError)
    assert "secret" not in str(wrong.value)
    for base in ("https://example.com", "http://[::1]:8080/mailprefs/", "https://bücher.example"):
        assert KEY not in repr(Client(base, KEY))
