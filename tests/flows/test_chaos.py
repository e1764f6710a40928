"""Workers killed with -9 in the middle of everything, a third of the provider's replies faulty: when it is quiet, its copy equals ours.

The same run without settling goes wrong, which shows that the faults are the ones that matter. Run as a program, this file is the
workers' parent: it has imported everything, so that they start at once.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientSession

from mailprefs import catalogue, db, ledger, outbox, telemetry, worker
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.courier import Timing
from mailprefs.links import KeyRing
from mailprefs.providers.sendgrid import SendGrid
from mailprefs.sandbox.sendgrid import key_pair
from mailprefs.settings import Settings
from mailprefs.words import Address, Cause, Change, Door, Effect

CATALOGUE = Path(__file__).parent.parent / "catalogue.toml"
GROUPS = {272: "12345", 273: "12346"}
PEOPLE, CHURN, WORKERS = 150, 10.0, 2  # CHURN in seconds
LEASE, LATEST, SETTLE = 1.0, 1.2, 2.0  # seconds; what is late lands before it is settled
QUIET_WITHIN = 20.0  # seconds after the last change
FAULTS = Counter(  # name → how often; a 429 shuts the gate for a second, so there are few
    {
        "429-seconds": 1,
        "429-date": 1,
        "500": 4,
        "html": 3,
        "slow": 3,
        "applied-then-dropped": 4,
        "applied-late": 10,
        "half-closed": 3,
        "truncated": 3,
        "duplicated": 4,
        "per-item": 3,
    }
)


@dataclass(frozen=True)
class Brisk(SendGrid):
    """SendGrid, asked more often and in smaller batches than the real one would like."""

    batch: ClassVar[int] = 12
    pace: ClassVar[float] = 60.0


async def be_a_worker(url: str, api_base: str, settle: float, ring: KeyRing, name: str) -> None:
    """Work until killed, or stopped; the database knows its connections by the name."""
    telemetry.start(json=True)
    stop = asyncio.Event()
    worker.heed_signals(stop)
    pool = await db.pool(url, size=3, command_timeout=10, purpose=name)
    secrets = {"SENDGRID_WEBHOOK_KEY": key_pair()[1], "SENDGRID_API_KEY": "SG.sandbox-key-0123456789"}
    timing = Timing(lease=timedelta(seconds=LEASE), quiet=timedelta(), poll=timedelta(seconds=0.02))
    await worker.work(
        pool,
        one_account(api_base, settle),
        ring,
        Settings().lending(secrets),
        stop=stop,
        timing=timing,
        providers={"sendgrid": Brisk()},
    )
    await pool.close()


def be_their_parent(url: str, api_base: str, settle: str) -> None:
    """For each line, a name, start a worker of that name and say its process id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    ring = KeyRing.new(date(2026, 11, 22))  # one for all: the database refuses a worker that brings another
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            asyncio.run(be_a_worker(url, api_base, float(settle), ring, line.strip()))
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


def one_account(api_base: str, settle: float) -> Catalogue:
    whole = catalogue.load(CATALOGUE)
    account = whole.account[0].model_copy(update={"api_base": api_base, "settle": timedelta(seconds=settle)})
    return whole.model_copy(update={"account": (account,)})


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program, which ends with all its children: one that outlived it would hold its pipes, and whoever waits for it would wait on."""
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    running = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=pipe, stdout=pipe, stderr=nothing, start_new_session=True
    )
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        await running.wait()


async def said(running: asyncio.subprocess.Process) -> str:
    assert running.stdout is not None
    return (await asyncio.wait_for(running.stdout.readline(), 20)).decode().strip()


@asynccontextmanager
async def sandbox() -> AsyncIterator[str]:
    """SendGrid, in a process of its own; its address."""
    program = "import asyncio; from mailprefs.sandbox.app import serve; asyncio.run(serve(0, ['sendgrid']))"
    async with process("-c", program) as running:
        yield f"http://127.0.0.1:{await said(running)}"


@dataclass
class Storm:
    """One run: what was done, and what the provider believes at last."""

    url: str
    conn: asyncpg.Connection
    http: ClientSession
    root: str
    parent: asyncio.subprocess.Process
    dice: random.Random
    churn: float  # seconds
    people: Sequence[Address] = ()
    figures: Counter[str] = field(default_factory=Counter)
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)  # there is one connection
    one_birth: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def introduce(self, addresses: Addresses) -> None:
        self.people = [addresses.read(f"p{n:03}@example.org") for n in range(PEOPLE)]
        rows = [(each.bucket, each.key, each.channel, each.text) for each in self.people]
        await self.conn.executemany("insert into address (bucket, key, channel, plaintext) values ($1, $2, $3, $4)", rows)

    async def change_minds(self) -> None:
        """Everybody changes their mind about everything a few times in a row, at some time in the storm, and then leaves it at that."""

        async def waver(who: Address, scope: int) -> None:
            await asyncio.sleep(self.dice.uniform(0, self.churn))
            effects = [(Effect.STOP, Door.LINK), (Effect.GO, Door.MANAGE)] * 2
            first = self.dice.randrange(2)
            for effect, door in effects[first : first + self.dice.randint(2, 3)]:
                async with self.one_at_a_time:
                    now = worker.wall_clock()
                    change = Change(who, scope, Cause.CHOICE, effect, door, uuid4().hex, now)
                    self.figures["changes"] += sum(await ledger.record(self.conn, [change], now=now))
                await asyncio.sleep(self.dice.uniform(0.1, 0.8))

        await asyncio.gather(*(waver(who, scope) for who in self.people for scope in GROUPS))

    async def spoil(self) -> None:
        """Keep a third of the replies faulty: what is queued is short, so that the faults end with the changes."""
        while True:
            queue = [self._fault() for _ in range(12)]
            async with self.http.post(f"{self.root}/_sandbox/faults", json={"queue": queue}) as answer:
                waiting = len((await answer.json())["queue"])
            while waiting > 24:
                await asyncio.sleep(0.03)
                async with self.http.post(f"{self.root}/_sandbox/faults", json={"queue": []}) as answer:
                    waiting = len((await answer.json())["queue"])

    def _fault(self) -> dict[str, object]:
        if self.dice.random() > 1 / 3:
            return {"fault": "slow", "seconds": 0}  # answered as documented, at once
        name = self.dice.choice(list(FAULTS.elements()))
        self.figures["faults"] += 1
        seconds = 0.1 if name == "slow" else 1 if name.startswith("429") else self.dice.uniform(LATEST / 2, LATEST)
        return {"fault": name, "seconds": seconds}

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[int]:
        """A worker that has come so far as to ask the database; its process id. It is killed at the end."""
        name = uuid4().hex
        async with self.one_birth:
            assert self.parent.stdin is not None
            self.parent.stdin.write(f"{name}\n".encode())
            pid = int(await said(self.parent))
        try:
            while not await self.asked("select count(*) from pg_stat_activity where application_name = $1", f"mailprefs {name}"):
                await asyncio.sleep(0.05)
            yield pid
        finally:
            os.kill(pid, signal.SIGKILL)

    async def work_and_die(self) -> None:
        """Work for a while, and be killed in the middle of it."""
        while True:
            async with self.worker():
                await asyncio.sleep(self.dice.uniform(0.8, 2.4))
            self.figures["killed"] += 1

    async def asked(self, question: str, *about: object) -> Any:
        async with self.one_at_a_time:
            return await self.conn.fetchval(question, *about)

    async def quiet(self) -> None:
        """Wait until nothing is left to tell, with workers that live."""
        began = asyncio.get_running_loop().time()
        async with self.worker(), asyncio.timeout(QUIET_WITHIN):
            while (await outbox.sync(self.conn, now=worker.wall_clock()))[0].waiting:
                # who backs off is called at once: a test does not wait out a quarter of an hour
                await self.conn.execute("update push set due_at = now() where attempts > 0 and lease is null and due_at > now()")
                await asyncio.sleep(0.2)
        self.figures["drained in ms"] = int((asyncio.get_running_loop().time() - began) * 1000)
        await asyncio.sleep(LATEST)  # whatever was still in the air has landed

    async def compare(self) -> None:
        """Ask both sides, by plain means, and count where they differ; an allowed address that should be stopped is dangerous."""
        async with self.http.get(f"{self.root}/_sandbox/state") as answer:
            state = (await answer.json())["sendgrid"]
        assert state["global"] == []
        for scope, group in GROUPS.items():
            rows = await self.conn.fetch("select plaintext from address where stops @> array[$1::int]", scope)
            ours, theirs = {row["plaintext"] for row in rows}, set(state["groups"][group])
            self.figures["stopped"] += len(ours)
            self.figures["mismatches"] += len(ours ^ theirs)
            self.figures["dangerous"] += len(ours - theirs)
        async with self.http.get(f"{self.root}/_sandbox/requests") as answer:
            self.figures["requests"] = len(await answer.json())

    async def blow(self) -> Counter[str]:
        spoiling = asyncio.create_task(self.spoil())
        dying = [asyncio.create_task(self.work_and_die()) for _ in range(WORKERS)]
        await self.change_minds()
        for task in (spoiling, *dying):
            assert task.cancel(), "the storm abated too early"
        await asyncio.gather(spoiling, *dying, return_exceptions=True)
        await self.quiet()
        await self.compare()
        return self.figures


async def storm(url: str, addresses: Addresses, *, settle: float, seed: int, churn: float = CHURN) -> Counter[str]:
    conn = await asyncpg.connect(url, server_settings={"timezone": "UTC"})
    try:
        async with sandbox() as root, ClientSession() as http, process(__file__, url, f"{root}/sendgrid", str(settle)) as parent:
            run = Storm(url, conn, http, root, parent, random.Random(seed), churn)
            await run.introduce(addresses)
            figures = await run.blow()
    finally:
        await conn.close()
    sys.stdout.write(f"chaos, settle {settle} s: {', '.join(f'{name} {count}' for name, count in sorted(figures.items()))}\n")
    return figures


@pytest.mark.slow
async def test_after_the_storm_the_providers_copy_equals_ours(database: str, addresses: Addresses) -> None:
    figures = await storm(database, addresses, settle=SETTLE, seed=1)
    assert (figures["mismatches"], figures["dangerous"]) == (0, 0)
    assert figures["changes"] > 300
    assert figures["killed"] >= 3
    assert figures["faults"] > 10


@pytest.mark.slow
async def test_without_settling_the_storm_leaves_mismatches(database: str, addresses: Addresses) -> None:
    """The control. It may be lucky once or twice, not five times: on a busy machine little happens in a short storm, so each is longer."""
    for n in range(1, 6):
        if (await storm(database, addresses, settle=0.0, seed=1 + n, churn=n * CHURN))["mismatches"]:
            return
        async with asyncpg.create_pool(database) as pool:
            await pool.execute("truncate address, consent, push, told, gate, closed, fingerprint, signing_key")
    pytest.fail("five storms without settling, and nothing went wrong: the faults are too mild to prove anything")


if __name__ == "__main__":
    be_their_parent(*sys.argv[1:])
