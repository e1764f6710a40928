"""MailerSend as its documentation describes it: domains, each with a list of unsubscribes that stops all it sends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from aiohttp import web

from mailprefs.sandbox.faults import Write, carry, show, soon

DOMAINS = ("yv69oxl5kl785kw2", "pxkjn41nr6olz781")  # there from the start: one for marketing, one for receipts
LEAST, MOST = 10, 100  # entries of a page


class MailerSend:
    """One MailerSend account: its domains, and who unsubscribed from each."""

    def __init__(self) -> None:
        self.domains: dict[str, dict[str, dict[str, Any]]] = {domain: {} for domain in DOMAINS}

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``domains`` by id, each with its unsubscribes by address: ``reason`` and ``created_at``."""
        return {"domains": self.domains}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.domains = {domain: dict(held) for domain, held in state["domains"].items()}

    def routes(self) -> Iterable[web.RouteDef]:
        path = "/v1/suppressions/unsubscribes"
        return (
            web.get("/v1/domains/{domain}", self.show_domain),
            web.get(path, self.list_unsubscribes),
            web.post(path, self.add),
            web.delete(path, self.delete),
        )

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without a token, None to one that has any."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return None if scheme == "Bearer" and token else _error(401, "Unauthenticated.")

    async def show_domain(self, request: web.Request) -> web.Response:
        domain = request.match_info["domain"]
        return web.json_response({"data": _domain(domain)}) if domain in self.domains else _error(404, "Resource not found.")

    async def list_unsubscribes(self, request: web.Request) -> web.StreamResponse:
        page, limit = int(request.query.get("page", "1")), int(request.query.get("limit", "25"))
        only = request.query.get("domain_id")
        if not LEAST <= limit <= MOST or page < 1 or only not in (None, *self.domains):
            return _error(422, "The given data was invalid.")
        found = [
            _shown(domain, address, entry)
            for domain, held in self.domains.items()
            if only in (None, domain)
            for address, entry in held.items()
        ]
        shown = found[(page - 1) * limit : page * limit]
        meta = {"current_page": page, "per_page": limit, "total": len(found)}
        return await show(request, web.json_response({"data": shown, "links": {}, "meta": meta}))

    async def add(self, request: web.Request) -> web.StreamResponse:
        told = await _told(request)
        held, recipients = self.domains.get(str(told.get("domain_id"))), told.get("recipients")
        sound = isinstance(recipients, list) and recipients and all(isinstance(each, str) and "@" in each for each in recipients)
        if held is None or not isinstance(recipients, list) or not sound:
            return _error(422, "The given data was invalid.")

        def apply(these: Iterable[str]) -> None:
            for address in these:
                held.setdefault(_spelt(held, address), entry())

        def answer(these: Iterable[str]) -> web.Response:
            shown = [_shown(told["domain_id"], address, held.get(_spelt(held, address)) or entry()) for address in these]
            return web.json_response({"data": shown}, status=201)

        partly = Write(lambda: apply(recipients[1:]), answer(recipients[1:]))
        return await carry(request, Write(lambda: apply(recipients), answer(recipients), partly))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        told = await _told(request)
        ids, only = told.get("ids"), told.get("domain_id")
        if not (told.get("all") is True or (isinstance(ids, list) and ids)):
            return _error(422, "The given data was invalid.")

        def apply() -> None:
            for domain, held in self.domains.items():
                for address in [each for each in held if ids is None or _id(domain, each) in ids]:
                    if only in (None, domain):
                        held.pop(address)

        return await carry(request, Write(apply, web.json_response({})))


def entry(reason: str | None = None) -> dict[str, Any]:
    """Return somebody's entry in a list, as it is held. Who left by themselves may have said why."""
    return {"reason": reason, "created_at": soon().isoformat(timespec="microseconds")}


def _shown(domain: str, address: str, held: Mapping[str, Any]) -> dict[str, object]:
    recipient = {"id": _id("", address), "email": address, "domain": _domain(domain)}
    return {"id": _id(domain, address), **held, "readable_reason": held["reason"], "recipient": recipient}


def _domain(domain: str) -> dict[str, object]:
    return {"id": domain, "name": f"{domain}.example.com", "is_verified": True}


def _id(domain: str, address: str) -> str:
    return uuid5(NAMESPACE_URL, f"mailto:{address}#{domain}").hex[:24]


def _spelt(held: Mapping[str, Any], address: str) -> str:
    """Return an address as it stands there, or as it came."""
    return next((each for each in held if each.casefold() == address.casefold()), address)


async def _told(request: web.Request) -> dict[str, Any]:
    try:
        told = await request.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)
