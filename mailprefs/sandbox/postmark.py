"""Postmark as its documentation describes it: message streams of three types, each with a suppression list of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from mailprefs.sandbox.faults import Write, carry, show, soon

MOST = 50  # addresses in a request
FINAL = "SpamComplaint"  # the reason that nobody but Postmark's own people can take away
STREAMS = {"outbound": "Transactional", "inbound": "Inbound", "broadcasts": "Broadcasts", "offers": "Broadcasts"}

Suppression = dict[str, str]


class Postmark:
    """One Postmark server: its message streams, and who stands on the suppression list of each."""

    def __init__(self) -> None:
        self.streams: dict[str, dict[str, Any]] = {
            stream: {"type": type_, "archived": False, "suppressions": {}} for stream, type_ in STREAMS.items()
        }

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``streams`` by id, each with its type and, by address, its ``suppressions``."""
        return {"streams": self.streams}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.streams = {
            str(name): {"type": stream["type"], "archived": stream.get("archived", False), "suppressions": dict(stream["suppressions"])}
            for name, stream in state["streams"].items()
        }

    def routes(self) -> Iterable[web.RouteDef]:
        stream = "/message-streams/{stream}"
        return (
            web.get(stream, self.show_stream),
            web.get(f"{stream}/suppressions/dump", self.dump),
            web.post(f"{stream}/suppressions", self.suppress),
            web.post(f"{stream}/suppressions/delete", self.delete),
        )

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without a token, None to one that has any."""
        return None if request.headers.get("X-Postmark-Server-Token") else _error(401, 10, "No Account or Server API tokens were supplied.")

    async def show_stream(self, request: web.Request) -> web.Response:
        name = request.match_info["stream"]
        if name not in self.streams:
            return _no_stream()
        stream = self.streams[name]
        return web.json_response(
            {
                "ID": name,
                "ServerID": 1,
                "Name": f"Stream {name}",
                "Description": None,
                "MessageStreamType": stream["type"],
                "CreatedAt": "2026-01-05T09:00:00-05:00",
                "UpdatedAt": None,
                "ArchivedAt": "2026-10-01T09:00:00-04:00" if stream["archived"] else None,
                "ExpectedPurgeDate": None,
                "SubscriptionManagementConfiguration": {
                    "UnsubscribeHandlingType": "Postmark" if stream["type"] == "Broadcasts" else "None"
                },
            }
        )

    async def dump(self, request: web.Request) -> web.StreamResponse:
        if (held := self._held(request)) is None:
            return _no_stream()
        wanted = request.query.get("EmailAddress")
        found = [entry for address, entry in held.items() if wanted is None or address.casefold() == wanted.casefold()]
        answer = web.json_response({"Suppressions": found})
        return await show(request, answer) if wanted is None else answer

    async def suppress(self, request: web.Request) -> web.StreamResponse:
        held, addresses = self._held(request), _addresses(await request.read())
        if held is None or addresses is None:
            return _no_stream() if held is None else _error(422, 300, "Invalid suppressions.")

        def apply(these: Iterable[str]) -> None:
            for address in these:
                if _refusal(held, address) is None and address not in held:
                    held[address] = entry(address)

        return await _answered(request, addresses, held, "Suppressed", apply)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        held, addresses = self._held(request), _addresses(await request.read())
        if held is None or addresses is None:
            return _no_stream() if held is None else _error(422, 300, "Invalid suppressions.")

        def apply(these: Iterable[str]) -> None:
            for address in these:
                if _refusal(held, address) is None:
                    held.pop(address, None)

        return await _answered(request, addresses, held, "Deleted", apply)

    def _held(self, request: web.Request) -> dict[str, Suppression] | None:
        stream = self.streams.get(request.match_info["stream"])
        return stream["suppressions"] if stream else None


def entry(address: str, reason: str = "ManualSuppression", origin: str = "Customer") -> Suppression:
    """Return somebody's entry in a suppression list, as it is shown."""
    created = soon().isoformat(timespec="seconds")
    return {"EmailAddress": address, "SuppressionReason": reason, "Origin": origin, "CreatedAt": created}


async def _answered(request: web.Request, addresses: list[str], held: dict[str, Suppression], word: str, apply: Any) -> web.StreamResponse:
    """Carry out a write on several addresses, each with an answer of its own."""

    def answer(failed: Iterable[str] = ()) -> web.Response:
        return web.json_response({"Suppressions": [_became(address, held, word, address in failed) for address in addresses]})

    partly = Write(lambda: apply(addresses[1:]), answer(addresses[:1]))
    return await carry(request, Write(lambda: apply(addresses), answer(), partly))


def _became(address: str, held: Mapping[str, Suppression], word: str, failed: bool) -> Mapping[str, str | None]:
    message = "An unexpected error occurred." if failed else _refusal(held, address)
    return {"EmailAddress": address, "Status": "Failed" if message else word, "Message": message}


def _refusal(held: Mapping[str, Suppression], address: str) -> str | None:
    """Return why an address stays as it is, None if it does not."""
    if "@" not in address:
        return "An invalid email address was provided."
    if held.get(address, {}).get("SuppressionReason") == FINAL:
        return "You do not have the required authority to change this suppression."
    return None


def _addresses(body: bytes) -> list[str] | None:
    """Return the addresses of a request, None if it is not one: Postmark refuses it as a whole."""
    try:
        found = [each["EmailAddress"] for each in json.loads(body)["Suppressions"]]
    except (ValueError, TypeError, KeyError):
        return None
    return found if 0 < len(found) <= MOST and all(isinstance(each, str) for each in found) else None


def _no_stream() -> web.Response:
    return _error(422, 1226, "The message stream for the provided 'ID' was not found.")


def _error(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"ErrorCode": code, "Message": message}, status=status)
