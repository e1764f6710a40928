"""SendGrid as its documentation describes it: unsubscribe groups, the global list, the trap between them, signed deliveries."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from mailprefs.providers.sendgrid import SIGNATURE, TIMESTAMP
from mailprefs.sandbox.faults import Write, carry, show

GROUPS = ("12345", "12346")  # there from the start, as in the documentation's mailprefs.toml


class SendGrid:
    """One SendGrid account: its unsubscribe groups, and the global list that stops all mail."""

    def __init__(self) -> None:
        self.groups: dict[str, dict[str, None]] = {group: {} for group in GROUPS}
        self.everywhere: dict[str, None] = {}

    @property
    def state(self) -> Mapping[str, Any]:
        """What it believes: ``groups`` by number, and ``global``; addresses in the order they came."""
        return {"groups": {group: list(held) for group, held in self.groups.items()}, "global": list(self.everywhere)}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self.groups = {str(group): dict.fromkeys(held) for group, held in state["groups"].items()}
        self.everywhere = dict.fromkeys(state["global"])

    def routes(self) -> Iterable[web.RouteDef]:
        group = r"/v3/asm/groups/{group:\d+}"
        return (
            web.get("/v3/asm/groups", self.list_groups),
            web.get(group, self.show_group),
            web.delete(group, self.delete_group),
            web.get(f"{group}/suppressions", self.list_suppressions),
            web.post(f"{group}/suppressions", self.add_suppressions),
            web.delete(group + "/suppressions/{address}", self.delete_suppression),
            web.get("/v3/asm/suppressions/global/{address}", self.show_global),
        )

    def refusal(self, request: web.Request) -> web.Response | None:
        """Return the answer to a request without a key, None to one that has any."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        return None if scheme == "Bearer" and key else _error(401, "authorization required")

    async def list_groups(self, _: web.Request) -> web.Response:
        return web.json_response([self._shown(group) for group in self.groups])

    async def show_group(self, request: web.Request) -> web.Response:
        group = request.match_info["group"]
        return web.json_response(self._shown(group)) if group in self.groups else _error(404, "resource not found")

    async def delete_group(self, request: web.Request) -> web.StreamResponse:
        group = request.match_info["group"]
        return await carry(request, Write(lambda: _discard(self.groups, group), web.Response(status=204)))

    async def list_suppressions(self, request: web.Request) -> web.StreamResponse:
        return await show(request, web.json_response(list(self.groups.get(request.match_info["group"], ()))))

    async def add_suppressions(self, request: web.Request) -> web.StreamResponse:
        group, addresses = request.match_info["group"], _recipients(await request.read())
        if addresses is None:
            return _error(400, "invalid recipient_emails", "recipient_emails")
        most = addresses[1:] if len(addresses) > 1 else addresses
        partly = Write(lambda: self._add(group, most), web.json_response({"recipient_emails": most}, status=201))
        whole = web.json_response({"recipient_emails": addresses}, status=201)
        return await carry(request, Write(lambda: self._add(group, addresses), whole, partly))

    async def delete_suppression(self, request: web.Request) -> web.StreamResponse:
        held, address = self.groups.get(request.match_info["group"], {}), request.match_info["address"]
        answer = web.Response(status=204) if address in held else _error(404, "resource not found")
        return await carry(request, Write(lambda: _discard(held, address), answer))

    async def show_global(self, request: web.Request) -> web.Response:
        address = request.match_info["address"]
        return web.json_response({"recipient_email": address} if address in self.everywhere else {})

    def _add(self, group: str, addresses: Iterable[str]) -> None:
        """Add to the group, or, where it does not exist (any more), to the global list: the documented trap."""
        self.groups.get(group, self.everywhere).update(dict.fromkeys(addresses))

    def _shown(self, group: str) -> Mapping[str, object]:
        held = len(self.groups[group])
        return {"id": int(group), "name": f"Group {group}", "description": "", "is_default": False, "unsubscribes": held}


def _discard(held: dict[str, Any], key: str) -> None:
    held.pop(key, None)


def _recipients(body: bytes) -> list[str] | None:
    """Return the addresses of a request, None if it is not one: SendGrid refuses it as a whole."""
    try:
        found = json.loads(body)["recipient_emails"]
    except (ValueError, TypeError, KeyError):
        return None
    sound = isinstance(found, list) and found and all(isinstance(each, str) and "@" in each for each in found)
    return found if sound else None


def _error(status: int, message: str, field: str | None = None) -> web.Response:
    return web.json_response({"errors": [{"field": field, "message": message}]}, status=status)


def key_pair() -> tuple[str, str]:
    """Return a new private key and its public key, both base64 of DER: the public one as SendGrid shows it."""
    private = generate_private_key(SECP256R1())
    secret = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(secret).decode(), base64.b64encode(public).decode()


def sign(private_key: str, timestamp: str, body: bytes) -> dict[str, str]:
    """Return the two headers with which SendGrid would deliver this body. ``timestamp`` is Unix time in digits."""
    key = load_der_private_key(base64.b64decode(private_key), None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise TypeError("SendGrid signs with ECDSA")
    signature = key.sign(timestamp.encode() + body, ECDSA(SHA256()))
    return {SIGNATURE: base64.b64encode(signature).decode(), TIMESTAMP: timestamp, "Content-Type": "application/json"}
