"""What README.md tells a stranger to type works as it stands there, from `mailprefs init` on, on a PostgreSQL of its own."""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BESIDE = Path(sys.executable).parent  # where the command `mailprefs` lies

SECTION = (ROOT / "README.md").read_text(encoding="utf-8").partition("## In five minutes")[2].partition("\n## ")[0]
FIRST, SECOND = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)[0]


def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """A terminal's, with nothing set that a stranger would not have set."""
    return {"PATH": f"{BESIDE}{os.pathsep}{os.environ['PATH']}", "EDITOR": "true", "PORT": str(port()), "HOME": os.environ.get("HOME", "/")}


def typed(lines: str, home: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines], cwd=home, env=environment, capture_output=True, text=True, timeout=60, check=True
    )


@contextmanager
def serving(home: Path, environment: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen([BESIDE / "mailprefs", "serve"], cwd=home, env=environment, stderr=subprocess.PIPE, text=True) as served:
        try:
            assert served.stderr
            assert any(environment["PORT"] in line for line in served.stderr), "it says where it serves"
            yield
        finally:
            served.send_signal(signal.SIGTERM)
            served.communicate(timeout=30)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The shop of the stranger, after the lines of both terminals."""
    began, _, rest = FIRST.partition("mailprefs serve")
    assert rest.strip().startswith("#"), "nothing stands after it: it serves until it is ended"
    home = tmp_path_factory.mktemp("stranger")
    typed(began.replace('export PATH="$PWD/.venv/bin:$PATH"\n', ""), home, environment)
    with serving(home / "shop", environment):
        typed(SECOND, home / "shop", environment)
    return home / "shop"


@pytest.mark.timeout(120)
def test_both_terminals_of_the_readme_come_to_a_mailing_without_who_left(shop: Path) -> None:
    with (shop / "mailing.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["address"] for row in rows] == ["jane@example.com"]
    assert "https://go.example.com/u/" in " ".join(rows[0].values())


def test_the_message_of_the_readme_lacks_a_signature_alone(shop: Path, environment: dict[str, str]) -> None:
    (shop / "example.py").write_text(PYTHON, encoding="utf-8")
    typed(f"{sys.executable} example.py", shop, environment)
    checked = typed("mailprefs check message.eml || [ $? = 1 ]", shop, environment).stdout.splitlines()
    assert [line.split()[1] for line in checked if not line.startswith("pass")] == ["dkim-covers", "dkim-valid"]
