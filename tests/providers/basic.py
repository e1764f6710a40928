"""What the cases of providers share that sign nothing and are known by user and password."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mailprefs.providers import PROVIDERS
from mailprefs.providers.base import Credential, Delivery

from .cases import PAYLOADS, RECEIVED, Case

USER, PASSWORD, PASSWORD_NEXT, STRANGE = "mailprefs", "first-password", "second-password", "nobodys-password"
SECRETS = {"webhook_user": USER, "webhook_password": PASSWORD}
SHORT = {"webhook_user": "me", "webhook_user_next": "me", "webhook_password": PASSWORD[:8], "webhook_password_next": PASSWORD_NEXT[:8]}


def signer(user: str, password: str) -> Callable[[bytes], Delivery]:
    """Return what delivers bodies with this user and password."""
    proof = "Basic " + b64encode(f"{user}:{password}".encode()).decode()
    return lambda body: Delivery(
        [("Host", "go.example.com"), ("Content-Type", "application/json"), ("Authorization", proof)], body, RECEIVED
    )


def documented(name: str) -> list[dict[str, Any]]:
    """Return the events that a provider documents, in the order of its file."""
    told: list[dict[str, Any]] = json.loads((PAYLOADS / name / "documented.json").read_bytes())
    return told


def in_array(events: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(events) + b"]"


def case(
    name: str, words: Sequence[str], group: str, *, told: Sequence[object] | None = None, out: Mapping[str, str] | None = None, **more: Any
) -> Case:
    """Return a provider's case: its words for the events of its file, in their order, a group that it maps, and secrets to tell it."""
    secrets = {**SECRETS, **(out or {})}
    events = [json.dumps(event).encode() for event in (told or documented(name))]
    return Case(
        provider=PROVIDERS[name],
        credential=Credential(f"{name}-main", secrets, {"scopes": {"newsletter": group}}),
        rotated=Credential(f"{name}-main", secrets | {"webhook_password_next": PASSWORD_NEXT}),
        sign=signer(USER, PASSWORD),
        sign_next=signer(USER, PASSWORD_NEXT),
        sign_strange=signer(USER, STRANGE),
        proofs=("Authorization",),
        documented=dict(zip(words, events, strict=True)),
        short=SHORT | {secret: value[:6] for secret, value in (out or {}).items()},
        covered=False,
        **more,
    )
