"""The rule, the fold and the ledger as pure values: what every test of meaning is judged by.

Written from docs/state.md alone ("§n" below is its section), without the database and without a word of ``mailprefs``,
so that agreeing with it proves something. Times are whole microseconds; None stands for "never" or "for ever".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
UNDO = 30 * MINUTE  # how long a press can be taken back, §5
SURE = UNDO + DAY  # from when on it certainly cannot, however long its answer took and whatever became of the clock

STOP, GO, GRANT, WITHDRAW, NOTE = "stop", "go", "grant", "withdraw", "note"
CHOICE, COMPLAINT, MINOR, STAFF, BOUNCE, INVALID, PAUSE, SOFT = (
    "choice", "complaint", "minor", "staff", "bounce", "invalid", "pause", "soft",
)  # fmt: skip
ENDING = frozenset({PAUSE, SOFT})  # the causes whose stops carry an until, always; the others never do
OWN_STOPS = frozenset({"link", "page", "manage", "mail", "sms"})  # §4: doors whose stops are the recipient's own acts
PRESSES = OWN_STOPS - {"sms"}  # §5: STOP by text is never spared its row, since a START that was sent between may still be on its way
OWN_GOES = frozenset({"manage"})
CHOSEN = frozenset({CHOICE, PAUSE})  # §4: the causes that are a recipient's to set
PAGES = frozenset({"page", "manage"})  # §5: doors that offer an undo of what was pressed there
CONFIRMED = frozenset({"manage", "sms"})  # doors whose grants satisfy double-opt-in
TOLD = frozenset({CHOICE, COMPLAINT, MINOR, STAFF, PAUSE})  # §6: the causes that providers are told
EVERY_DOOR = frozenset({"link", "page", "manage", "mail", "sms", "provider", "import", "staff", "reconcile", "system"})


@dataclass(frozen=True, slots=True)
class Tree:
    """The scopes by number: each one's path from the root to itself, and the consent each topic wants."""

    paths: Mapping[int, tuple[int, ...]]
    wanted: Mapping[int, str]

    def topics(self) -> tuple[int, ...]:
        """Every topic, in order: the nodes that stand under a stream."""
        return tuple(sorted(scope for scope, path in self.paths.items() if len(path) == 4))

    def marketing(self, scope: int) -> bool:
        """True for the brand's marketing node and all under it."""
        path = self.paths.get(scope, ())
        return len(path) > 2 and path[2] % 256 == 1

    def asks(self, topic: int, channel: str = "email") -> str:
        """The consent a topic wants on a channel; marketing by SMS wants it always (§3)."""
        wanted = self.wanted[topic]
        return "opt-in" if channel == "sms" and wanted == "opt-out" and self.marketing(topic) else wanted


ROOT, BRAND, MARKETING, TRANSACTIONAL, ADS = 0, 256, 257, 258, 259
NEWSLETTER, OFFERS, PARTNERS, STUDIES, RECOVERY, ORDERS, CARE = 272, 273, 274, 275, 276, 288, 289
SMALL = Tree(
    paths={
        ROOT: (ROOT,),
        BRAND: (ROOT, BRAND),
        MARKETING: (ROOT, BRAND, MARKETING),
        TRANSACTIONAL: (ROOT, BRAND, TRANSACTIONAL),
        ADS: (ROOT, BRAND, ADS),
        **{topic: (ROOT, BRAND, MARKETING, topic) for topic in (NEWSLETTER, OFFERS, PARTNERS, STUDIES, RECOVERY)},
        **{topic: (ROOT, BRAND, TRANSACTIONAL, topic) for topic in (ORDERS, CARE)},
    },
    wanted={
        **dict.fromkeys((NEWSLETTER, OFFERS, RECOVERY, ORDERS, CARE), "opt-out"),
        PARTNERS: "opt-in",
        STUDIES: "double-opt-in",
    },
)


@dataclass(frozen=True, slots=True)
class Change:
    """What a door asks of one address. For a withdrawal ``id`` is the evidence of the Change to take back."""

    scope: int
    cause: str
    effect: str
    door: str
    id: str
    happened_at: int
    until: int | None = None
    by: str | None = None  # the account that told us

    @property
    def evidence(self) -> str:
        return f"undo:{self.id}" if self.effect == WITHDRAW else f"{self.door}:{self.id}"


@dataclass(frozen=True, slots=True)
class Row:
    """A Change as the ledger keeps it, for ever: ``at`` is the time it counts from, frozen when it was stored."""

    evidence: str
    scope: int
    cause: str
    effect: str
    door: str
    at: int
    received_at: int
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Register:
    """One (scope, cause): the latest stop with the until it brought, and the latest go."""

    off_at: int | None = None
    until: int | None = None
    on_at: int | None = None

    @property
    def held(self) -> bool:
        """True while the stop stands, were time to stand still. Ties hold (§2)."""
        return self.off_at is not None and (self.on_at is None or self.off_at >= self.on_at)

    def on_hold(self, now: int) -> bool:
        return self.held and (self.until is None or self.until > now)


@dataclass(frozen=True, slots=True)
class Registers:
    """The fold of an address's rows: one register for each (scope, cause), and where consent was shown."""

    by_node: Mapping[tuple[int, str], Register]
    confirmed: frozenset[int]  # scopes with a grant through manage or sms
    imported: frozenset[int]  # scopes with a grant through import


@dataclass(frozen=True, slots=True)
class Summary:
    """The five columns of an address (§3): sorted, and None where there is nothing to say."""

    stops: tuple[int, ...] | None = None
    goes: tuple[int, ...] | None = None
    pauses: tuple[tuple[int, int], ...] | None = None
    grants: tuple[int, ...] | None = None
    claims: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """One thing on the path of a topic that speaks against sending."""

    scope: int
    cause: str
    since: int | None = None
    until: int | None = None


def is_own(effect: str, door: str, cause: str) -> bool:
    """True for a recipient's own act: stops of their choosing through five doors, goes through manage (§4).

    A bounce or a complaint that comes by mail is a time from outside.
    """
    return (effect == STOP and door in OWN_STOPS and cause in CHOSEN) or (effect == GO and door in OWN_GOES)


# The fold, §2


def standing_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows that count: all but a recipient's own stops that an undo names, and the undos themselves."""
    rows = tuple(rows)
    taken_back = {row.evidence.removeprefix("undo:") for row in rows if row.effect == WITHDRAW}
    return tuple(
        row
        for row in rows
        if row.effect != WITHDRAW and not (row.evidence in taken_back and row.effect == STOP and is_own(STOP, row.door, row.cause))
    )


def fold(rows: Iterable[Row]) -> Registers:
    """The registers of one address. A function of the set of its rows: their order changes nothing."""
    by_node: dict[tuple[int, str], Register] = {}
    confirmed, imported = set[int](), set[int]()
    for row in standing_rows(rows):
        if row.effect == GRANT:
            (imported if row.door == "import" else confirmed).add(row.scope)
        elif row.effect in (STOP, GO):
            node = (row.scope, row.cause)
            by_node[node] = _raised(by_node.get(node, Register()), row)
    return Registers(by_node, frozenset(confirmed), frozenset(imported))


def _raised(register: Register, row: Row) -> Register:
    """The register after one more row: each time only rises, and the until travels with its own stop."""
    if row.effect == GO:
        on_at = row.at if register.on_at is None else max(register.on_at, row.at)
        return Register(register.off_at, register.until, on_at)
    newer = register.off_at is None or row.at > register.off_at
    if newer or (row.at == register.off_at and _later(row.until, register.until)):
        return Register(row.at, row.until, register.on_at)
    return register


def _later(until: int | None, other: int | None) -> bool:
    """True if the first until is the later one; for ever is later than any time."""
    return other is not None and (until is None or until > other)


# The summary and the rule, §3


def summary(rows: Iterable[Row], tree: Tree = SMALL) -> Summary:
    """What is written beside the address. A pause that has ended is still listed: the reader tests its until."""
    registers = fold(rows)
    held = {node: register for node, register in registers.by_node.items() if register.held}
    chosen = {scope for (scope, cause), register in registers.by_node.items() if cause == CHOICE and register.on_at is not None}
    topics = {scope for scope in tree.paths if len(tree.paths[scope]) == 4}
    grants = (chosen | registers.confirmed) & topics
    return Summary(
        stops=_told(scope for scope, cause in held if cause not in ENDING),
        goes=_told(topic for topic in chosen & topics if _opens(topic, registers, tree)),
        pauses=_pauses(held),
        grants=_told(grants),
        claims=_told((registers.imported & topics) - grants),
    )


def _opens(topic: int, registers: Registers, tree: Tree) -> bool:
    """True if the topic's go is later than every choice stop on its path, lifted or not, and no other cause holds there for ever."""
    went = registers.by_node[topic, CHOICE].on_at
    assert went is not None
    for (scope, cause), register in registers.by_node.items():
        if scope in tree.paths[topic] and cause not in ENDING:
            if cause != CHOICE and register.held:
                return False
            if cause == CHOICE and register.off_at is not None and register.off_at >= went:
                return False
    return True


def _told(scopes: Iterable[int]) -> tuple[int, ...] | None:
    return tuple(sorted(set(scopes))) or None


def _pauses(held: Mapping[tuple[int, str], Register]) -> tuple[tuple[int, int], ...] | None:
    timed = {(scope, register.until) for (scope, cause), register in held.items() if cause in ENDING}
    return tuple(sorted((scope, until) for scope, until in timed if until is not None)) or None


def allowed(topic: int, told: Summary | Iterable[Row], now: int, wanted: str = "opt-out", tree: Tree = SMALL) -> bool:
    """The one rule. An unknown topic is denied."""
    if topic not in tree.paths or len(tree.paths[topic]) != 4:
        return False
    told = told if isinstance(told, Summary) else summary(told, tree)
    path = tree.paths[topic]
    stopped = any(scope in path for scope in told.stops or ()) and topic not in (told.goes or ())
    paused = any(scope in path and until > now for scope, until in told.pauses or ())
    return not stopped and not paused and _consented(topic, told, wanted)


def _consented(topic: int, told: Summary, wanted: str) -> bool:
    shown = topic in (told.grants or ())
    return wanted == "opt-out" or shown or (wanted == "opt-in" and topic in (told.claims or ()))


def reasons(topic: int, rows: Iterable[Row], now: int, wanted: str = "opt-out", tree: Tree = SMALL) -> tuple[Reason, ...]:
    """Why the topic is denied: every (scope, cause, since) on hold on its path, and a missing consent. Empty where it is allowed."""
    rows = tuple(rows)
    told = summary(rows, tree)
    if allowed(topic, told, now, wanted, tree):
        return ()
    if topic not in tree.paths:
        return (Reason(topic, "unknown_topic"),)
    path = tree.paths[topic]
    holding = sorted(
        Reason(scope, cause, register.off_at, register.until)
        for (scope, cause), register in fold(rows).by_node.items()
        if scope in path and register.on_hold(now)
    )
    missing = () if _consented(topic, told, wanted) else (Reason(topic, "consent_missing"),)
    return (*holding, *missing)


# The ledger, §4 and §5


def record(history: tuple[Row, ...], changes: Sequence[Change], now: int) -> tuple[tuple[Row, ...], tuple[bool, ...]]:
    """The ledger of one address after one call, and for each Change whether it added a row."""
    before = history
    latest = max((row.at for row in before), default=None)
    turn = now if latest is None else max(now, latest + 1)  # what the call's next own act counts from
    added = []
    for change in changes:
        fresh = all(row.evidence != change.evidence for row in history) and not repeats_a_press(before, history, change, now)
        own = is_own(change.effect, change.door, change.cause)
        if fresh:
            history = (*history, kept(change, turn if own else min(change.happened_at, now), now))
        turn += own
        added.append(fresh)
    return history, tuple(added)


def kept(change: Change, at: int, now: int) -> Row:
    """The Change as a row that counts from ``at``."""
    if change.effect == STOP and (change.cause in ENDING) is (change.until is None):
        raise ValueError("pause and soft carry an until, always; the others never do")
    until = change.until if change.effect == STOP else None
    return Row(change.evidence, change.scope, change.cause, change.effect, change.door, at, now, until)


def repeats_a_press(before: tuple[Row, ...], history: tuple[Row, ...], change: Change, now: int, tree: Tree = SMALL) -> bool:
    """True where a stop needs no row: before this call it was held through the same door by one past undoing, and no go came since.

    "Since" is later at the scope or under it, in this call or earlier. Goes of other causes never touch a choice (§2).
    """
    if change.effect != STOP or change.cause != CHOICE or change.door not in PRESSES:
        return False
    under = {scope for scope, path in tree.paths.items() if change.scope in path}
    goes = [row.at for row in history if row.effect == GO and row.cause == CHOICE and row.scope in under]
    return any(
        row.effect == STOP
        and (row.scope, row.cause, row.door) == (change.scope, CHOICE, change.door)
        and not (row.door in PAGES and now - row.received_at <= SURE)
        and all(row.at > went for went in goes)
        for row in standing_rows(before)
    )


def can_be_undone(stop: Row, now: int) -> bool:
    """True for thirty minutes, for a stop made on a page: a mailbox provider's one-click shows nobody an undo."""
    return stop.door in PAGES and now - stop.received_at <= UNDO


def entitled(change: Change, liftable: bool = False) -> bool:
    """True if this door may set or lift this cause (the table of §2). What lifts nothing is open to all but a grant."""
    if change.effect == STOP:
        return change.door in MAY_SET[change.cause]
    if change.effect == GO:
        return change.door in MAY_LIFT[change.cause] or (liftable and change.cause == COMPLAINT and change.door == "manage")
    if change.effect == GRANT:
        return change.cause == CHOICE and change.door in CONFIRMED | {"import"}
    return True


REPORTERS = frozenset({"provider", "mail", "import", "staff"})
LISTED = REPORTERS | {"reconcile"}  # a provider's own list says why somebody stands on it
MAY_SET: Mapping[str, frozenset[str]] = {
    CHOICE: EVERY_DOOR,
    PAUSE: frozenset({"page", "manage"}),
    COMPLAINT: LISTED,
    MINOR: frozenset({"staff", "import", "system"}),
    STAFF: frozenset({"staff"}),
    BOUNCE: LISTED,
    INVALID: REPORTERS,
    SOFT: frozenset({"provider", "mail"}),
}
MAY_LIFT: Mapping[str, frozenset[str]] = {
    CHOICE: CONFIRMED,
    PAUSE: frozenset({"manage"}),
    COMPLAINT: frozenset(),
    MINOR: frozenset({"staff"}),
    STAFF: frozenset({"staff"}),
    BOUNCE: frozenset({"staff"}),
    INVALID: frozenset({"staff"}),
    SOFT: frozenset(),
}


# Who must be told, §6


@dataclass(frozen=True, slots=True)
class Account:
    """A provider account as §6 sees it: the scopes it knows, and whether it is told of bounces."""

    name: str
    mapped: tuple[int, ...]
    share_bounces: bool = False


def answer(scope: int, rows: Iterable[Row], now: int, share_bounces: bool = False, tree: Tree = SMALL) -> bool:
    """True if a provider must hold this mapped scope back: the same rule from the stream downwards, and without consent.

    The rows above the stream are left out before the fold, so that a bounce is not told by way of a go that it closes.
    """
    path = tree.paths[scope]
    if not share_bounces:
        path = path[2:] if tree.marketing(scope) else ()
    rows = tuple(row for row in rows if row.effect == WITHDRAW or (row.scope in path and (share_bounces or row.cause in TOLD)))
    told = summary(rows, tree)
    paused = any(until > now for _, until in told.pauses or ())
    return paused or (any(held in path for held in told.stops or ()) and scope not in (told.goes or ()))


def owed(
    before: tuple[Row, ...], after: tuple[Row, ...], told: Sequence[Change], accounts: Sequence[Account], now: int, tree: Tree = SMALL
) -> frozenset[tuple[str, int, bool]]:
    """Who must be told after a call: (account, mapped scope, True for stop). ``told`` are the Changes that added a row."""
    return frozenset(
        (account.name, scope, desired)
        for account in accounts
        for scope in account.mapped
        for desired in (answer(scope, after, now, account.share_bounces, tree),)
        if believes(account, scope, before, told, now, tree) is not desired
    )


def forever(scope: int, rows: Iterable[Row], account: Account, tree: Tree = SMALL) -> bool:
    """True if a mapped scope is held by more than what ends by itself."""
    return answer(scope, [row for row in rows if row.cause not in ENDING], 0, account.share_bounces, tree)


def believes(account: Account, scope: int, before: tuple[Row, ...], told: Sequence[Change], now: int, tree: Tree = SMALL) -> bool:
    """What an account holds about a mapped scope: the latest it has just told us of that very scope, else the answer before the call."""
    said = (change for change in told if change.by == account.name and change.scope == scope)
    heard = sorted(said, key=lambda change: change.happened_at)
    return heard[-1].effect == STOP if heard else answer(scope, before, now, account.share_bounces, tree)
