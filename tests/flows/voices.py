"""A town with a past, and everybody who can be asked whether it may be sent something, each in its own words."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from uuid import UUID, uuid4

import asyncpg

from mailprefs import audience, choices, crews, decisions, directory, ledger
from mailprefs.addresses import Addresses
from mailprefs.audience import Format
from mailprefs.candidates import Filter
from mailprefs.catalogue import Catalogue, Scope
from mailprefs.choices import State
from mailprefs.decisions import Question
from mailprefs.directory import Entry
from mailprefs.errors import NotEntitled
from mailprefs.links import KeyRing, Links
from mailprefs.sheets import Csv
from mailprefs.words import ADS, Address, Cause, Change, Channel, Decision, Door, Effect, Stream, Wanted

from .doors import Doors

SECOND_BRAND = """
[[brand]]
name = "second"
title = "Second"
number = 2
link_host = "go.example.net"
mailto = "u@go.example.net"
postal_address = "2 Main Street, Springfield"

[[brand.topic]]
name = "digest"
title = "Digest"
number = 16
consent = "opt-in"

[[brand.topic]]
name = "alerts"
title = "Alerts"
number = 17

[[brand.topic]]
name = "gone"
title = "Gone"
number = 18
retired = true

[[brand.topic]]
name = "invoices"
title = "Invoices"
number = 32
stream = "transactional"
"""
STEPS = 8  # of a history, a day apart
WAYS = [Effect.STOP] * 10 + [Effect.GO] * 6 + [Effect.GRANT] * 4 + [Effect.WITHDRAW] * 2 + [Effect.NOTE]
LASTS = [timedelta(days=days) for days in (-1, 1, 12, 100)]  # of what ends by itself
HELD = 400  # pairs of which the recipient's side is asked, one by one
PAGES = 60  # of these, over HTTP too

Pair = tuple[str, int]  # the text of an address, and a topic's number
Answers = Mapping[Pair, bool]


@dataclass(frozen=True)
class Town:
    """Addresses of every sort, by their text: those whose text the database knows, those it met by key alone, those it never met."""

    known: Sequence[Address]
    keyed: Sequence[Address]  # with its channel, as an import or a provider names it, or without, as a link does
    strangers: Sequence[Address]

    @classmethod
    def new(cls, addresses: Addresses) -> Town:
        mails = [addresses.read(text) for n in range(100) for text in (f"p{n}@example.org", f"Ü{n}@exämple.org")]
        phones = [addresses.read(f"+1415555{n:04}") for n in range(100, 200)]
        by_link = [Address(one.key, None, one.text) for one in mails[180:]]
        return cls([*mails[:140], *phones[:60]], [*mails[140:170], *by_link, *phones[60:90]], [*mails[170:180], *phones[90:]])

    @property
    def everyone(self) -> list[Address]:
        return [*self.known, *self.keyed, *self.strangers]


def way_back(ring: KeyRing, key: UUID, scope: int, at: datetime) -> str:
    """Return what would take back a press, as a page says it."""
    press = struct.pack(">16s16sd?", key.bytes, uuid4().bytes, at.timestamp(), False) + str(scope).encode()
    return str(ring.timed("undo").dumps(urlsafe_b64encode(press).decode()))


@dataclass
class World:
    """The service and its database, and a clock that stands where it is put."""

    doors: Doors
    conn: asyncpg.Connection
    catalogue: Catalogue
    addresses: Addresses
    links: Links
    random: Random
    clock: list[datetime]
    town: Town = field(init=False)

    def __post_init__(self) -> None:
        self.town = Town.new(self.addresses)

    @property
    def now(self) -> datetime:
        return self.clock[-1]

    async def live(self) -> int:
        """Give everyone but the strangers a random history; return how many rows the ledger has after it."""
        await directory.know(self.conn, [Entry(one, locale="en") for one in self.town.known], now=self.now)
        past: list[Change] = []
        for step in range(STEPS):
            met = [*self.town.known, *self.town.keyed]
            turn = [self.change(one, f"{step}.{n}", past) for one in met for n in self.some()]
            await ledger.record(self.conn, turn, now=self.now)
            past += turn
            self.clock.append(self.now + timedelta(days=1))
        assert await ledger.differing(self.conn) == 0
        return int(await self.conn.fetchval("select count(*) from consent"))

    def some(self) -> range:
        return range(self.random.choice((0, 0, 1, 1, 2)))

    def change(self, address: Address, id: str, past: Sequence[Change]) -> Change:
        """Return any Change at all that some door may make of this address."""
        while True:
            scope, cause, effect = self.random.choice(self.catalogue.scopes), self.random.choice(list(Cause)), self.random.choice(WAYS)
            until = self.now + self.random.choice(LASTS) if cause.ends and effect is Effect.STOP else None
            dated = self.now + timedelta(days=self.random.uniform(-20, 3))
            made = Change(address, scope.number, cause, effect, self.random.choice(list(Door)), id, dated, until, by="sendgrid-main")
            if effect is Effect.WITHDRAW:
                pages = [one for one in past if one.effect is Effect.STOP and one.door in (Door.PAGE, Door.MANAGE)]
                stops = [one for one in pages if one.address == address]
                if not stops:
                    continue
                made = ledger.withdrawal(self.random.choice(stops), now=self.now)
            if self.is_possible(made):
                return made

    def is_possible(self, change: Change) -> bool:
        scope = self.catalogue.by_number[change.scope]
        try:
            ledger.entitled(change)
        except NotEntitled:
            return False
        walled = change.effect is Effect.STOP and change.cause in (Cause.CHOICE, Cause.PAUSE) and change.address.channel is not Channel.SMS
        return not walled or scope.stream is Stream.MARKETING or scope.number & 255 == ADS

    @property
    def topics(self) -> tuple[Scope, ...]:
        return self.catalogue.topics

    # the voices, each in its own words

    async def decisions(self, people: Sequence[Address] | None = None) -> dict[Pair, Decision]:
        pairs = [(one, topic) for one in people or self.town.everyone for topic in self.topics]
        asked = [Question(self.addresses.heard(text_of(one)), text_of(one), topic.name) for one, topic in pairs]
        answers = await decisions.decide(self.conn, asked, self.catalogue, now=self.now)
        return {(text_of(one), topic.number): answer for (one, topic), answer in zip(pairs, answers, strict=True)}

    async def allowed(self, people: Sequence[Address] | None = None) -> Answers:
        return {pair: decision.allowed for pair, decision in (await self.decisions(people)).items()}

    async def over_http(self) -> Answers:
        """What an application is told."""
        pairs = [{"address": text_of(one), "topic": topic.name} for one in self.town.everyone for topic in self.topics]
        async with self.doors.http.post(f"{self.doors.base}/v1/decisions", json={"pairs": pairs}, headers=self.doors.bearer) as answer:
            assert answer.status == 200
            found = (await answer.json())["decisions"]
        return {(one["address"], self.catalogue.topic(one["topic"]).number): one["allowed"] for one in found}

    async def why_over_http(self) -> Answers:
        """What an operator is told who asks by key."""
        found = {}
        for one in self.random.sample(self.town.everyone, 40):
            channel = "email" if "@" in text_of(one) else "sms"
            url = f"{self.doors.base}/v1/addresses/{one.key}?channel={channel}"
            async with self.doors.http.get(url, headers=self.doors.bearer) as answer:
                for each in (await answer.json())["decisions"]:
                    found[text_of(one), self.catalogue.topic(each["topic"]).number] = each["allowed"]
        return found

    async def audience(self, topic: Scope, channel: Channel, format: Format) -> list[str]:
        taken = bytearray()

        async def sink(chunk: bytes) -> None:
            taken.extend(chunk)

        await audience.stream(self.conn, topic, channel, sink, now=self.now, format=format)
        return _texts(taken.decode(), format)

    async def audience_over_http(self, topic: Scope, channel: Channel, format: Format) -> list[str]:
        url = f"{self.doors.base}/v1/audiences/{topic.name}?channel={channel}&format={format}"
        async with self.doors.http.get(url, headers=self.doors.bearer) as answer:
            assert answer.status == 200
            return _texts(await answer.text(), format)

    async def filtered(self, sifted: bool) -> Answers:
        """What a file of everybody comes to, topic by topic."""
        texts = [text_of(one) for one in self.town.everyone]
        keyed = crews.key(self.addresses, Csv(b"address"), [text.encode() for text in texts])
        found = {}
        for topic in self.topics:
            asking = Filter(self.catalogue, topic)
            if sifted:
                await asking.sift(self.conn, now=self.now)
            denied = (await asking.judge(self.conn, keyed, now=self.now)).denied
            found.update({(text, topic.number): n not in denied for n, text in enumerate(texts)})
        return found

    async def filtered_over_http(self) -> Answers:
        """The same by HTTP, which answers with whoever is left."""
        texts = [text_of(one) for one in self.town.everyone]
        found = {}
        for topic in self.topics:
            url = f"{self.doors.base}/v1/audiences/{topic.name}/filter"
            async with self.doors.http.post(url, data="\n".join(["address", *texts]).encode(), headers=self.doors.bearer) as answer:
                left = set(_texts(await answer.text(), Format.CSV))
            found.update({(text, topic.number): text in left for text in texts})
        return found

    async def by_ledger(self) -> Answers:
        """The rule once more, of ``standing``, which folds the ledger and reads no summary."""
        folded: dict[object, list[asyncpg.Record]] = {}
        for row in await self.conn.fetch("select * from standing"):
            folded.setdefault(row["key"], []).append(row)
        return {
            (text_of(one), topic.number): self.may(folded.get(one.key, []), topic, "@" in text_of(one))
            for one in self.town.everyone
            for topic in self.topics
        }

    def may(self, registers: Sequence[asyncpg.Record], topic: Scope, by_mail: bool) -> bool:
        on_path = [r for r in registers if r["scope"] in topic.path]
        lasting = [r for r in on_path if r["held"] and r["cause"] not in ("pause", "soft")]
        timed = [r for r in on_path if r["held"] and r["cause"] in ("pause", "soft") and r["until"] > self.now]
        own = next((r for r in on_path if r["scope"] == topic.number and r["cause"] == "choice"), None)
        went = own["on_at"] if own else None
        offs = [r["off_at"] for r in on_path if r["cause"] == "choice" and r["off_at"]]
        chosen_back = went is not None and all(off < went for off in offs) and all(r["cause"] == "choice" for r in lasting)
        confirmed = own is not None and (own["granted"] or went is not None)
        claimed = own is not None and own["claimed"]
        wants = topic.wanted is not Wanted.OPT_OUT or (not by_mail and topic.stream is Stream.MARKETING)
        shown = not wants or confirmed or (claimed and topic.wanted is not Wanted.DOUBLE_OPT_IN)
        return (not lasting or chosen_back) and not timed and shown

    async def read_back(self, decided: Mapping[Pair, Decision], pairs: Sequence[Pair]) -> Answers:
        """What the recipient's side reads: a hold; with it, consent is the only other thing that can be missing."""
        found = {}
        for text, number in pairs:
            held = await decisions.is_held(self.conn, self.addresses.heard(text), number, now=self.now)
            found[text, number] = not held and not _lacks_consent(decided[text, number])
        return found

    async def on_the_page(self, decided: Mapping[Pair, Decision], pairs: Sequence[Pair]) -> Answers:
        """The same as people see it, on the page that an undo ends on. Nothing is undone: the value names a press that never was."""
        found = {}
        for text, number in pairs:
            key = self.addresses.heard(text).key
            token = self.links.token(key, self.catalogue.by_number[number])
            undo = way_back(self.links.ring, key, number, self.now)
            async with self.doors.http.post(f"{self.doors.base}/u/{token}", data={"undo": undo}) as answer:
                says = re.search(r'class="state \w+">(Stopped|You get this)<', await answer.text())
            assert says
            found[text, number] = says[1] == "You get this" and not _lacks_consent(decided[text, number])
        return found

    async def on_the_sheet(self, pairs: Sequence[Pair]) -> Answers:
        """The same as the preference page shows it: you get this, or one of the words for why not."""
        found = {}
        for text, number in pairs:
            brand = self.catalogue.brand_of(number)
            assert brand
            standing = await choices.topic(self.conn, self.addresses.heard(text), brand, self.catalogue, number, now=self.now)
            found[text, number] = standing.state is State.GETS
        return found

    # all of them together

    async def voices(self) -> dict[str, Answers]:
        """Every voice that answers about everyone, or about some."""
        decided = await self.decisions()
        asked = self.random.sample(sorted(decided), HELD)
        seen = [(text, n) for text, n in asked if "@" in text and self.catalogue.by_number[n].stream is Stream.MARKETING][:PAGES]
        return {
            "decision": {pair: one.allowed for pair, one in decided.items()},
            "reasons": {pair: not one.reasons for pair, one in decided.items()},
            "ledger": await self.by_ledger(),
            "/v1/decisions": await self.over_http(),
            "/v1/addresses": await self.why_over_http(),
            "filter": await self.filtered(sifted=False),
            "filter of many": await self.filtered(sifted=True),
            "/v1/audiences/…/filter": await self.filtered_over_http(),
            "is_held": await self.read_back(decided, asked),
            "page": await self.on_the_page(decided, seen),
            "preferences": await self.on_the_sheet(
                [pair for pair in asked if self.catalogue.by_number[pair[1]].stream is Stream.MARKETING]
            ),
        }

    async def audiences(self) -> AsyncIterator[tuple[str, Scope, Channel, list[str]]]:
        """Every audience there is, as each way of asking for it gives it."""
        for topic in self.topics:
            for channel in Channel:
                for format in Format:
                    yield f"audience as {format}", topic, channel, await self.audience(topic, channel, format)
                    yield f"/v1/audiences as {format}", topic, channel, await self.audience_over_http(topic, channel, format)

    async def differing(self) -> list[str]:
        """Return each pair about which a voice says something else than the decision."""
        voices = await self.voices()
        return [f"{name}: {pair}" for name, said in voices.items() for pair, yes in said.items() if yes is not voices["decision"][pair]]

    async def disagreements(self) -> list[str]:
        """Return the same, and each audience that is not exactly the allowed among the known."""
        found, base = await self.differing(), await self.allowed()
        async for name, topic, channel, texts in self.audiences():
            wanted = sorted(text_of(one) for one in self.town.known if one.channel is channel and base[text_of(one), topic.number])
            if sorted(texts) != wanted:
                found.append(f"{name}: {topic.name} by {channel}")
        return found


def text_of(address: Address) -> str:
    assert address.text
    return address.text


def _lacks_consent(decision: Decision) -> bool:
    return any(reason.cause == "consent_missing" for reason in decision.reasons)


def _texts(text: str, format: Format) -> list[str]:
    lines: Iterable[str] = text.splitlines()
    if format is Format.NDJSON:
        return [json.loads(line)["address"] for line in lines]
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["address"]
    return [row[0] for row in rows]
