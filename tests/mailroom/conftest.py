"""A mailroom of the shared catalogue, and letters to it."""

from __future__ import annotations

import pytest

from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.links import KeyRing, Links
from mailprefs.mailroom import Mailroom

from .postbox import AUTHSERV, Postbox


@pytest.fixture
def room(shared_catalogue: Catalogue, addresses: Addresses, ring: KeyRing) -> Mailroom:
    return Mailroom(shared_catalogue, addresses, ring, AUTHSERV)


@pytest.fixture
def box(links: Links, addresses: Addresses, shared_catalogue: Catalogue) -> Postbox:
    return Postbox(links, addresses, shared_catalogue)
