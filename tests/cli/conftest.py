"""A directory with all that a command needs, and a database that knows its catalogue."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mailprefs.links import KeyRing

from .shell import Forker, Shell

CATALOGUE = Path(__file__).parent.parent / "catalogue.toml"


@pytest.fixture(scope="session")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    made = Forker(tmp_path_factory.mktemp("forker"))
    yield made
    made.close()


@pytest.fixture
def alone(tmp_path: Path, ring: KeyRing, forker: Forker) -> Shell:
    """Everything but a database: who needs one fails."""
    home = tmp_path / "a home"
    home.mkdir()
    shutil.copy(CATALOGUE, home / "mailprefs.toml")
    keys = home / "mailprefs.keys.json"
    keys.write_text(ring.dumped())
    keys.chmod(0o600)
    raw = json.loads(ring.dumped())
    secrets = [raw["digest"], raw["export"], *(key["secret"] for key in raw["keys"])]
    return Shell(home, ring, forker, {"DATABASE_URL": "postgresql://jane:canary-password@127.0.0.1:1/x"}, [*secrets, "canary-password"])


@pytest.fixture
def shell(alone: Shell, database: str) -> Shell:
    """Everything, and the test's own database."""
    alone.environment["DATABASE_URL"] = database
    if password := urlsplit(database).password:
        alone.secrets.append(password)
    return alone
