"""The benchmarks: what a line of the table says, and what can be set. What they measure is no test's affair."""

from __future__ import annotations

from dataclasses import fields
from itertools import count

import pytest

from benchmarks.client import request
from benchmarks.figures import turn_by_turn
from benchmarks.filtering import staying
from benchmarks.options import Options


async def test_a_figure_is_the_median_of_its_turns_each_beside_its_own_limit() -> None:
    ours, limits = iter([9.0, 4.0, 2.0, 6.0]), iter([1.0, 8.0, 8.0, 8.0])

    async def run() -> float:
        return next(ours)

    async def limit() -> float:
        return next(limits)

    measured = await turn_by_turn(3, ours=run, limit=limit)  # the very first does not count
    figure = measured.figure("a path", "ours", "limit", 0.5, unit="a second", beside="a limit")
    assert (figure.figure, figure.limit, figure.ratio, figure.holds) == (4.0, 8.0, 0.5, True)
    assert figure.spelled() == {"path": "a path", "figure": 4.0, "limit": 8.0, "ratio": 0.5, "target": 0.5, "holds": True}
    assert not measured.figure("a path", "ours", "limit", 0.51, unit="", beside="").holds
    assert measured.figure("a path", "ours", "limit", 0.5, unit="", beside="", most=True).holds
    assert not measured.figure("a path", "ours", "limit", 0.49, unit="", beside="", most=True).holds


async def test_turns_alternate_so_that_what_else_the_machine_does_falls_on_all_alike() -> None:
    order: list[str] = []

    async def run(name: str) -> float:
        order.append(name)
        return 1.0

    await turn_by_turn(2, a=lambda: run("a"), b=lambda: run("b"))
    assert order == ["a", "b"] * 3


def test_every_size_can_be_set_and_quick_takes_smaller_ones() -> None:
    assert Options.read({}) == Options()
    assert Options.read({"QUICK": "1"}).rows < Options().rows
    assert Options.read({"QUICK": "0", "BENCH_ROWS": "50000000"}).rows == 50_000_000
    numbers = count(1)
    every = {each.name: next(numbers) for each in fields(Options)}
    assert Options.read({"QUICK": "1", **{f"BENCH_{name.upper()}": str(n) for name, n in every.items()}}) == Options(**every)


@pytest.mark.parametrize(("rows", "found"), [(10, 9), (11, 9), (20, 18), (1_234_567, 1_111_110)])
def test_of_any_number_of_candidates_as_many_come_out_as_have_not_left(rows: int, found: int) -> None:
    """The first has left, and every tenth behind it."""
    assert staying(rows) == found


@pytest.mark.parametrize("body", [b"", b"List-Unsubscribe=One-Click"])
def test_a_request_says_how_long_its_body_is(body: bytes) -> None:
    head, _, sent = request("/u/x", body, {"A": "b"}).partition(b"\r\n\r\n")
    assert sent == body
    assert head.split(b"\r\n") == [b"POST /u/x HTTP/1.1", b"Host: go.example.com", b"Content-Length: %d" % len(body), b"A: b"]
