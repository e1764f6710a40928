"""What the suite of telling must know of a provider. A new one is one module ``teller_<name>`` beside this one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from aiohttp import ClientSession, ClientTimeout

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential, Listed, Outcome, Provider, Settlement, Telling

TOLD = [name for name, provider in PROVIDERS.items() if isinstance(provider, Provider)]
PATIENT = ClientTimeout(total=60)  # seconds; of what is asked of the sandbox itself, and of a listing: a busy machine is no fault
USUAL = frozenset({"Host", "Accept", "Accept-Encoding", "User-Agent", "Content-Length", "Content-Type"})
DONE = Settlement(Outcome.DONE)
TRICKY = ("../../x/@example.com", "..%2f..@example.com", "%2e%2e/@example.com", "?a=@example.com", "#@example.com", "*@example.com")


def nothing(body: str) -> bool:
    return not body


@dataclass(frozen=True)
class Documented:
    """One request as the provider documents it. The path is a pattern, behind the sandbox's own prefix, with its query."""

    method: str
    path: str
    body: Callable[[str], bool] = nothing
    asks: bool = False  # a question, though it is no GET

    def fits(self, method: str, path: str, body: str) -> bool:
        return method == self.method and re.fullmatch(self.path, path) is not None and self.body(body)


@dataclass(frozen=True)
class Unfit:
    """A mapping or an account at the provider that would do harm: it is told nothing."""

    says: str  # in the error: a pattern that names what is wrong
    group: str | None = None  # the group that is mapped in place of the usual one
    state: Callable[[Any], Any] | None = None  # what is changed at the provider


@dataclass(frozen=True)
class Teller:
    """One provider under the promises of telling."""

    provider: Provider
    credential: Credential  # sound; its scopes map to ``groups``
    groups: tuple[str, ...]  # two that the sandbox has from the start, or the only one that the provider has
    documented: Sequence[Documented]  # every request that may leave
    held: Callable[[Any, str], Sequence[str]]  # the sandbox's state, a group → who is stopped in it
    holding: Callable[[Mapping[str, Sequence[str]]], Any]  # group → who is stopped in it, as the sandbox's state
    blocked: Callable[[Any], Sequence[str]]  # the sandbox's state → who gets no transactional mail any more
    blocking: Any  # the control: a state in which ``blocked`` finds somebody
    unfit: Mapping[str, Unfit]
    refused: Sequence[str] = ()  # groups that ``check`` refuses already
    headers: frozenset[str] = frozenset()  # that it wants beside the usual ones, its keys apart
    addresses: Sequence[str] = ("a@example.com", "b+c/d?e#f@example.com", "Élise@example.com", "200%@example.com")
    page: int = 0  # entries in one page of a listing; 0: it has no pages
    many: int = 2_000  # entries of a long listing
    named: bool = True  # a request names its group; else there is but one
    reads_back: bool = False  # it looks whether a write is there before it calls it done: no lie gets through
    tricky: Sequence[str] = TRICKY  # addresses with letters that mean something in a path, or whatever is tricky here
    lists: bool = True  # it shows whom it holds; else its ``pull`` says that it does not

    @property
    def name(self) -> str:
        return self.provider.name


def teller_of(name: str) -> Teller:
    """Return what is known of a provider that is told. One without it has kept no promise: the suite fails."""
    teller = import_module(f".teller_{name}", __package__).TELLER
    assert isinstance(teller, Teller)
    assert teller.provider is PROVIDERS[name]
    return teller


@dataclass(frozen=True)
class Box:
    """The simulated provider, and the account that points to it."""

    http: ClientSession
    root: str
    teller: Teller
    credential: Credential

    @classmethod
    def at(cls, root: str, http: ClientSession, teller: Teller) -> Box:
        return cls(http, root, teller, replace(teller.credential, api_base=f"{root}/{teller.name}"))

    async def faults(self, *queue: object) -> None:
        async with self.http.post(f"{self.root}/_sandbox/faults", json={"queue": queue}, timeout=PATIENT) as answer:
            assert answer.status == 200

    async def listing_faults(self, *queue: Mapping[str, object]) -> None:
        await self.faults(*({**fault, "listing": True} for fault in queue))

    async def shown(self, what: str) -> Any:
        async with self.http.get(f"{self.root}/_sandbox/{what}", timeout=PATIENT) as answer:
            return await answer.json()

    async def state(self) -> Any:
        return (await self.shown("state"))[self.teller.name]

    async def put(self, state: Any) -> None:
        async with self.http.put(f"{self.root}/_sandbox/state", json={self.teller.name: state}, timeout=PATIENT) as answer:
            assert answer.status == 200, await answer.text()

    async def hold(self, **more: Sequence[str]) -> None:
        """Put people on the provider's own list: ``first`` and ``second`` are the two groups."""
        ordered = zip(("first", "second"), self.teller.groups, strict=False)
        await self.put(self.teller.holding({group: more.get(which, ()) for which, group in ordered}))

    async def holds(self, group: str | None = None) -> list[str]:
        """Return who is stopped in the group. In no test that ends well is anyone's transactional mail blocked."""
        state = await self.state()
        assert not self.teller.blocked(state)
        return list(self.teller.held(state, group or self.teller.groups[0]))

    async def requests(self) -> list[dict[str, Any]]:
        """Return every request so far, its path without the sandbox's prefix."""
        return [each | {"path": each["path"].removeprefix(f"/{self.teller.name}")} for each in await self.shown("requests")]

    async def undocumented(self) -> list[str]:
        """Return the requests so far that the provider documents nowhere."""
        return [
            f"{each['method']} {each['path']} {each['body']}"
            for each in await self.requests()
            if not any(known.fits(each["method"], each["path"], each["body"]) for known in self.teller.documented)
        ]

    async def writes(self) -> list[dict[str, Any]]:
        """Return every request so far that is more than a question."""
        questions = [known for known in self.teller.documented if known.asks or known.method == "GET"]
        asked = await self.requests()
        return [each for each in asked if not any(known.fits(each["method"], each["path"], each["body"]) for known in questions)]

    async def tell(
        self, stop: bool, addresses: Iterable[str], group: str | None = None, credential: Credential | None = None
    ) -> list[Settlement]:
        tellings = [Telling(address, self.teller.groups[0] if group is None else group, stop) for address in addresses]
        return await self.teller.provider.tell(self.http, credential or self.credential, tellings)

    async def tell_all(self, stop: bool, addresses: Sequence[str], group: str | None = None) -> list[Settlement]:
        """Tell in requests as large as the provider takes, as the courier would."""
        size = self.teller.provider.batch
        told = [await self.tell(stop, addresses[n : n + size], group) for n in range(0, len(addresses), size)]
        return [settlement for batch in told for settlement in batch]

    async def pulled(self, group: str | None = None) -> list[Listed]:
        group = self.teller.groups[0] if group is None else group
        async with ClientSession(timeout=PATIENT) as http:
            return [listed async for listed in self.teller.provider.pull(http, self.credential, group)]
