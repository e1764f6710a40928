"""Whose fault a refusal is: pure, so that outages of every shape can be drawn."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from mailprefs import jury
from mailprefs.jury import Jury
from mailprefs.outbox import Push


def push(n: int) -> Push:
    return Push(0, UUID(int=n), 272)


def people(*numbers: int) -> list[Push]:
    return [push(n) for n in numbers]


def test_who_is_refused_beside_one_who_is_taken_is_guilty() -> None:
    each = Jury()
    each.hear(1, refused=people(1, 2))  # together
    each.hear(2, refused=people(1))
    each.hear(3, taken=people(2))
    assert each.guilty(people(1)) == {push(1)}


def test_one_answer_that_takes_some_and_refuses_one_is_enough() -> None:
    each = Jury()
    each.hear(1, taken=people(2), refused=people(1))
    assert each.guilty(people(1)) == {push(1)}


def test_what_was_taken_before_it_or_began_before_it_is_no_companion() -> None:
    each = Jury()
    each.hear(1, taken=people(*range(10, 99)))
    each.hear(3, refused=people(1))
    each.hear(2, taken=people(*range(100, 199)))  # its answer came later
    assert each.guilty(people(1)) == set()
    each.hear(3, taken=people(2))
    assert each.guilty(people(1)) == {push(1)}


def test_where_more_is_suspect_than_was_taken_nobody_is_guilty() -> None:
    each = Jury()
    each.hear(1, refused=people(1, 2, 3))
    each.hear(2, taken=people(4, 5))
    assert each.guilty(people(1, 2, 3)) == set()
    each.hear(3, taken=people(6))
    assert each.guilty(people(1, 2, 3)) == set(people(1, 2, 3))


def test_what_was_in_the_air_when_the_trouble_began_does_not_count() -> None:
    each = Jury()
    each.hear(3, refused=people(1, 2, 3))
    each.hear(2, taken=people(*range(10, 99)))
    each.hear(4, taken=people(4))
    assert each.guilty(people(1, 2, 3)) == set()


def test_who_is_refused_after_the_last_that_was_taken_is_not_guilty_beside_those_who_are() -> None:
    each = Jury()
    each.hear(1, refused=people(1))
    each.hear(2, taken=people(*range(10, 99)))
    each.hear(3, refused=people(2))
    assert each.guilty(people(1, 2)) == {push(1)}


def test_those_who_were_taken_in_one_trouble_say_nothing_in_the_next() -> None:
    each = Jury()
    each.hear(1, refused=people(1))
    each.hear(2, taken=people(*range(10, 99)))
    assert each.guilty(people(1)) == {push(1)}
    each.hear(3, refused=people(2, 3))
    each.hear(4, taken=people(4))
    assert each.guilty(people(2, 3)) == set()


def test_who_is_taken_after_all_is_no_suspect_and_a_new_suspicion_begins_anew() -> None:
    each = Jury()
    each.hear(1, refused=people(1, 2, 3, 4))
    each.hear(2, taken=people(1, 2, 3, 4))
    each.hear(3, refused=people(5))
    assert each.guilty(people(5)) == set()


def test_a_verdict_is_given_once() -> None:
    each = Jury()
    each.hear(1, taken=people(2), refused=people(1))
    assert (each.guilty(people(1)), each.guilty(people(1))) == ({push(1)}, set())


def test_an_outage_of_a_million_is_remembered_in_a_thousand() -> None:
    each = Jury()
    for n in range(3 * jury.MOST):
        each.hear(n, refused=people(n))
    assert len(each._suspects) == jury.MOST
    each.hear(9e9, taken=people(*range(9_000_000, 9_000_000 + jury.MOST)))
    assert each.guilty(people(0)) == set()  # long forgotten: only doubted
    assert each.guilty(people(3 * jury.MOST - 1)) == set(people(3 * jury.MOST - 1))


TAKEN_OR_REFUSED = st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60)


@given(TAKEN_OR_REFUSED, st.lists(st.integers(31, 60), min_size=1, max_size=3))
def test_whatever_came_before_an_outage_convicts_nobody_new(before: list[tuple[bool, int]], refused: list[int]) -> None:
    each = Jury()
    for begun, (taken, who) in enumerate(before):
        each.hear(begun, taken=people(who) if taken else (), refused=() if taken else people(who))
    for begun, who in enumerate(refused, len(before)):
        each.hear(begun, refused=people(who))
    assert each.guilty(people(*refused)) == set()


@given(TAKEN_OR_REFUSED)
def test_the_guilty_are_never_more_than_were_taken(history: list[tuple[bool, int]]) -> None:
    each, taken_in_all = Jury(), 0
    for begun, (taken, who) in enumerate(history):
        each.hear(begun, taken=people(who) if taken else (), refused=() if taken else people(who))
        taken_in_all += taken
    assert len(each.guilty(people(*range(31)))) <= taken_in_all
