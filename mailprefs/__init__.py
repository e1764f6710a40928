"""mailprefs: the one place that knows who may be sent what.

The library's face, lazy so that ``import mailprefs`` costs nothing: ``Links`` and ``KeyRing`` to mint and check unsubscribe links
without a server, ``guard`` to refuse a marketing message that lacks them, and the words they speak in.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailprefs.addresses import Addresses
    from mailprefs.links import KeyRing, Links, Minted, Token, guard, read
    from mailprefs.words import Channel, Stream

__version__ = "0.1.0"
__all__ = ["Addresses", "Channel", "KeyRing", "Links", "Minted", "Stream", "Token", "guard", "read"]

_ROOMS = {"Addresses": "addresses", "Channel": "words", "Stream": "words"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mailprefs' has no attribute {name!r}")
    return getattr(import_module(f"mailprefs.{_ROOMS.get(name, 'links')}"), name)
