"""Webhooks: signed batches of SendGrid's over HTTP, verified, read, deduplicated, committed; beside ``json.loads`` of the same bodies.

The bodies are new ones in each turn, 40 times 1,000 events about people nobody has told of before, so nothing of them is in a cache that a
real delivery would not be in. ``json.loads`` takes them one after the other in this process while the service rests.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from itertools import count
from random import Random
from time import time
from typing import Any
from uuid import UUID

from benchmarks.client import asked, request
from benchmarks.figures import Figure, timed, turn_by_turn
from benchmarks.options import Options
from benchmarks.stage import Served, Stage
from mailprefs.providers.base import OURS
from mailprefs.sandbox import sendgrid

EVENTS = 1_000  # of a batch
CONNECTIONS = 8
_MIXED = {
    "processed": 300,
    "delivered": 400,
    "open": 180,
    "click": 60,
    "deferred": 20,
    "bounce": 20,
    "spamreport": 5,
    "group_unsubscribe": 15,
}
_BROWSER = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
_MORE: dict[str, dict[str, Any]] = {
    "delivered": {"response": "250 2.0.0 OK 1763812800 a1-20020a17090a0001si123456ejc.17 - gsmtp", "ip": "192.0.2.7", "tls": 1},
    "open": {"useragent": _BROWSER, "ip": "192.0.2.7", "sg_machine_open": False},
    "click": {
        "useragent": _BROWSER,
        "ip": "192.0.2.7",
        "url": "https://www.example.com/november?id=123",
        "url_offset": {"index": 0, "type": "html"},
    },
    "deferred": {"response": "451 4.7.1 try again later", "attempt": "3", "ip": "192.0.2.7"},
    "bounce": {"type": "bounce", "status": "5.1.1", "reason": "550 5.1.1 no such mailbox", "bounce_classification": "Invalid Address"},
    "group_unsubscribe": {"asm_group_id": 12345, "ip": "192.0.2.7", "useragent": _BROWSER},
}

_CAMPAIGN: dict[str, Any] = {
    "marketing_campaign_id": 12345678,
    "marketing_campaign_name": "November news for everybody",
    "marketing_campaign_version": "SENDGRID",
    "pool": {"name": "marketing", "id": 210},
    "sg_content_type": "html",
}
Told = Callable[[Random, str, int], dict[str, Any]]


async def figures(stage: Stage, options: Options) -> AsyncIterator[Figure]:
    """Yield the lines: batches in which 4 % stop, the same as a campaign's have it, and batches of bounces alone."""
    mixes = {
        "webhooks: 4 % stop": (_MIXED, options.batches, 0.4, _plain),
        "webhooks: 4 % stop, of a campaign": (_MIXED, options.batches, 0.4, _campaign),
        "webhooks: bounces only": ({"bounce": 1}, options.batches // 4, 0.05, _plain),
    }
    for path, (mix, batches, target, told) in mixes.items():
        async with stage.database() as url, stage.service(url) as served:
            turns = _turns(mix, batches, partial(told, stage))
            bodies: list[bytes] = []
            measured = await turn_by_turn(
                loads=partial(_loads, turns, bodies), told=partial(_told, stage, served, bodies), times=options.turns
            )
        yield measured.figure(path, "told", "loads", target, unit="events/s", beside="json.loads of the bodies")


def _turns(mix: dict[str, int], batches: int, told: Told) -> Iterator[list[bytes]]:
    numbers, random = count(1), Random(1)
    while True:
        yield [_body(random, mix, numbers, told) for _ in range(batches)]


def _body(random: Random, mix: dict[str, int], numbers: Iterator[int], told: Told) -> bytes:
    kinds = random.choices(list(mix), list(mix.values()), k=EVENTS)
    return json.dumps([told(random, kind, next(numbers)) for kind in kinds], separators=(",", ":")).encode() + b"\r\n"


def _campaign(stage: Stage, random: Random, kind: str, number: int) -> dict[str, Any]:
    """Return an event of a marketing campaign, with the sender's own arguments in it, our token among them."""
    event = _plain(stage, random, kind, number)
    own = {
        OURS: stage.links.token(stage.addresses.read(event["email"]).key, stage.catalogue.topic("newsletter")),
        "order": f"o-{random.getrandbits(128):032x}",
        "tenant": "example-production",
        "template_id": f"d-{random.getrandbits(128):032x}",
    }
    return {**event, **_CAMPAIGN, **own}


def _plain(_stage: Stage, random: Random, kind: str, number: int) -> dict[str, Any]:
    message = f"{random.getrandbits(128):032x}"
    return {
        "email": f"person.{number}@example.com",
        "timestamp": int(time()) - random.randrange(3600),
        "smtp-id": f"<{message[:16]}@geopod-ismtpd-{message[16:19]}>",
        "event": kind,
        "category": ["newsletter", "november"],
        "sg_event_id": UUID(int=random.getrandbits(128)).hex,
        "sg_message_id": f"{message}.recvd-{message[:10]}-1-{message[10:18]}.0",
        **_MORE.get(kind, {}),
    }


async def _loads(turns: Iterator[list[bytes]], bodies: list[bytes]) -> float:
    bodies[:] = next(turns)
    with timed() as span:
        for body in bodies:
            json.loads(body)
    return len(bodies) * EVENTS / span.seconds


async def _told(stage: Stage, served: Served, bodies: Sequence[bytes]) -> float:
    stamp = str(int(time()))
    requests = [request("/hooks/heard", body, sendgrid.sign(stage.webhook_key, stamp, body)) for body in bodies]
    return len(bodies) * EVENTS / await asked(served, requests, connections=CONNECTIONS)
