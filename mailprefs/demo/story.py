"""The steps, each with what was sent and what came back. What a step claims it has counted; one claim that fails ends it non-zero."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

import dkim
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from mailprefs import audience, bulk, checkup, db, decisions, ledger, links, rows, worker
from mailprefs.bulk import Import
from mailprefs.demo.stage import SETTLE, Stage, now
from mailprefs.sandbox import sendgrid
from mailprefs.words import Channel, Stream

PRESSED, HARD, SOFT, ANGRY, LEFT, DELIVERED = slice(0, 50), slice(60, 70), slice(70, 80), slice(80, 90), slice(90, 100), slice(100, 150)
DRAINED = timedelta(seconds=60)
ONE_CLICK = b"List-Unsubscribe=One-Click"


@dataclass
class Teller:
    """Writes the story and remembers whether it came out as told."""

    write: Callable[[str], None]
    failed: list[str] = field(default_factory=list)
    _number: int = 0

    def step(self, title: str) -> None:
        self._number += 1
        self.write(f"\n{self._number:>2}  {title}")

    def sent(self, words: str) -> None:
        self.write(f"      → {words}")

    def came(self, words: str) -> None:
        self.write(f"      ← {words}")

    def claim(self, holds: bool, words: str) -> None:
        self.write(f"      {'✓' if holds else '✗'} {words}")
        if not holds:
            self.failed.append(words)


async def tell(stage: Stage, write: Callable[[str], None]) -> bool:
    """Tell the whole story and return whether every step came out as it says."""
    teller = Teller(write)
    for step in STEPS:
        await step(stage, teller)
    return not teller.failed


async def imported(stage: Stage, teller: Teller) -> None:
    teller.step("The recipients are imported")
    importer = Import(stage.addresses, stage.catalogue, now())
    refused: list[str] = []
    with rows.opened(stage.examples / "recipients.csv") as stream:
        _, found = rows.read(stream)
        emails = len(stage.emails())
        teller.sent(f"recipients.csv: {emails:,} e-mail addresses, {len(stage.recipients) - emails:,} phone numbers")
        async with stage.pool.acquire() as connection:
            tally = await bulk.run(
                connection, found, importer.address, bulk.entries, now=importer.now,
                reject=lambda _row, reason: refused.append(reason), progress=lambda _rows: None,
            )  # fmt: skip
    teller.came(f"{tally.accepted:,} accepted, {tally.added:,} new, {tally.rejected} refused")
    teller.claim(tally.added == len(stage.recipients) and not refused, "every row is an address of its own")


async def minted(stage: Stage, teller: Teller) -> None:
    teller.step("Links for the newsletter are minted for all, without database or network")
    keys = [stage.addresses.read(address).key for address in stage.emails()]
    began = time.perf_counter()
    made = list(stage.links.minted_stream(keys, stage.newsletter))
    took = time.perf_counter() - began
    teller.sent(f"{len(keys):,} e-mail addresses")
    teller.came(f"{len(made):,} links with their headers in {took * 1000:.0f} ms, such as {made[0].url}")
    right = all(links.read(stage.ring, each.url.rpartition("/")[2]).address == key for each, key in zip(made, keys, strict=True))
    teller.claim(right and len({each.url for each in made}) == len(keys), "each names its own recipient and verifies")


async def checked(stage: Stage, teller: Teller) -> None:
    teller.step("One message is put together and checked, and one that lacks everything")
    message = _newsletter(stage)
    teller.write("")
    for name in ("From", "To", "Subject", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Id"):
        teller.write(f"        {name}: {message[name]}")
    for line in ("", *_text(message).splitlines()):
        teller.write(f"        {line}".rstrip())
    signed, dns = _signed(message.as_bytes(policy=policy.SMTP))
    forgotten = (stage.examples / "campaign" / "forgotten.eml").read_bytes()
    for what, raw, good in (
        ("newsletter.eml   (DKIM-signed)", signed, True),
        ("forgotten.eml   (made without mailprefs)", forgotten, False),
    ):
        teller.write("")
        teller.sent(f"mailprefs check {what}")
        findings = checkup.check(raw, ring=stage.ring, catalogue=stage.catalogue, dns=dns)
        for finding in findings:
            teller.write(f"        {finding.verdict:<4} {finding.rule:<24} {finding.sentence}")
        teller.claim(checkup.passed(findings) is good, "it passes" if good else "it is refused, and told why")


def _signed(message: bytes) -> tuple[bytes, Callable[[bytes, int], bytes | None]]:
    """Sign as a sender's mail server does, both headers covered (RFC 8058 §4), and answer for the DNS that would hold the key."""
    key = generate_private_key(65537, 2048)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    covered = [b"from", b"to", b"subject", b"list-unsubscribe", b"list-unsubscribe-post", b"list-id"]
    signature: bytes = dkim.sign(message, b"demo", b"example.com", secret, include_headers=covered)
    return signature + message, lambda _name, _seconds: b"v=DKIM1; k=rsa; p=" + public


def _newsletter(stage: Stage) -> EmailMessage:
    """Fill the campaign's template for one recipient; one function made the link in the body and the headers."""
    to = stage.emails()[0]
    each = stage.links.mint(stage.addresses.read(to).key, stage.newsletter)
    template = (stage.examples / "campaign" / "newsletter.eml").read_bytes()
    message = BytesParser(_class=EmailMessage, policy=policy.default).parsebytes(template)
    for part in message.walk():
        if part.get_content_maintype() == "text":
            part.set_content(part.get_content().replace("{unsubscribe_url}", each.url), subtype=part.get_content_subtype())
    del message["To"]
    message["To"] = to
    each.put_on(message)
    links.guard(message, stream=Stream.MARKETING, ring=stage.ring)
    return message


def _text(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    return str(body.get_content()) if body else ""


async def scanned(stage: Stage, teller: Teller) -> None:
    teller.step("A scanner opens 200 links, as mail gateways do")
    before = await _count(stage)
    paths = [stage.path(address) for address in stage.emails()[:200]]
    teller.sent("200 × GET /u/…, 200 × HEAD /u/…")
    answers: Counter[int] = Counter()
    for path in paths:
        for method in ("GET", "HEAD"):
            async with stage.http.request(method, stage.door + path) as answer:
                answers[answer.status] += 1
    teller.came(f"{answers[200]} × 200: a page with a button, which nobody pressed")
    teller.claim(answers == {200: 400} and await _count(stage) == before, "nothing changed")


async def pressed(stage: Stage, teller: Teller) -> None:
    teller.step("Mailbox providers send one-click for 50 people, some twice, some at once")
    people = stage.emails()[PRESSED]
    presses = people + people[:10] + people[5:10] * 3
    teller.sent(f"{len(presses)} × POST /u/…   {ONE_CLICK.decode()}")
    statuses = Counter(await asyncio.gather(*(_post(stage, stage.path(address)) for address in presses)))
    teller.came(f"{statuses[200]} × 200, empty, after the commit")
    async with stage.pool.acquire() as connection:
        held = {row["scope"]: row["count"] async for row in db.queries("demo").held(connection)}
    teller.claim(statuses == {200: len(presses)}, "each was acknowledged")
    teller.claim(held == {stage.newsletter.number: len(people)}, f"exactly {len(people)} people have left the newsletter")


async def refused(stage: Stage, teller: Teller) -> None:
    teller.step("Forged and altered tokens are refused")
    before = await _count(stage)
    path = stage.path(stage.emails()[-1])
    rng = random.Random(8058)  # noqa: S311  a story told the same way each time
    altered = [path[:n] + ("A" if path[n] != "A" else "B") + path[n + 1 :] for n in range(3, len(path))]
    foreign = [f"/u/{base64.urlsafe_b64encode(rng.randbytes(19))[:26].decode()}.{path[-18:]}" for _ in range(50)]
    teller.sent(f"{len(altered)} × POST /u/… with one character of a token changed, {len(foreign)} × with an invented one")
    statuses = Counter([await _post(stage, each) for each in altered + foreign])
    teller.came(f"{statuses[404]} × 404")
    teller.claim(set(statuses) == {404} and await _count(stage) == before, "none was accepted, nothing changed")


async def heard(stage: Stage, teller: Teller) -> None:
    teller.step("SendGrid posts what happened to its mail, signed: some of it twice, all of it out of order")
    batch = _events(stage)
    body = json.dumps(batch).encode() + b"\r\n"
    once = Counter(str(event["event"]) for event in {event["sg_event_id"]: event for event in batch}.values())
    teller.sent(
        f"{len(batch)} events: {', '.join(f'{n} {kind}' for kind, n in sorted(once.items()))}, {len(batch) - once.total()} of them again"
    )
    headers = {**sendgrid.sign(stage.webhook_key, str(int(time.time())), body), "Content-Type": "application/json"}
    url = f"{stage.base}/hooks/{stage.account.name}"
    async with stage.http.post(url, data=body, headers=headers) as answer:
        teller.came(f"{answer.status}, after the commit")
        teller.claim(answer.status == 200, "kept")
    teller.sent("the same once more, one letter of it changed, under the same signature")
    async with stage.http.post(url, data=body.replace(b"spamreport", b"spamrepost"), headers=headers) as answer:
        teller.came(f"{answer.status}")
        teller.claim(answer.status == 401, "refused: it is a forgery")
    async with stage.pool.acquire() as connection:
        held = {row["scope"]: row["count"] async for row in db.queries("demo").held(connection)}
    number = stage.catalogue.scope("marketing").number
    teller.claim(
        held == {0: 10, number: 10, stage.newsletter.number: 60},
        "10 bounced for good, 10 complained, 10 more have left the newsletter; 10 bounced softly, which stops nothing yet",
    )


def _events(stage: Stage) -> list[dict[str, Any]]:
    people, at = stage.emails(), int(time.time()) - 3600
    group = int(stage.account.scopes["newsletter"])
    told: list[tuple[slice, dict[str, Any]]] = [
        (HARD, {"event": "bounce", "type": "bounce", "status": "5.1.1"}),
        (SOFT, {"event": "bounce", "type": "blocked", "status": "4.2.2"}),
        (ANGRY, {"event": "spamreport"}),
        (LEFT, {"event": "group_unsubscribe", "asm_group_id": group}),
        (DELIVERED, {"event": "delivered"}),
    ]
    batch = [
        {"email": people[n], "timestamp": at + n, "sg_event_id": f"{event['event']}-{n}", "sg_message_id": "demo.1", **event}
        for where, event in told
        for n in range(where.start, where.stop)
    ]
    rng = random.Random(2369)  # noqa: S311
    batch += rng.sample(batch, 40)
    rng.shuffle(batch)
    return batch


async def explained(stage: Stage, teller: Teller) -> None:
    teller.step("Why may four of them be sent what? (* is everything)")
    people = stage.emails()
    for who, address, wanted in (
        ("left by one-click", people[0], {"newsletter": False, "offers": True, "orders": True}),
        ("complained", people[ANGRY][0], {"newsletter": False, "offers": False, "orders": True}),
        ("bounced hard", people[HARD][0], {"newsletter": False, "offers": False, "orders": False}),
        ("bounced softly", people[SOFT][0], {"newsletter": True, "offers": True, "orders": True}),
    ):
        topics = [stage.catalogue.topic(topic) for topic in wanted]
        async with stage.pool.acquire() as connection:
            whole = await decisions.why(connection, stage.addresses.read(address), address, topics, stage.catalogue, now=now())
        teller.sent(f"mailprefs why {address}   ({who})")
        for answer in whole["decisions"]:
            because = "; ".join(f"{reason.cause} at {reason.scope}" for reason in answer.reasons)
            teller.came(f"{'yes' if answer.allowed else 'no':<4}{answer.topic:<24} {because}".rstrip())
        got = [answer.allowed for answer in whole["decisions"]]
        teller.claim(
            got == list(wanted.values()), f"who {who} may be sent {_listed(topic for topic, allowed in wanted.items() if allowed)}"
        )


async def exported(stage: Stage, teller: Teller) -> None:
    teller.step("The audience is exported")
    people = stage.emails()
    gone = {
        "newsletter": {"left by one-click": PRESSED, "bounced": HARD, "complained": ANGRY, "left at SendGrid": LEFT},
        "offers": {"bounced": HARD, "complained": ANGRY},
        "orders": {"bounced": HARD},
        stage.opt_in.name: {"have not asked for it": slice(None)},
    }
    for topic, reasons in gone.items():
        got = await _audience(stage, topic)
        teller.sent(f"mailprefs audience {topic}")
        teller.came(f"{len(got):,} addresses")
        allowed = set(people) - {person for where in reasons.values() for person in people[where]}
        less = ", ".join(f"{len(people[where]):,} who {why}" for why, where in reasons.items())
        teller.claim(sorted(got) == sorted(allowed), f"exactly the {len(people):,} less {less}")


async def _audience(stage: Stage, topic: str) -> list[str]:
    out = io.BytesIO()

    async def write(chunk: bytes) -> None:
        out.write(chunk)

    async with stage.pool.acquire() as connection:
        await audience.stream(connection, stage.catalogue.topic(topic), Channel.EMAIL, write, now=now())
    return [row["address"] for row in csv.DictReader(io.StringIO(out.getvalue().decode()))]


async def told(stage: Stage, teller: Teller) -> None:
    teller.step("The worker tells SendGrid who has left; SendGrid asks it to wait, and then fails")
    empty = {"sendgrid": {"groups": {group: [] for group in stage.account.scopes.values()}, "global": []}}
    async with stage.http.put(f"{stage.sandbox}/_sandbox/state", json=empty) as answer:
        teller.claim(answer.status == 200, "SendGrid has a group for each topic, with nobody in it")
    async with stage.http.post(f"{stage.sandbox}/_sandbox/faults", json={"queue": ["429-seconds", "500"]}) as answer:
        teller.claim(answer.status < 300, "it will answer the first two requests with 429 (come back in a second) and 500")
    async with stage.pool.acquire() as connection:
        owed = await db.queries("demo").owed(connection)
    began = time.perf_counter()
    done = await worker.drain(stage.pool, stage.catalogue, stage.ring, stage.settings, within=DRAINED)
    took = time.perf_counter() - began
    async with stage.http.get(f"{stage.sandbox}/_sandbox/requests") as answer:
        writes = [json.loads(each["body"])["recipient_emails"] for each in await answer.json() if each["method"] == "POST"]
    names = sum(map(len, writes))
    teller.sent(f"{owed} stops that it has not heard: {names} names in {len(writes)} requests, as those that went wrong are sent again")
    sure = f"{SETTLE.total_seconds():.0f} of them to be sure that what failed cannot land late"
    teller.came(f"{'all' if done else 'not all'} confirmed after {took:.1f} s, {sure}")
    teller.claim(done and len(writes) > 2, "nothing is left to tell")


async def counted(stage: Stage, teller: Teller) -> None:
    teller.step("The figures are counted again, by plain SQL and by asking SendGrid")
    async with stage.pool.acquire() as connection:
        doors = {row["door"]: row["count"] async for row in db.queries("demo").stops_by_door(connection)}
        proofs = {row["scope"]: row["count"] async for row in db.queries("demo").told(connection)}
        owed, differing = await db.queries("demo").owed(connection), await ledger.differing(connection)
    async with stage.http.get(f"{stage.sandbox}/_sandbox/state") as answer:
        state = (await answer.json())["sendgrid"]
    groups = {group: set(held) for group, held in state["groups"].items()}
    people = stage.emails()
    topics = {group: topic for topic, group in stage.account.scopes.items()}
    teller.came("ledger, stops by door: " + _listed(f"{door} {n}" for door, n in doors.items()))
    teller.came("proofs of what was told: " + _listed(f"{stage.catalogue.by_number[n].name} {count}" for n, count in proofs.items()))
    teller.came("SendGrid's groups: " + _listed(f"{group} ({topics.get(group)}) {len(held)}" for group, held in groups.items()))
    teller.claim(doors == {"link": 50, "provider": 30}, "50 stops through links, 30 through SendGrid: 80 rows, one for each fact")
    wanted = {"newsletter": {*people[PRESSED], *people[ANGRY]}, "offers": {*people[ANGRY]}, "surveys": {*people[ANGRY]}}
    for topic, expected in wanted.items():
        group, scope = stage.account.scopes[topic], stage.catalogue.topic(topic).number
        fold = {address.casefold() for address in groups.get(group, set())}
        same = fold == {address.casefold() for address in expected} and proofs.get(scope) == len(expected)
        teller.claim(same, f"SendGrid's group {group} ({topic}) holds exactly the {len(expected)} whom it did not know of itself")
    teller.claim(not state["global"], "its global list, which would stop receipts too, is empty")
    teller.claim(owed == 0 and differing == 0, "nothing is owed, and every summary is what its ledger says")


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "nothing"


async def _post(stage: Stage, path: str) -> int:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with stage.http.post(stage.door + path, data=ONE_CLICK, headers=headers, allow_redirects=False) as answer:
        return answer.status if not await answer.read() or answer.status != 200 else 0  # 200 must be empty


async def _count(stage: Stage) -> int:
    async with stage.pool.acquire() as connection:
        return int(await db.queries("demo").ledger_rows(connection))


Step = Callable[[Stage, Teller], Awaitable[None]]
STEPS: Sequence[Step] = (imported, minted, checked, scanned, pressed, refused, heard, explained, exported, told, counted)
