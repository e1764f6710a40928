"""What the cases of providers share that sign nothing and are known by user and password."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

from mailprefs.providers.base import Delivery

from .cases import RECEIVED

USER, PASSWORD, PASSWORD_NEXT, STRANGE = "mailprefs", "first-password", "second-password", "nobodys-password"
SECRETS = {"webhook_user": USER, "webhook_password": PASSWORD}
SHORT = {"webhook_user": "me", "webhook_user_next": "me", "webhook_password": PASSWORD[:8], "webhook_password_next": PASSWORD_NEXT[:8]}


def signer(user: str, password: str) -> Callable[[bytes], Delivery]:
    """Return what delivers bodies with this user and password."""
    proof = "Basic " + b64encode(f"{user}:{password}".encode()).decode()
    return lambda body: Delivery(
        [("Host", "go.example.com"), ("Content-Type", "application/json"), ("Authorization", proof)], body, RECEIVED
    )
