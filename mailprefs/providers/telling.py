"""What every telling keeps to, whichever provider it is for: who can be told at all, in what time, and what a broken one leaves open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta

from mailprefs.providers.base import Barred, Outcome, Settlement, Slow, Telling, Unclear
from mailprefs.providers.calling import tellable

BUDGET = timedelta(seconds=25)  # that one tell may take; when it begins, at least 30 of the courier's lease are left
DONE = Settlement(Outcome.DONE)
REFUSED = frozenset({400, 413, 422})  # statuses that blame something in the request
REFUSALS = REFUSED | {404}  # where what is asked for is not named in the path, or is known to exist

Settled = dict[str, Settlement]  # by address, filled while the provider answers
Act = Callable[[str, bool, list[str], Settled], Awaitable[None]]  # group, stop, addresses, and where to write what became of them


async def told(tellings: Sequence[Telling], budget: timedelta, act: Act, *, fit: Callable[[str], bool] = tellable) -> list[Settlement]:
    """Let ``act`` tell whoever is ``fit`` to be told, each once, and return a settlement for each telling, in order.

    Whoever ``act`` has not settled when its time is up, or when it is Unclear what happened, is unknown. What else it raises goes on.
    """
    if not tellings:
        return []
    [(group, stop)] = {(telling.group, telling.stop) for telling in tellings}
    addresses = list(dict.fromkeys(telling.address for telling in tellings))
    settled = {address: Settlement(Outcome.REFUSED, "no_address") for address in addresses if not fit(address)}
    left = [address for address in addresses if address not in settled]
    detail = "too_late"
    try:
        async with asyncio.timeout(budget.total_seconds()):
            if left:
                await act(group, stop, left, settled)
    except TimeoutError:
        pass  # whoever is not settled by now is unknown
    except Unclear as trouble:
        detail = trouble.detail
    return [settled.get(telling.address) or Settlement(Outcome.UNKNOWN, detail) for telling in tellings]


async def each(addresses: Iterable[str], settled: Settled, one: Callable[[str], Awaitable[Settlement]]) -> None:
    """Tell one address after the other; what is unclear about one holds up nobody. Raises Slow and Barred while nobody is settled."""
    wanted = list(addresses)
    for address in wanted:
        try:
            settled[address] = await one(address)
        except Unclear as trouble:
            settled[address] = Settlement(Outcome.UNKNOWN, trouble.detail)
        except (Slow, Barred):
            if not any(address in settled for address in wanted):
                raise
            raise Unclear("cut_short") from None  # what became of the first ones must be told of, before why the others waited
