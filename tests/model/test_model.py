"""The oracle itself is tested: every history of up to five Changes of eleven kinds, against a second formulation and its invariants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, permutations, product
from random import Random

import pytest

from .kinds import ELEVEN, EPOCH, MORE, TELLER, TICK, moments
from .oracle import (
    BOUNCE,
    CHOICE,
    COMPLAINT,
    ENDING,
    EVERY_DOOR,
    GO,
    GRANT,
    HOUR,
    MARKETING,
    MAY_SET,
    NEWSLETTER,
    NOTE,
    OFFERS,
    ORDERS,
    OWN_STOPS,
    PARTNERS,
    PAUSE,
    SMALL,
    STOP,
    STUDIES,
    SURE,
    UNDO,
    WITHDRAW,
    Account,
    Change,
    Row,
    Summary,
    allowed,
    answer,
    entitled,
    fold,
    is_own,
    kept,
    owed,
    reasons,
    record,
    summary,
)

TOPICS = (NEWSLETTER, OFFERS, ORDERS)
LATER_TOPIC = 277  # a topic that nobody has chosen anything about


@dataclass(frozen=True, slots=True)
class History:
    """One history: its last step, the ledger and summary after it, and the history it continues."""

    before: History | None
    kind: str
    change: Change
    now: int
    rows: tuple[Row, ...]
    summary: Summary
    added: bool
    unspared: tuple[Row, ...]  # the ledger had every press added a row

    @property
    def rows_before(self) -> tuple[Row, ...]:
        return self.before.rows if self.before else ()


@cache
def histories(length: int) -> tuple[History, ...]:
    """Every history of exactly this length. Each continues one that is a step shorter, so no work is done twice."""
    now = EPOCH + (length - 1) * TICK
    starts: Iterable[History | None] = histories(length - 1) if length > 1 else (None,)
    return tuple(_step(before, kind, length - 1, now) for before in starts for kind in ELEVEN)


def _step(before: History | None, kind: str, step: int, now: int) -> History:
    rows = before.rows if before else ()
    change = ELEVEN[kind](step, now, rows)
    after, (added,) = record(rows, [change], now)
    unspared = before.unspared if before else ()
    if added:
        unspared = (*unspared, after[-1])
    elif all(row.evidence != change.evidence for row in rows):
        unspared = (*unspared, kept(change, max(now, *(row.at + 1 for row in unspared)), now))
    return History(before, kind, change, now, after, summary(after), added, unspared)


def up_to(length: int) -> Iterator[History]:
    return (history for n in range(1, length + 1) for history in histories(n))


def decisions(told: Summary, now: int) -> tuple[bool, ...]:
    return tuple(allowed(topic, told, now) for topic in TOPICS)


# A second formulation, in the words of someone who reads a ledger from top to bottom


@dataclass(frozen=True, slots=True)
class Replayed:
    """What holds after reading the rows in the order of their times; at one time the stops come last, the longest last of all."""

    holds: dict[tuple[int, str], int | None]
    chosen: frozenset[int]  # topics turned on, with no stop of choice on them or above since

    def decides(self, topic: int, now: int) -> bool:
        on_path = [(cause, until) for (scope, cause), until in self.holds.items() if scope in SMALL.paths[topic]]
        speaks = [cause for cause, until in on_path if until is None or until > now]
        return not [cause for cause in speaks if not (cause == CHOICE and topic in self.chosen)]


def replay(rows: Iterable[Row]) -> Replayed:
    undone = {row.evidence[5:] for row in rows if row.effect == WITHDRAW}
    real = [row for row in rows if not (row.evidence in undone and is_own(row.effect, row.door, row.cause) and row.effect == STOP)]
    holds: dict[tuple[int, str], int | None] = {}
    chosen = set[int]()
    for row in sorted(real, key=lambda row: (row.at, row.effect == STOP, row.until or 0)):
        if row.effect == STOP:
            holds[row.scope, row.cause] = row.until
            if row.cause == CHOICE:
                chosen -= {topic for topic in chosen if row.scope in SMALL.paths[topic]}
        elif row.effect == GO:
            holds.pop((row.scope, row.cause), None)
            if row.cause == CHOICE and len(SMALL.paths[row.scope]) == 4:
                chosen.add(row.scope)
    return Replayed(holds, frozenset(chosen))


def summed_up(rows: Sequence[Row]) -> Summary:
    """The summary by the second formulation."""
    seen = replay(rows)
    lasting = [(scope, cause) for (scope, cause), until in seen.holds.items() if until is None]
    spoilt = {scope for scope, cause in lasting if cause != CHOICE}
    gone = {row.scope for row in rows if row.effect == GO and row.cause == CHOICE and len(SMALL.paths[row.scope]) == 4}
    shown = gone | {row.scope for row in rows if row.effect == GRANT and row.door != "import"}
    return Summary(
        stops=tuple(sorted({scope for scope, _ in lasting})) or None,
        goes=tuple(sorted(topic for topic in seen.chosen if not spoilt & set(SMALL.paths[topic]))) or None,
        pauses=tuple(sorted((scope, until) for (scope, _), until in seen.holds.items() if until is not None)) or None,
        grants=tuple(sorted(shown)) or None,
        claims=tuple(sorted({row.scope for row in rows if row.effect == GRANT} - shown)) or None,
    )


def test_there_are_177155_histories_and_in_each_the_fold_is_the_replay() -> None:
    seen = 0
    for history in up_to(5):
        told = replay(history.rows)
        assert history.summary == summed_up(history.rows), history
        assert decisions(history.summary, history.now) == tuple(told.decides(topic, history.now) for topic in TOPICS), history
        seen += 1
    assert seen == sum(11**n for n in range(1, 6)) == 177_155


def test_every_kind_matters_and_every_answer_comes_up() -> None:
    seen = {(history.kind, decisions(history.summary, history.now)) for history in up_to(4)}
    assert {kind for kind, _ in seen} == set(ELEVEN)
    assert {answers for _, answers in seen} == {
        (True, True, True),
        (False, True, True),
        (False, False, True),
        (True, False, True),
        (False,) * 3,
    }


def _instead(change: Callable[[Row], Row]) -> Callable[[Sequence[Row]], list[Row]]:
    return lambda rows: [change(row) for row in rows]


WRONG_RULES: dict[str, Callable[[Sequence[Row]], list[Row]]] = {
    "an import lifts a stop": _instead(lambda row: replace(row, effect=GO) if row.effect == GRANT else row),
    "a tie goes to the go": _instead(lambda row: replace(row, at=row.at - 1) if row.effect == STOP else row),
    "a bounce sits on marketing": _instead(lambda row: replace(row, scope=MARKETING) if row.cause == BOUNCE else row),
    "a complaint is a choice": _instead(lambda row: replace(row, cause=CHOICE) if row.cause == COMPLAINT else row),
    "an undo takes back nothing": lambda rows: [row for row in rows if row.effect != WITHDRAW],
    "an undo turns its scope on": lambda rows: [replace(row, effect=GO) if row.effect == WITHDRAW else row for row in rows],
    "the last to arrive wins": lambda rows: [replace(row, at=n) for n, row in enumerate(rows)],
    "the greatest until of all wins": lambda rows: [
        replace(row, until=max(r.until or 0 for r in rows if r.cause == PAUSE)) if row.cause == PAUSE and row.effect == STOP else row
        for row in rows
    ],
}  # fmt: skip


@pytest.mark.parametrize("rule", WRONG_RULES)
def test_a_wrong_rule_is_found_out_by_the_replay(rule: str) -> None:
    """The control: each of these must differ somewhere, or the comparison above proves nothing."""
    worlds = (history.rows for history in up_to(3)) if rule != "the greatest until of all wins" else _pauses_in_turn()
    assert any(summary(WRONG_RULES[rule](rows)) != summed_up(rows) for rows in worlds)


def _pauses_in_turn() -> Iterator[tuple[Row, ...]]:
    """A long pause, perhaps ended, and then a short one."""
    for kinds in product(("newsletter paused for five ticks", "manage ends the pause", "newsletter paused for two ticks"), repeat=3):
        rows: tuple[Row, ...] = ()
        for step, now in enumerate(moments(3)):
            rows, _ = record(rows, [MORE[kinds[step]](step, now, rows)], now)
        yield rows


# Order and number change nothing: I3, I4


def test_the_order_of_the_rows_changes_nothing() -> None:
    random = Random(5)
    for history in up_to(3):
        assert {summary(order) for order in permutations(history.rows)} == {history.summary}, history.rows
    for history in (*histories(4), *histories(5)):
        rows = history.rows
        assert summary(rows[::-1]) == history.summary == summary(random.sample(rows, len(rows))), rows
    for history in random.sample(histories(5), 1000):
        assert {summary(order) for order in permutations(history.rows)} == {history.summary}, history.rows


def test_the_order_in_which_facts_from_outside_arrive_changes_nothing() -> None:
    """Whatever is told late, twice, together or apart: one standing."""
    outside = [kind for kind in ELEVEN if "provider" in kind or "late" in kind or "import" in kind]
    for length in (2, 3, 4):
        for kinds in product(outside, repeat=length):
            changes = [ELEVEN[kind](step, now, ()) for step, (kind, now) in enumerate(zip(kinds, moments(length), strict=True))]
            end = EPOCH + 9 * TICK
            one, _ = record((), changes, end)
            for order in permutations(changes):
                for cut in range(length):
                    first, _ = record((), order[:cut], end)
                    both, _ = record(first, [*order[cut:], *order[:1]], end + TICK)
                    assert summary(both) == summary(one)


def test_changes_of_one_moment_mean_the_same_together_and_apart() -> None:
    for kinds in product(ELEVEN, repeat=3):
        outcomes = set()
        for cuts in ((), (1,), (2,), (1, 2)):
            rows: tuple[Row, ...] = ()
            changes = [MORE[kind](step, EPOCH, ()) for step, kind in enumerate(kinds)]
            for start, end in zip((0, *cuts), (*cuts, 3), strict=True):
                rows, _ = record(rows, changes[start:end], EPOCH)
            outcomes.add(summary(rows))
        assert len(outcomes) == 1, kinds


def test_the_same_fact_twice_is_one_row() -> None:
    for history in up_to(4):
        if history.added:
            again, added = record(history.rows, [history.change, history.change], history.now + TICK)
            assert (again, added) == (history.rows, (False, False))


def test_a_press_that_adds_no_row_would_have_changed_nothing() -> None:
    spared = 0
    for history in up_to(5):
        if history.unspared != history.rows:
            assert summary(history.unspared) == history.summary, history
            spared += 1
    assert spared > 1000


# What may open and what may close: I1, I5, I6, I7, I10

OPENS = {
    "manage turns newsletter on": {NEWSLETTER},
    "manage turns marketing on": {NEWSLETTER, OFFERS, LATER_TOPIC},
    "staff lift the bounce, dated in the future": {NEWSLETTER, OFFERS, ORDERS, LATER_TOPIC},
    "undo": {NEWSLETTER, OFFERS, LATER_TOPIC},
}
CLOSES = {
    "link stops newsletter": {NEWSLETTER},
    "page stops all marketing": {NEWSLETTER, OFFERS, LATER_TOPIC},
    "provider's unsubscribe, two ticks late": {NEWSLETTER},
    "complaint": {NEWSLETTER, OFFERS, LATER_TOPIC},
    "bounce, a tick late": {NEWSLETTER, OFFERS, ORDERS, LATER_TOPIC},
    "newsletter paused for two ticks": {NEWSLETTER},
}
GROWN = replace(
    SMALL, paths={**SMALL.paths, LATER_TOPIC: (*SMALL.paths[MARKETING], LATER_TOPIC)}, wanted={**SMALL.wanted, LATER_TOPIC: "opt-out"}
)


def flips(history: History) -> Iterator[tuple[int, bool]]:
    """The topics whose answer the last step turned, a topic of tomorrow among them, and what they turned to."""
    told = history.before.summary if history.before else Summary()
    for topic in (*TOPICS, LATER_TOPIC):
        after = allowed(topic, history.summary, history.now, tree=GROWN)
        if after is not allowed(topic, told, history.now, tree=GROWN):
            yield topic, after


def test_only_an_entitled_act_opens_and_a_stop_closes_only_what_is_under_it() -> None:
    opened, closed = set[tuple[str, int]](), set[tuple[str, int]]()
    for history in up_to(5):
        for topic, opens in flips(history):
            assert topic in (OPENS if opens else CLOSES).get(history.kind, ()), history
            (opened if opens else closed).add((history.kind, topic))
    assert opened == {(kind, topic) for kind, topics in OPENS.items() for topic in topics}
    assert closed == {(kind, topic) for kind, topics in CLOSES.items() for topic in topics}


def test_one_stop_more_never_opens_anything() -> None:
    """Wherever in the history it is put, and whenever one asks. A pause counts until it ends: the latest press of a pause is its length."""
    for history in up_to(4):
        for row in history.rows:
            if row.effect == STOP and row.cause not in ENDING:
                without = summary(other for other in history.rows if other is not row)
                for now in (history.now, history.now + 2 * TICK):
                    more, less = decisions(history.summary, now), decisions(without, now)
                    assert all(is_open or not still for still, is_open in zip(more, less, strict=True)), (history, row)


def test_the_recipient_has_the_last_word_among_choices() -> None:
    """Right after an acknowledged stop its topics are denied; right after a go the topic is open but for other causes."""
    for history in up_to(5):
        _last_word(history.change, history.rows, history.summary, history.now)


def test_no_clock_takes_back_an_acknowledged_stop() -> None:
    random = Random(12)
    for _ in range(8000):
        rows: tuple[Row, ...] = ()
        for step, now in enumerate(moments(8, random)):
            change = MORE[random.choice(list(MORE))](step, now, rows)
            rows, _ = record(rows, [change], now)
            _last_word(change, rows, summary(rows), now)


def _last_word(change: Change, rows: Sequence[Row], told: Summary, now: int) -> None:
    if any(row.evidence == f"undo:{change.evidence}" for row in rows) or not is_own(change.effect, change.door, change.cause):
        return
    under = [topic for topic in SMALL.topics() if change.scope in SMALL.paths[topic]]
    if change.effect == STOP:
        assert not any(allowed(topic, told, now) for topic in under), (change, rows)
    elif change.cause == CHOICE:
        others = {scope for (scope, cause), it in fold(rows).by_node.items() if cause not in ENDING | {CHOICE} and it.held}
        expected = [topic for topic in under if topic == change.scope and not others & set(SMALL.paths[topic])]
        assert [topic for topic in under if topic in (told.goes or ()) and topic == change.scope] == expected, (change, rows)


def test_where_all_happened_at_once_every_stop_holds() -> None:
    for history in up_to(4):
        rows = [replace(row, at=EPOCH) for row in history.rows]
        undone = {row.evidence.removeprefix("undo:") for row in rows if row.effect == WITHDRAW}
        lasting = {row.scope for row in rows if row.effect == STOP and row.until is None and row.evidence not in undone}
        assert (summary(rows).stops, summary(rows).goes) == (tuple(sorted(lasting)) or None, _never_stopped(rows, lasting))


def _never_stopped(rows: Sequence[Row], stopped: set[int]) -> tuple[int, ...] | None:
    gone = {row.scope for row in rows if row.effect == GO and row.cause == CHOICE and len(SMALL.paths[row.scope]) == 4}
    return tuple(sorted(topic for topic in gone if not stopped & set(SMALL.paths[topic]))) or None


def test_nothing_takes_effect_later_than_it_was_received() -> None:
    for history in up_to(4):
        assert all(row.at <= row.received_at for row in history.rows if not is_own(row.effect, row.door, row.cause))


def test_an_unknown_topic_is_denied() -> None:
    assert not allowed(4711, Summary(), EPOCH)
    assert [reason.cause for reason in reasons(4711, (), EPOCH)] == ["unknown_topic"]
    assert not allowed(MARKETING, Summary(), EPOCH)


# The wall, the causes, the topics: I8, I9, I10


def test_what_happens_to_marketing_never_touches_receipts() -> None:
    for history in up_to(5):
        other = summary(row for row in history.rows if not SMALL.marketing(row.scope))
        assert allowed(ORDERS, history.summary, history.now) is allowed(ORDERS, other, history.now), history


def test_each_cause_stands_for_itself() -> None:
    for history in up_to(5):
        registers = fold(history.rows).by_node
        for spared in {cause for _, cause in registers}:
            others = fold(row for row in history.rows if row.cause != spared or row.effect == WITHDRAW).by_node
            assert others == {node: register for node, register in registers.items() if node[1] != spared}, history


def test_a_topic_s_own_history_is_nothing_to_another_topic() -> None:
    for history in up_to(5):
        other = summary(row for row in history.rows if row.scope != NEWSLETTER)
        assert allowed(OFFERS, history.summary, history.now) is allowed(OFFERS, other, history.now), history


def test_a_hold_has_a_reason_and_a_reason_a_hold() -> None:
    for history in up_to(4):
        for topic in TOPICS:
            why = reasons(topic, history.rows, history.now)
            assert allowed(topic, history.summary, history.now) is (not why)
            assert all(reason.scope in SMALL.paths[topic] and (reason.until or history.now + 1) > history.now for reason in why)


# Consent, §2 and §3


@pytest.mark.parametrize(
    ("effect", "door", "opt_in", "double"),
    [(GO, "manage", True, True), (GRANT, "manage", True, True), (GRANT, "sms", True, True), (GRANT, "import", True, False)],
)
def test_an_imported_consent_satisfies_opt_in_and_never_double_opt_in(effect: str, door: str, opt_in: bool, double: bool) -> None:
    rows, _ = record((), [Change(PARTNERS, CHOICE, effect, door, "1", EPOCH)], EPOCH)
    assert allowed(PARTNERS, rows, EPOCH, "opt-in") is opt_in
    assert allowed(PARTNERS, rows, EPOCH, "double-opt-in") is double
    assert not allowed(STUDIES, rows, EPOCH, "opt-in")


def test_an_import_beside_a_confirmed_consent_is_no_claim() -> None:
    rows, _ = record((), [Change(PARTNERS, CHOICE, GRANT, door, "1", EPOCH) for door in ("import", "sms")], EPOCH)
    assert (summary(rows).grants, summary(rows).claims) == ((PARTNERS,), None)


def test_marketing_by_sms_always_wants_consent() -> None:
    assert [SMALL.asks(topic, "sms") for topic in (NEWSLETTER, STUDIES, ORDERS)] == ["opt-in", "double-opt-in", "opt-out"]
    assert [SMALL.asks(topic) for topic in (NEWSLETTER, STUDIES, ORDERS)] == ["opt-out", "double-opt-in", "opt-out"]


# Undo, §5


def test_an_undo_is_a_withdrawal_of_one_own_stop_and_of_nothing_else() -> None:
    """For every door and effect: the history is as if that very stop had never been, or as if there had been no undo."""
    for door, effect, scope in product(sorted(EVERY_DOOR), (STOP, GO, GRANT), (NEWSLETTER, MARKETING)):
        named = Change(scope, CHOICE, effect, door, "named", EPOCH)
        others = [Change(NEWSLETTER, CHOICE, STOP, "provider", "p", EPOCH - 1), Change(OFFERS, CHOICE, STOP, "link", "l", EPOCH)]
        back = Change(scope, CHOICE, WITHDRAW, "page", named.evidence, EPOCH)
        for changes in ([named, back, *others], [back, *others, named]):
            rows, _ = record((), changes, EPOCH)
            taken = is_own(effect, door, CHOICE) and effect == STOP
            expected, _ = record((), others if taken else [change for change in changes if change is not back], EPOCH)
            assert summary(rows) == summary(expected), (door, effect, scope)


def test_an_undo_of_all_that_was_leaves_nothing_to_say() -> None:
    rows, _ = record((), [Change(NEWSLETTER, CHOICE, STOP, "page", "1", EPOCH)], EPOCH)
    rows, _ = record(rows, [Change(NEWSLETTER, CHOICE, WITHDRAW, "page", "page:1", EPOCH)], EPOCH)
    assert (len(rows), summary(rows)) == (2, Summary())


# A repeated press, §5


@pytest.mark.parametrize(
    ("first", "later", "door", "between", "adds"),
    [
        ("page", SURE + 1, "page", None, False),
        ("page", SURE, "page", None, True),  # the first might still be undone
        ("link", 0, "link", None, False),  # nobody can undo a one-click
        ("link", UNDO + 1, "page", None, True),  # through another door
        ("link", UNDO + 1, "link", NEWSLETTER, True),  # a go since, under the scope
        ("link", UNDO + 1, "link", MARKETING, True),  # a go since, at the scope
        ("link", UNDO + 1, "link", ORDERS, False),  # a go elsewhere
    ],
)
def test_a_repeated_press_adds_a_row_unless_nothing_could_come_of_it(
    first: str, later: int, door: str, between: int | None, adds: bool
) -> None:
    rows, _ = record((), [Change(MARKETING, CHOICE, STOP, first, "1", EPOCH)], EPOCH)
    if between:
        rows, _ = record(rows, [Change(between, CHOICE, GO, "manage", "2", EPOCH + 1)], EPOCH + 1)
    _, added = record(rows, [Change(MARKETING, CHOICE, STOP, door, "3", EPOCH + later)], EPOCH + later)
    assert added == (adds,)


@pytest.mark.parametrize("door", sorted(OWN_STOPS))
def test_a_go_told_late_never_opens_what_was_stopped_since(door: str) -> None:
    """START counts from when it was sent: a stop after it, acknowledged before it arrived, must have left a row."""
    rows, _ = record((), [Change(MARKETING, CHOICE, STOP, "sms", "1", EPOCH)], EPOCH)
    rows, _ = record(rows, [Change(MARKETING, CHOICE, STOP, door, "2", EPOCH + 2 * HOUR)], EPOCH + 2 * HOUR)
    rows, _ = record(rows, [Change(MARKETING, CHOICE, GO, "sms", "3", EPOCH + HOUR)], EPOCH + 3 * HOUR)
    assert not allowed(NEWSLETTER, rows, EPOCH + 3 * HOUR)


def test_a_go_in_the_same_call_makes_the_press_after_it_count() -> None:
    rows, _ = record((), [Change(NEWSLETTER, CHOICE, STOP, "link", "1", EPOCH)], EPOCH)
    later = EPOCH + HOUR
    pair = [Change(NEWSLETTER, CHOICE, GO, "manage", "2", later), Change(NEWSLETTER, CHOICE, STOP, "link", "3", later)]
    rows, added = record(rows, pair, later)
    assert added == (True, True)
    assert not allowed(NEWSLETTER, rows, later)


# The kinds are such as the table of §2 lets in


def test_the_histories_are_made_of_what_the_doors_may_do() -> None:
    assert all(entitled(MORE[kind](0, EPOCH, ())) for kind in MORE)
    assert set().union(*MAY_SET.values()) == EVERY_DOOR


# Who must be told, §6

POST = Account(TELLER, (NEWSLETTER, OFFERS))
BELL = Account("bell", (MARKETING, NEWSLETTER))
OPEN = Account("open", (NEWSLETTER,), share_bounces=True)
ACCOUNTS = (POST, BELL, OPEN)


def told_after(rows: tuple[Row, ...], change: Change, now: int = EPOCH) -> tuple[tuple[Row, ...], frozenset[tuple[str, int, bool]]]:
    after, (added,) = record(rows, [change], now)
    return after, owed(rows, after, [change] if added else [], ACCOUNTS, now)


def test_a_stop_of_marketing_reaches_the_groups_of_every_topic() -> None:
    _, told = told_after((), Change(MARKETING, CHOICE, STOP, "link", "1", EPOCH))
    assert told == {(account.name, scope, True) for account in ACCOUNTS for scope in account.mapped}


def test_the_teller_is_not_told_what_it_told_us_and_the_others_are() -> None:
    _, told = told_after((), Change(NEWSLETTER, CHOICE, STOP, "provider", "1", EPOCH, by=TELLER))
    assert told == {("bell", NEWSLETTER, True), ("open", NEWSLETTER, True)}


def test_a_provider_that_says_resubscribed_is_told_stop_again() -> None:
    rows, _ = record((), [Change(NEWSLETTER, CHOICE, STOP, "link", "1", EPOCH)], EPOCH)
    _, told = told_after(rows, Change(NEWSLETTER, CHOICE, NOTE, "provider", "2", EPOCH, by=TELLER))
    assert told == {(TELLER, NEWSLETTER, True)}


def test_a_late_unsubscribe_that_changes_nothing_is_answered_with_go() -> None:
    rows, _ = record((), [Change(NEWSLETTER, CHOICE, GO, "manage", "1", EPOCH)], EPOCH)
    _, told = told_after(rows, Change(NEWSLETTER, CHOICE, STOP, "provider", "2", EPOCH - 1, by=TELLER))
    assert told == {(TELLER, NEWSLETTER, False)}


def test_a_repeated_event_tells_nobody() -> None:
    event = Change(NEWSLETTER, CHOICE, STOP, "provider", "1", EPOCH, by=TELLER)
    rows, _ = told_after((), event)
    assert told_after(rows, event)[1] == frozenset()


def test_a_bounce_is_told_only_where_bounces_are_shared() -> None:
    bounce = Change(0, BOUNCE, STOP, "provider", "1", EPOCH, by=TELLER)
    assert told_after((), bounce)[1] == {("open", NEWSLETTER, True)}


def test_a_bounce_is_not_told_by_way_of_a_topic_that_was_chosen_back() -> None:
    """Its go closes with the bounce; providers that are told no bounces must see no difference."""
    rows, _ = record((), [Change(MARKETING, CHOICE, STOP, "page", "1", EPOCH), Change(NEWSLETTER, CHOICE, GO, "manage", "2", EPOCH)], EPOCH)
    _, told = told_after(rows, Change(0, BOUNCE, STOP, "provider", "3", EPOCH))
    assert told == {("open", NEWSLETTER, True)}


def test_providers_that_report_back_what_they_were_told_soon_fall_silent() -> None:
    """Whatever happened, in two rounds at most: an echo of a shared bounce reads as a choice, which the others must hear of."""
    rounds = set[int]()
    for history in up_to(3):
        rows, now = history.rows, history.now
        told = owed(history.rows_before, rows, [history.change] if history.added else [], ACCOUNTS, now)
        answers = 0
        while told and answers < 9:
            answers += 1
            heard = told
            told = frozenset()
            for account, scope, stop in sorted(heard):
                echo = Change(scope, CHOICE, STOP if stop else NOTE, "provider", f"{answers} {account} {scope}", now, by=account)
                after, _ = record(rows, [echo], now)
                told |= owed(rows, after, [echo], ACCOUNTS, now)
                rows = after
        rounds.add(answers)
    assert rounds == {0, 1, 2}


def test_whoever_is_told_all_that_is_owed_believes_the_answer() -> None:
    """I14: after each call and what it owes, every account's belief is the answer. Pauses apart, which end without a Change."""
    lasting = [kind for kind in MORE if MORE[kind](0, EPOCH, ()).cause not in ENDING]
    for kinds in product([kind for kind in ELEVEN if kind in lasting], repeat=3):
        _believe_the_answer(kinds, moments(3))
    random = Random(6)
    for _ in range(1500):
        _believe_the_answer(random.choices(lasting, k=8), moments(8, random))


def _believe_the_answer(kinds: Sequence[str], times: Iterable[int]) -> None:
    rows: tuple[Row, ...] = ()
    accounts = {account.name: account for account in ACCOUNTS}
    beliefs = {(account.name, scope): False for account in ACCOUNTS for scope in account.mapped}
    for step, (kind, now) in enumerate(zip(kinds, times, strict=True)):
        change = MORE[kind](step, now, rows)
        after, (added,) = record(rows, [change], now)
        if added and change.by is not None and (change.by, change.scope) in beliefs:
            beliefs[change.by, change.scope] = change.effect == STOP
        beliefs.update({(name, scope): stop for name, scope, stop in owed(rows, after, [change] if added else [], ACCOUNTS, now)})
        rows = after
        for (name, scope), belief in beliefs.items():
            assert belief is answer(scope, rows, now, accounts[name].share_bounces), (rows, name, scope)


def test_moments_are_not_all_a_tick_apart() -> None:
    steps = list(moments(60, Random(1)))
    gaps = {later - earlier for earlier, later in pairwise(steps)}
    assert min(gaps) < 0 < max(gaps)
    assert 0 in gaps
