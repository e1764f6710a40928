"""Carries the pushes that are owed to one account: batching, pace, retry, gates. No SQL here.

Each round owns the account and leases a batch in one transaction, commits, and only then talks to the provider. Whatever its answer
leaves open is asserted again once nothing earlier can land any more: providers have no fencing tokens.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from uuid import UUID, uuid4

from aiohttp import ClientSession
from aiolimiter import AsyncLimiter

from mailprefs import db, outbox, telemetry
from mailprefs.errors import Unavailable
from mailprefs.jury import Jury
from mailprefs.outbox import End, Fate, Gate, Lease, Outlook, Push, Ready, Verdict
from mailprefs.providers.base import Barred, Credential, Outcome, Provider, Rejected, Settlement, Slow, Telling, Unclear, Unsafe
from mailprefs.words import Clock

AT_ONCE = 4  # requests of one account in flight, about different addresses
LARGEST = 1000  # rows in a lease
AHEAD = 10  # seconds of the account's pace that one lease covers
RESERVE = 1.25  # what a go costs of the pace, so that goes leave a fifth of it to stops
POISON = 8  # single rows refused in a row, before a batch that is rejected again is no longer taken apart
RETRIED_AFTER = timedelta(minutes=5)  # a credential that was refused
SAFE_AFTER = timedelta(minutes=10)  # a group that it would do harm to tell
NOTING = (0.1, 0.3, 1.0, 3.0)  # seconds between tries to write down what became of a request


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things last. No setting: only tests, which cannot wait, make it shorter. ``settle`` is each account's own.

    ``quiet`` must have passed since anybody spoke for an address before it is told a go: who tries a switch to and fro, or undoes what a
    scanner pressed, is told about once, and a go that would be taken back never sets out to land behind the stop. A stop waits for nothing.
    Were it nothing, more would be told and settled, and nothing would be wrong; a long one only keeps somebody stopped for longer.
    """

    lease: timedelta = timedelta(seconds=120)
    quiet: timedelta = timedelta(seconds=60)
    poll: timedelta = timedelta(seconds=1)

    @property
    def margin(self) -> timedelta:
        """What must be left of a lease for a request to begin."""
        return self.lease / 4


@dataclass(frozen=True)
class Route:
    """One account, and what its pushes are carried with."""

    name: str
    number: int
    provider: Provider
    credential: Credential
    groups: Mapping[int, str]  # scope → the provider's id
    called: Mapping[int, str]  # scope → how the database knows that id
    settle: timedelta  # how late the provider may still apply a request whose answer did not come

    @property
    def most(self) -> int:
        """How many rows one lease of stops may hold: what the pace carries in a few seconds."""
        return min(LARGEST, max(self.provider.batch, int(self.provider.batch * self.provider.pace * AHEAD)))


@dataclass(eq=False)
class Courier:
    """Carries one account's pushes, as the only one for as long as it owns it."""

    route: Route
    pool: db.Pool
    http: ClientSession
    clock: Clock
    timing: Timing = field(default_factory=Timing)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  # once set, no further request begins
    owner: UUID = field(default_factory=uuid4)
    turned: int | None = None  # the latest turn in which was told again what cannot be compared
    juries: defaultdict[tuple[int, bool], Jury] = field(default_factory=lambda: defaultdict(Jury))  # by scope and direction
    _desk: asyncio.Lock = field(default_factory=asyncio.Lock)

    @cached_property
    def _limiter(self) -> AsyncLimiter:
        most = max(RESERVE, self.route.provider.pace)
        return AsyncLimiter(most, most / self.route.provider.pace)

    async def pace(self, stop: bool) -> None:
        """Wait for the account's next turn."""
        await self._limiter.acquire(1 if stop else RESERVE)

    @asynccontextmanager
    async def desk(self) -> AsyncIterator[db.Connection]:
        """Lend a connection; an account never holds more than one of the pool. Raises Unavailable."""
        async with self._desk, db.acquired(self.pool) as connection:
            yield connection

    async def round(self) -> bool:
        """Carry what is due, stops before goes; return whether that got anywhere. Raises Unavailable."""
        begun, now = _ticks(), self.clock()
        async with self.desk() as connection:
            seen = await self._look(connection, now)
            if seen.taken:
                return False
            async with connection.transaction():  # in which nothing is written while the account is idle, but once in a third of a lease
                if seen.lapsing and not await self._own(connection, now):
                    return False
                lease = None if seen.gate.shut else await self._due(connection, seen.gate, now)
            if lease is None:
                return not (seen.gate.shut or seen.gate.barred) and await self._tell_again(connection, now)
        return await _Round(self, lease, begun, seen.gate.barred).run()

    async def _tell_again(self, connection: db.Connection, now: datetime) -> bool:
        """Once in a turn, while nothing else waits, owe anew what the account may have lost; no more than one lease carries."""
        if self.turned == outbox.turn(now):
            return False
        owed = await outbox.tell_again(connection, self.route.number, called=self.route.called, most=self.route.most, now=now)
        self.turned = outbox.turn(now)
        telemetry.count("pushes_told_again", owed, account=self.route.name)
        return owed > 0

    async def _look(self, connection: db.Connection, now: datetime) -> Outlook:
        return await outbox.look(connection, self.route.number, self.owner, lapsing=now + self.timing.lease * 2 / 3, now=now)

    async def _own(self, connection: db.Connection, now: datetime) -> bool:
        return await outbox.own(connection, self.route.number, self.owner, until=now + self.timing.lease, now=now) is not None

    async def _due(self, connection: db.Connection, gate: Gate, now: datetime) -> Lease | None:
        """Lease stops, else goes: those for a single request, so that a stop that comes meanwhile waits for no more."""
        stops, goes = (1, 1) if gate.barred else (self.route.most, self.route.provider.batch)
        lease = await self._lease(connection, stop=True, most=stops, now=now)
        return lease or await self._lease(connection, stop=False, most=goes, now=now)

    async def _lease(self, connection: db.Connection, *, stop: bool, most: int, now: datetime) -> Lease | None:
        return await outbox.lease(
            connection,
            self.route.number,
            called=self.route.called,
            stop=stop,
            most=most,
            until=now + self.timing.lease,
            settle=self.route.settle,
            quiet=self.timing.quiet,
            now=now,
        )

    async def leave(self) -> None:
        """Let go of the account."""
        async with self.desk() as connection:
            await outbox.disown(connection, self.route.number, self.owner)


@dataclass(eq=False)
class _Round:
    """One lease on its way."""

    courier: Courier
    lease: Lease
    begun: float  # ticks before the lease was taken
    barred: bool
    halted: bool = False  # the gate was closed meanwhile
    closed: set[int] = field(default_factory=set)  # scopes that would do harm
    refused: list[End] = field(default_factory=list)  # single ones, of which nobody has said yet whose fault it is
    in_a_row: int = 0  # refused, since one was taken

    def __post_init__(self) -> None:
        self.left = dict.fromkeys(self.lease.pushes)  # what is still to be settled or given back
        length = self.courier.timing.lease.total_seconds()
        self.begin_until = self.begun + length * 2 / 3  # on the monotonic clock: a clock set back lengthens no lease
        self.end_at = self.begun + length * 11 / 12

    async def run(self) -> bool:
        """Settle or give back every push of the lease; return whether any was settled.

        One group after the other: two requests at once never name the same address.
        """
        groups: dict[int, list[Push]] = {}
        for push in self.lease.pushes:
            groups.setdefault(push.scope, []).append(push)
        for scope, pushes in groups.items():
            batches = deque(_cut(pushes, self.courier.route.provider.batch))
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(AT_ONCE, len(batches))):
                    tasks.create_task(self._carry(scope, batches))
            await self._judge(scope)
        await self._give_back()
        return len(self.left) < len(self.lease.pushes)

    async def _carry(self, scope: int, batches: deque[list[Push]]) -> None:
        while batches and self._may_begin(scope):
            waiting = [batches.popleft()]
            while waiting and self._may_begin(scope):
                batch = waiting.pop()
                if await self._tell(scope, batch):
                    waiting += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]

    def _may_begin(self, scope: int) -> bool:
        return not (self.halted or scope in self.closed or self.courier.stopping.is_set() or _ticks() >= self.begin_until)

    async def _tell(self, scope: int, batch: Sequence[Push]) -> bool:
        """Tell a batch and settle it. True if it was rejected as a whole, and must be halved."""
        await self.courier.pace(self.lease.stop)
        ready = await self._read(batch)
        if not ready or not self._may_begin(scope):
            return False
        sent_at, begun = self.courier.clock(), _ticks()
        try:
            settlements = await self._assert(self.courier.route.groups[scope], ready)
        except Rejected:
            self._jury(scope).hear(begun, refused=[each.push for each in ready if not each.refused])
            if len(ready) > 1 and not self._hopeless:
                return True
            settlements = [Settlement(Outcome.REFUSED if len(ready) == 1 else Outcome.UNKNOWN, "rejected")] * len(ready)
        except (Slow, Barred, Unsafe) as trouble:
            await self._broken_off(scope, ready, trouble, sent_at)
            return False
        ends = [End(r.push, Fate(s.outcome), r.want, s.detail) for r, s in zip(ready, settlements, strict=True)]
        await self._heard(scope, ends, {each.push for each in ready if each.refused}, begun, sent_at)
        return False

    def _jury(self, scope: int) -> Jury:
        return self.courier.juries[scope, self.lease.stop]

    @property
    def _hopeless(self) -> bool:
        """Everything is refused, one by one: it is not the rows."""
        return self.in_a_row >= POISON

    async def _heard(self, scope: int, ends: Sequence[End], again: Collection[Push], begun: float, sent_at: datetime) -> None:
        """Settle what is clear, and keep for the jury what is refused for the first time: not who was refused before, ``again``."""
        doubtful = [end for end in ends if end.fate is Fate.REFUSED and end.push not in again]
        clear = [end for end in ends if end.fate is not Fate.REFUSED or end.push in again]
        taken = [end.push for end in clear if end.fate is Fate.DONE]
        self._jury(scope).hear(begun, taken=taken, refused=[end.push for end in doubtful])
        self.refused += doubtful
        self.in_a_row = 0 if taken else self.in_a_row + len(doubtful)
        if clear:
            await self._settle(clear, sent_at)

    async def _judge(self, scope: int) -> None:
        """Put aside who is refused for what they are. Is it the provider, it is trouble like any other, and nobody waits for a day."""
        ends, hopeless = self.refused, self._hopeless
        self.refused, self.in_a_row = [], 0
        if not ends:
            return
        guilty = set() if hopeless else self._jury(scope).guilty(end.push for end in ends)
        if len(guilty) < len(ends):
            telemetry.alarm("everything_rejected", account=self.courier.route.name)
        judged = [end if end.push in guilty else replace(end, fate=Fate.UNKNOWN) for end in ends]
        await self._settle(judged, self.courier.clock())

    async def _read(self, batch: Sequence[Push]) -> list[Ready]:
        """Return what must be sent at this moment. Who would have to be told the other way waits for a round of that direction."""
        try:
            async with self.courier.desk() as connection:
                ready = await outbox.read(connection, self.lease, batch, margin=self.courier.timing.margin, now=self.courier.clock())
        except Unavailable:
            self.halted = True
            return []
        return [each for each in ready if each.text and each.stop == self.lease.stop]

    async def _assert(self, group: str, ready: Sequence[Ready]) -> Sequence[Settlement]:
        """Return a settlement for each. Raises Slow, Barred, Unsafe, Rejected; whatever else goes wrong leaves the outcome unknown."""
        route = self.courier.route
        tellings = [Telling(each.text or "", group, each.stop) for each in ready]
        try:
            async with asyncio.timeout_at(self.end_at):
                settlements = await route.provider.tell(self.courier.http, route.credential, tellings)
            if len(settlements) == len(tellings):
                return settlements
            detail = "other_shape"
        except (Slow, Barred, Unsafe, Rejected):
            raise
        except Unclear as trouble:
            detail = trouble.detail
        except TimeoutError:
            detail = "too_late"
        except Exception as error:
            telemetry.log.error("telling_failed", account=route.name, exc_info=error)
            detail = "failed"
        return [Settlement(Outcome.UNKNOWN, detail)] * len(tellings)

    async def _broken_off(self, scope: int, ready: Sequence[Ready], trouble: Exception, sent_at: datetime) -> None:
        """Close what the provider wants closed. Nothing is settled, and no attempt is counted."""
        # A provider settles what may still land before it says why the rest must wait. Should one of them ever forget it, a stale stop
        # is harmless, a stale go is not: of several, one before the last may have gone unanswered.
        fate = Fate.CUT if len(ready) > 1 and not self.lease.stop else Fate.UNSENT
        try:
            await self._shut(scope, trouble)
        except Unavailable:
            self.halted = True
        await self._settle([End(each.push, fate, each.want) for each in ready], sent_at)

    async def _shut(self, scope: int, trouble: Exception) -> None:
        route, now = self.courier.route, self.courier.clock()
        if isinstance(trouble, Unsafe):
            self.closed.add(scope)
            telemetry.alarm("unsafe_to_tell", account=route.name)
            async with self.courier.desk() as connection:
                await outbox.close(connection, route.number, scope, until=now + SAFE_AFTER)
            return
        self.halted = True
        barred = isinstance(trouble, Barred)
        wait = trouble.wait if isinstance(trouble, Slow) else RETRIED_AFTER
        if barred:
            telemetry.alarm("credential_refused", account=route.name)
        else:
            telemetry.log.info("asked_to_wait", account=route.name, seconds=wait.total_seconds())
        async with self.courier.desk() as connection:
            await outbox.wait(connection, route.number, until=now + wait, now=now, barred=barred)

    async def _settle(self, ends: Sequence[End], sent_at: datetime) -> None:
        """Write down what became of a request. If that cannot be done the lease runs out, and then it counts as unknown."""
        for end in ends:
            self.left.pop(end.push, None)
        self._count(ends)
        for pause in (*NOTING, None):
            try:
                await self._note(ends, sent_at)
                return
            except Exception as error:  # whatever it is: this must be written down, and writing it twice changes nothing
                if pause is None:
                    self.halted = True
                    telemetry.log.error("not_settled", account=self.courier.route.name, rows=len(ends), exc_info=error)
                else:
                    await asyncio.sleep(pause)

    async def _note(self, ends: Sequence[End], sent_at: datetime) -> None:
        route = self.courier.route
        async with self.courier.desk() as connection:
            if self.barred and any(end.fate in (Fate.DONE, Fate.REFUSED) for end in ends):
                await outbox.admitted(connection, route.number)
            verdicts = await outbox.settle(connection, self.lease, ends, sent_at=sent_at, settle=route.settle, now=self.courier.clock())
        for verdict, rows in verdicts.items():
            telemetry.count("pushes", rows, account=route.name, verdict=verdict)
        if verdicts[Verdict.QUARANTINED]:
            telemetry.alarm("quarantined", account=route.name)

    def _count(self, ends: Iterable[End]) -> None:
        for end in ends:
            telemetry.count("tellings", account=self.courier.route.name, outcome=end.fate)

    async def _give_back(self) -> None:
        """Release what was not sent. If that cannot be done the lease runs out."""
        if not self.left:
            return
        try:
            async with self.courier.desk() as connection:
                await outbox.release(connection, self.lease, list(self.left), now=self.courier.clock())
        except Unavailable:
            telemetry.log.warning("not_released", account=self.courier.route.name, rows=len(self.left))


def _cut(pushes: Sequence[Push], size: int) -> Iterable[list[Push]]:
    return (list(pushes[n : n + size]) for n in range(0, len(pushes), size))


def _ticks() -> float:
    """The monotonic clock of the loop, in seconds."""
    return asyncio.get_running_loop().time()
