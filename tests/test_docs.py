"""The documents say what is so: links lead somewhere, the worked example is worked again, commands exist."""

from __future__ import annotations

import base64
import hmac
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from uuid import UUID

import pytest

from mailprefs import links
from mailprefs.addresses import Addresses
from mailprefs.links import Key, KeyRing, KeyState, Links, Token
from mailprefs.words import Cause, Channel, Door, Stream

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_the_documents_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_written_down_exists(page: Path) -> None:
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    written = re.findall(r"`mailprefs ([a-z-]+)", page.read_text(encoding="utf-8"))
    written += [command for block in blocks for command in re.findall(r"(?m)^(?:\$ )?(?:\S+=\S+ )*mailprefs ([a-z-]+)", block)]
    told = subprocess.run([sys.executable, "-m", "mailprefs", "--help"], check=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert set(written) <= set(re.findall(r"(?m)^  ([a-z-]+)  ", told.stdout))


@pytest.fixture(scope="module")
def example() -> dict[str, str]:
    """The worked example of docs/tokens.md, by its names."""
    block = re.search(r"```text\n(digest key.*?)```", (ROOT / "docs/tokens.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in block[1].splitlines())}


def test_the_worked_example_of_the_tokens_page_is_right(example: dict[str, str]) -> None:
    key = hmac.digest(bytes.fromhex(example["digest key"]), b"email\0" + example["canonical"].encode(), "sha256")[:16]
    raw = bytes([int(example["key id"])]) + int(example["scope"]).to_bytes(2, "big") + key
    body = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    subkey = hmac.digest(bytes.fromhex(example["signing secret"]), b"mailprefs/u/1", "sha256")
    tag = hmac.digest(subkey, body.encode(), "sha256")[:13]
    token = f"{body}.{base64.urlsafe_b64encode(tag).decode().rstrip('=')}"
    said = [example[name] for name in ("address key", "bytes", "body", "subkey", "tag", "token", "link")]
    assert said == [key.hex(), raw.hex(), body, subkey.hex(), tag.hex(), token, f"https://go.example.com/u/{token}"]


def test_the_library_agrees_with_the_worked_example(example: dict[str, str]) -> None:
    secret, digest = bytes.fromhex(example["signing secret"]), bytes.fromhex(example["digest key"])
    ring = KeyRing(digest, (Key(int(example["key id"]), secret, KeyState.MINT, date(2026, 11, 22)),), bytes(32))
    address = Addresses(digest).read(example["address"])
    assert address.key == UUID(example["address key"])
    assert links.read(ring, example["token"]) == Token(1, 272, address.key)
    assert Links(ring, "go.example.com", "u@go.example.com").url(example["token"]) == example["link"]


def test_the_glossary_names_every_cause_door_stream_and_channel() -> None:
    glossary = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    for words in (Cause, Door, Stream, Channel):
        assert {word.value for word in words} <= set(re.findall(r"`(\w+)`", glossary))


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block
    (tmp_path / "mailprefs.toml").write_bytes((ROOT / "examples/mailprefs.toml").read_bytes())
    (tmp_path / "mailprefs.keys.json").write_text(KeyRing.new(date(2026, 11, 22)).dumped())
    (tmp_path / "mailprefs.keys.json").chmod(0o600)
    before = "from email.message import EmailMessage\nmessage = EmailMessage()\n"
    shown = block[1].replace("minted.put_on(message)", "message.set_content(minted.url); minted.put_on(message)")
    script = f"{before}{shown}\nprint(message['List-Id'])\n"
    run = subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert run.stdout == "<newsletter.go.example.com>\n", run.stderr


def test_the_links_shown_in_the_readme_are_whole() -> None:
    """One token throughout, in its one spelling, and the words of the header as they are minted."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tokens = set(re.findall(r"[A-Za-z0-9_-]{26}\.[A-Za-z0-9_-]{18}(?![\w-])", text))
    assert len(tokens) == 1
    token = tokens.pop()
    header = f"List-Unsubscribe: <https://go.example.com/u/{token}>, <mailto:u+{token}@go.example.com>\n"
    assert f"{header}List-Unsubscribe-Post: {links.ONE_CLICK}\nList-Id: <newsletter.go.example.com>\n" in text
