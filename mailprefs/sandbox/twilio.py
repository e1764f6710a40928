"""Twilio as its documentation describes it: which numbers consent to which sender's texts. It is told, and shows nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiohttp import web

from mailprefs.sandbox.faults import Write, carry

NUMBER = re.compile(r"\+[1-9][0-9]{1,14}")
SENDER = re.compile(r"MG[0-9a-f]{32}|\+[1-9][0-9]{1,14}")
STATUSES, SOURCES = ("opt-in", "opt-out"), ("website", "offline", "opt-in-message", "opt-out-message", "others")
MOST = 25  # consents of one request
NOT_VALID = 30646


class Twilio:
    """One account: who has opted out of which sender."""

    def __init__(self) -> None:
        self.senders: dict[str, list[str]] = {}

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``senders`` with the numbers that opted out of each."""
        return {"senders": self.senders}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.senders = {str(sender): list(out) for sender, out in state["senders"].items()}

    def routes(self) -> Iterable[web.RouteDef]:
        return (web.post("/v1/Consents/Bulk", self.consents),)

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without the account's keys, None to one that has any."""
        scheme, _, keys = request.headers.get("Authorization", "").partition(" ")
        return None if scheme == "Basic" and keys else _error(401, 20003, "Authenticate")

    async def consents(self, request: web.Request) -> web.StreamResponse:
        items = [_item(str(item)) for item in (await request.post()).getall("Items", ())]
        if not 0 < len(items) <= MOST:
            return _error(400, 20001, "Items is not valid")
        failing = {n for n, item in enumerate(items) if not _is_valid(item)}
        whole = Write(lambda: self._take(items, failing), _answer(items, failing))
        partly = failing | {0}
        return await carry(request, Write(whole.apply, whole.answer, Write(lambda: self._take(items, partly), _answer(items, partly))))

    def _take(self, items: Sequence[Mapping[str, Any]], failing: set[int]) -> None:
        for n, item in enumerate(items):
            if n in failing:
                continue
            out = self.senders.setdefault(item["sender_id"], [])
            stays = [number for number in out if number != item["contact_id"]]
            self.senders[item["sender_id"]] = [*stays, item["contact_id"]] if item["status"] == "opt-out" else stays


def _item(written: str) -> dict[str, Any]:
    try:
        told = json.loads(written)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _is_valid(item: Mapping[str, Any]) -> bool:
    number, sender = str(item.get("contact_id")), str(item.get("sender_id"))
    known = item.get("status") in STATUSES and item.get("source") in SOURCES and len(str(item.get("correlation_id"))) == 32
    return known and NUMBER.fullmatch(number) is not None and SENDER.fullmatch(sender) is not None


def _answer(items: Sequence[Mapping[str, Any]], failing: set[int]) -> web.Response:
    """Return what became of each consent."""
    results = [
        {
            "correlation_id": item.get("correlation_id"),
            "error_code": NOT_VALID if n in failing else 0,
            "error_messages": ["Phone number is invalid."] if n in failing else [],
        }
        for n, item in enumerate(items)
    ]
    return web.json_response({"items": results}, status=201)


def _error(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message, "more_info": "", "status": status}, status=status)
