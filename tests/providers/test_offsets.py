"""A listing cut by numbers, while people come and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from mailprefs.providers import offsets
from mailprefs.providers.base import Unclear

SIZE = 50
EVERYONE = [f"p{n:03}" for n in range(220)]


@dataclass
class Provider:
    """Pages of a list that changes after each of them."""

    held: list[str]
    between: Callable[[list[str], int], None] = lambda held, page: None
    asked: list[int] = field(default_factory=list)

    async def ask(self, offset: int) -> offsets.Page:
        found = [{"id": each} for each in self.held[offset : offset + SIZE]], len(self.held)
        self.asked.append(offset)
        self.between(self.held, len(self.asked))
        return found

    async def walked(self) -> list[object]:
        return [entry["id"] async for entry in offsets.walk(self.ask, "id")]


@pytest.mark.parametrize("many", [0, 1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE - offsets.OVERLAP, 220])
async def test_a_list_that_stays_is_walked_once(many: int) -> None:
    provider = Provider(EVERYONE[:many])
    assert await provider.walked() == EVERYONE[:many]
    assert len(provider.asked) <= 1 + many // (SIZE - offsets.OVERLAP)


@pytest.mark.parametrize("leaving", range(offsets.OVERLAP))
async def test_nobody_is_passed_over_because_others_left(leaving: int) -> None:
    def leave(held: list[str], page: int) -> None:
        if page <= 3:
            del held[:leaving]

    walked = await Provider(list(EVERYONE), leave).walked()
    assert walked == EVERYONE  # who left had been seen


async def test_who_comes_meanwhile_is_behind_the_others() -> None:
    walked = await Provider(list(EVERYONE), lambda held, page: held.append(f"new{page}") if page < 4 else None).walked()
    assert walked == [*EVERYONE, "new1", "new2", "new3"]


async def test_the_last_of_a_page_may_be_the_one_who_left() -> None:
    walked = await Provider(list(EVERYONE), lambda held, page: held.remove("p049") if page == 1 else None).walked()
    assert walked == EVERYONE


async def test_a_list_that_moved_too_far_is_not_whole() -> None:
    def shuffle(held: list[str], page: int) -> None:
        del held[: SIZE + offsets.OVERLAP]

    with pytest.raises(Unclear) as unclear:
        await Provider(list(EVERYONE), shuffle).walked()
    assert unclear.value.detail == "moved"


async def test_without_an_overlap_somebody_would_be_passed_over() -> None:
    def leave(held: list[str], page: int) -> None:
        del held[0]

    provider = Provider(list(EVERYONE), leave)
    naive: list[str] = []
    while page := (await provider.ask(len(naive)))[0]:
        naive += [str(entry["id"]) for entry in page]
    assert set(naive) < set(EVERYONE)  # the control


@pytest.mark.parametrize("total", [221, 10_000])
async def test_a_list_that_is_shorter_than_it_says_is_not_whole(total: int) -> None:
    provider = Provider(list(EVERYONE))

    async def ask(offset: int) -> offsets.Page:
        return (await provider.ask(offset))[0], total

    with pytest.raises(Unclear) as unclear:
        [_ async for _ in offsets.walk(ask, "id")]
    assert unclear.value.detail == "cut_short"


@pytest.mark.parametrize("entry", [{}, {"id": None}, {"id": []}, {"id": 1.5}])
async def test_an_entry_without_a_name_is_unclear(entry: dict[str, object]) -> None:
    async def ask(_: int) -> offsets.Page:
        return [entry], 1

    with pytest.raises(Unclear):
        [_ async for _ in offsets.walk(ask, "id")]
