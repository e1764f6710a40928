"""No acknowledged opt-out is lost, whatever is killed: the web process, or PostgreSQL with all its children.

The judge is an outside recorder of acknowledgements, and a control that must lose: the same kill of a PostgreSQL that answers before
its commits are on disk. Without it these tests could not fail.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from uuid import uuid4

import asyncpg
import pytest
from aiohttp import ClientSession

from mailprefs import catalogue, decisions, directory, ledger
from mailprefs.addresses import Addresses
from mailprefs.decisions import Question
from mailprefs.directory import Entry
from mailprefs.links import KeyRing, Links
from mailprefs.sandbox import sendgrid
from mailprefs.words import Address

from .postgres import Postgres, owned
from .serving import CATALOGUE, Recorder, Serving, recording

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kill")]

MANY = 6  # kills of the control, before it is said that it cannot lose
LEAST = 2000  # presses that each run must see acknowledged
AT_ONCE = 48  # presses under way
PLENTY = 40_000  # presses to hand
LONGEST = 6.0  # seconds that anybody waits for an answer, whatever the database does


@dataclass(frozen=True)
class Town:
    """Everyone who is going to press: by the random id under which the recorder knows the press."""

    people: Mapping[str, Address]
    paths: Mapping[str, str]

    @classmethod
    def new(cls, ring: KeyRing) -> Town:
        topic, addresses = catalogue.load(CATALOGUE).topic("newsletter"), Addresses(ring.digest)
        people = {id: addresses.read(f"{id}@example.org") for id in (uuid4().hex for _ in range(PLENTY))}
        tokens = Links(ring, "go.example.com", "u@go.example.com").stream((one.key for one in people.values()), topic)
        return cls(people, {id: f"/u/{token}" for id, token in zip(people, tokens, strict=True)})


@dataclass(frozen=True)
class Scene:
    """A PostgreSQL that may be killed, a web process that may be killed, and the town that presses."""

    postgres: Postgres
    serving: Serving
    town: Town
    home: Path

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.postgres.url, server_settings={"timezone": "UTC"})
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def pressing(self) -> AsyncIterator[Recorder]:
        """Lend a recorder under whose presses things may be killed; at the end every answer is in."""
        with recording(self.home, self.serving.base, self.town.paths.items(), AT_ONCE) as recorder:
            yield recorder
            recorder.end()


@pytest.fixture(scope="module")
def town(ring: KeyRing) -> Town:
    return Town.new(ring)


@pytest.fixture
async def scene(tmp_path: Path, ring: KeyRing, town: Town) -> AsyncIterator[Scene]:
    """All of it running; half of the town's addresses are known by their text."""
    (tmp_path / "keys.json").touch(0o600)
    (tmp_path / "keys.json").write_text(ring.dumped())
    _, public = sendgrid.key_pair()
    secrets = {f"SENDGRID_{second}WEBHOOK_KEY": public for second in ("", "SECOND_")}
    secrets |= {f"SENDGRID_{second}API_KEY": "SG." + "x" * 40 for second in ("", "SECOND_")}
    with owned() as postgres:
        serving = Serving(tmp_path, postgres.url, secrets)
        here = Scene(postgres, serving, town, tmp_path)
        await postgres.start()
        assert serving.run("migrate").returncode == 0
        async with here.connected() as connection:
            known = [Entry(one) for one in list(here.town.people.values())[::2]]
            await directory.know(connection, known, now=datetime.now(UTC))
        await serving.start()
        yield here
        serving.end(signal.SIGKILL)


async def lost(scene: Scene, acknowledged: list[str]) -> Counter[str]:
    """Return what is missing of these presses: the decision against sending, the ledger's row, the pushes to both accounts."""
    topics = catalogue.load(CATALOGUE)
    people = [scene.town.people[id] for id in acknowledged]
    async with scene.connected() as connection:
        asked = [Question(one, "", "newsletter") for one in people]
        answers = await decisions.decide(connection, asked, topics, now=datetime.now(UTC))
        rows = await connection.fetch(
            "select k.key, exists (select from consent c where c.bucket = k.bucket and c.key = k.key and c.scope = 272"
            " and c.cause = 'choice' and c.effect = 'stop' and c.door = 'link' and c.evidence ~ '^link:[0-9a-f]{32}$'"
            " and c.happened_at <= c.received_at) kept,"
            " (select count(distinct account) from ("
            "   select account from push p where p.bucket = k.bucket and p.key = k.key and p.scope = 272 and p.stop"
            "   union all select account from told t where t.bucket = k.bucket and t.key = k.key and t.scope = 272 and t.stop) o) accounts"
            " from unnest($1::smallint[], $2::uuid[]) k(bucket, key)",
            [one.bucket for one in people],
            [one.key for one in people],
        )
    return Counter(
        allowed=sum(answer.allowed for answer in answers),
        unrecorded=sum(not row["kept"] for row in rows),
        untold=sum(row["accounts"] != 2 for row in rows),
    )


async def halves(scene: Scene) -> int:
    """Return how many addresses have one of row, summary and pushes without the others; and hold the ledger to its own proof."""
    async with scene.connected() as connection:
        assert await ledger.differing(connection) == 0
        return int(
            await connection.fetchval(
                "select count(*) from address a"
                " left join (select bucket, key, count(*) n from consent group by 1, 2) c using (bucket, key)"
                " left join (select bucket, key, count(*) n from push group by 1, 2) p using (bucket, key)"
                " where not ((a.stops is null and c.n is null and p.n is null) or (a.stops = '{272}' and c.n = 1 and p.n = 2))"
            )
        )


async def judged(scene: Scene, recorder: Recorder, before: set[str]) -> None:
    """Hold what was acknowledged since it was last judged against what the database says."""
    acknowledged = [id for id in recorder.acknowledged() if id not in before]
    assert await lost(scene, acknowledged) == Counter(allowed=0, unrecorded=0, untold=0)
    before.update(acknowledged)


async def judged_at_last(scene: Scene, recorder: Recorder) -> None:
    """Hold all that was ever acknowledged against what the database says: nothing puts right what a kill left, a press is made once."""
    await judged(scene, recorder, set())
    assert await halves(scene) == 0


def told(title: str, recorder: Recorder, more: str) -> None:
    counts = recorder.count()
    figures = f"acked {counts['ok']:,}, lost 0, unknown {counts['unknown']}, refused {counts['fail']}"
    sys.stdout.write(f"{title}: {figures}; {more}\n")


async def test_no_acknowledged_opt_out_is_lost_when_the_web_process_is_killed(scene: Scene) -> None:
    random, kills, seen = Random(), 8, set[str]()
    async with scene.pressing() as recorder:
        for n in range(kills):
            await recorder.until(n * LEAST // kills)
            await asyncio.sleep(random.uniform(0.1, 0.7))
            scene.serving.end(signal.SIGKILL)
            await judged(scene, recorder, seen)
            await scene.serving.start()
        await recorder.until(LEAST)
    await judged_at_last(scene, recorder)
    assert recorder.count()["unknown"] > 0, "no press was under way when the process was killed: this proves nothing"
    told("web process killed", recorder, f"{kills} kills")


async def test_no_acknowledged_opt_out_is_lost_when_postgresql_is_killed(scene: Scene) -> None:
    random, kills, web, seen = Random(), 5, scene.serving.child, set[str]()
    away: list[tuple[float, float]] = []  # from when PostgreSQL was dead until it was started again
    back: list[float] = []  # seconds from its first answer to the next acknowledgement
    async with scene.pressing() as recorder:
        for n in range(kills):
            await recorder.until(n * LEAST // kills + 200)
            await asyncio.sleep(random.uniform(0, 0.5))
            scene.postgres.freeze()
            await asyncio.sleep(4.0 if n == 0 else random.uniform(0, 0.3))
            scene.postgres.kill()
            dead = time.monotonic()
            await asyncio.sleep(random.uniform(0.3, 1.0))
            away.append((dead, time.monotonic()))
            await scene.postgres.start()
            back.append(await recovered(recorder, time.monotonic()))
            await judged(scene, recorder, seen)
        await recorder.until(LEAST)
    await judged_at_last(scene, recorder)
    assert scene.serving.child is web
    assert scene.serving.lives, "the web process must outlive its database"
    pressed = recorder.pressed().values()
    meanwhile = [press for press in pressed if any(dead < press.sent_at and press.answered_at < end for dead, end in away)]
    assert {(press.told, press.code) for press in meanwhile} == {("fail", "503")}
    assert Counter(press.told for press in pressed)["unknown"] == 0
    longest = max(press.seconds for press in pressed)
    assert longest < LONGEST
    told(
        "PostgreSQL killed",
        recorder,
        f"{kills} kills, {len(meanwhile)} presses refused while it was dead, longest wait {longest:.1f} s, back after {max(back):.1f} s",
    )


async def recovered(recorder: Recorder, since: float) -> float:
    """Return how many seconds after that time the next press that was sent later is acknowledged."""
    while time.monotonic() < since + LONGEST:
        if sent := [press.answered_at for press in recorder.pressed().values() if press.told == "ok" and press.sent_at > since]:
            return min(sent) - since
        await asyncio.sleep(0.05)
    raise AssertionError("the web process does not find its database again")


async def altered(scene: Scene, name: str, value: str | None) -> None:
    """Change a setting of the running server, or put it back; return when sessions that are open already have it."""
    async with scene.connected() as connection:
        await connection.execute(f"alter system reset {name}" if value is None else f"alter system set {name} = '{value}'")
        before = await connection.fetchval("select setting from pg_settings where name = $1", name)
        await connection.execute("select pg_reload_conf()")
        while await connection.fetchval("select setting from pg_settings where name = $1", name) == before:
            await asyncio.sleep(0.02)


async def readiness(scene: Scene, wanted: int) -> str:
    """Return what readiness says once it answers this code: the sessions of a pool learn of a setting a moment later than ours."""
    async with ClientSession() as http:
        for _ in range(1000):
            async with http.get(f"{scene.serving.base}/readyz") as answer:
                if answer.status == wanted:
                    return await answer.text()
            await asyncio.sleep(0.02)
    raise AssertionError(f"readiness does not answer {wanted}")


async def test_a_server_that_would_lose_acknowledged_opt_outs_is_refused(scene: Scene) -> None:
    await readiness(scene, 200)
    for setting in ("synchronous_commit", "fsync", "full_page_writes"):
        await altered(scene, setting, "off")
        assert f"{setting} is off" in await readiness(scene, 503)
        for command in ("serve", "work") if setting == "synchronous_commit" else ("serve",):
            refused = scene.serving.run(command)
            assert refused.returncode == 2
            assert f"{setting} is off" in refused.stderr
        await altered(scene, setting, None)
        await readiness(scene, 200)


async def test_the_control_loses(scene: Scene) -> None:
    """The same kill, on a server that was told, behind the service's back, to answer before its commits are on disk."""
    await altered(scene, "wal_writer_delay", "10s")
    await altered(scene, "synchronous_commit", "off")
    random, gone = Random(), Counter[str]()
    async with scene.pressing() as recorder:
        for kill in range(1, MANY + 1):
            await recorder.until(kill * 700)
            await asyncio.sleep(random.uniform(0, 0.5))
            scene.postgres.freeze()
            scene.postgres.kill()
            await scene.postgres.start()
            gone = await lost(scene, recorder.acknowledged())
            if gone.total():
                break
        assert await halves(scene) == 0, "even so, what is kept is whole"
    sys.stdout.write(
        f"control, synchronous_commit=off and wal_writer_delay=10s: acked {recorder.count()['ok']:,}, "
        f"lost {gone['unrecorded']:,} after {kill} kills\n"
    )
    assert gone["unrecorded"] == gone["allowed"] == gone["untold"] > 0
