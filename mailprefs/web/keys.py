"""What a request finds in its application, by type."""

from __future__ import annotations

from asyncio import Lock, Semaphore
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import ClientSession, web
from pydantic import SecretStr

from mailprefs.addresses import Addresses
from mailprefs.catalogue import Account, Catalogue
from mailprefs.db import Pool
from mailprefs.groupcommit import GroupCommit
from mailprefs.inbox import Inbox
from mailprefs.links import KeyRing, Links
from mailprefs.providers.base import Credential, Ear
from mailprefs.reception import Forgeries
from mailprefs.web.arrivals import Arrivals
from mailprefs.web.asking import Askers
from mailprefs.web.bursts import Bursts
from mailprefs.web.thoughts import SecondThoughts


def utcnow() -> datetime:
    """The machine's time, read here for all doors."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Hearing:
    """Everything needed to hear one account."""

    account: Account
    provider: Ear
    credential: Credential
    inbox: Inbox
    places: Semaphore  # a flood at one account holds up no other


@dataclass(frozen=True)
class House:
    """What the doors share. Made once at start, never changed."""

    catalogue: Catalogue
    ring: KeyRing = field(repr=False)
    addresses: Addresses = field(repr=False)
    links: Mapping[int, Links]  # by the number of the brand
    hearings: Mapping[str, Hearing]  # by the name of the account
    clock: Callable[[], datetime] = utcnow
    mailing: Set[int] = frozenset()  # the brands whose links can be mailed
    slices: Lock = field(default_factory=Lock, repr=False)  # long work of /v1: who has it may hold the loop for a moment


HOUSE = web.AppKey("house", House)
HTTP = web.AppKey("http", ClientSession)  # the way out, for what a provider's proof or its ids want
POOL = web.AppKey("pool", Pool)  # for answers
HOOKS = web.AppKey("hooks", Pool)  # for providers, so that their floods hold up nobody else
EXPORTS = web.AppKey("exports", Pool)  # for audiences, each of which takes as long as its reader does
STANDBY: web.AppKey[SecretStr | None] = web.AppKey("standby")  # what audiences are read from, while it is near enough
KEPT = web.AppKey("kept", Path)  # where the files of kept exports lie
ARRIVALS = web.AppKey("arrivals", Arrivals)  # for the bodies of providers, all accounts together
ASKED = web.AppKey("asked", Arrivals)  # for those of applications, so that neither pushes the other out
ASKERS = web.AppKey("askers", Askers)  # who have no link, and ask for one
THOUGHTS = web.AppKey("thoughts", SecondThoughts)
BURSTS = web.AppKey("bursts", Bursts)
COMPARING = web.AppKey("comparing", Semaphore)  # few lists of providers at a time
PRESSES = web.AppKey("presses", GroupCommit)
FORGERIES = web.AppKey("forgeries", Forgeries)
METRICS: web.AppKey[str | None] = web.AppKey("metrics")  # what shows the counters, if anything does
