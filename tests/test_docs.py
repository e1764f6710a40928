"""The documents say what is so: links lead somewhere, the worked example is worked again, commands exist."""

from __future__ import annotations

import ast
import base64
import hmac
import io
import json
import re
import subprocess
import sys
from dataclasses import fields
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from pydantic import BaseModel

from mailprefs import bulk, catalogue, foreign, links, rows
from mailprefs.addresses import Addresses
from mailprefs.apikeys import Power
from mailprefs.cli import service
from mailprefs.links import Key, KeyRing, KeyState, Links, Token
from mailprefs.providers import PROVIDERS
from mailprefs.sandbox import faults
from mailprefs.settings import Settings
from mailprefs.web import app, exports, marketer, problems
from mailprefs.words import Cause, Channel, Decision, Door, Reason, Stream

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


def test_the_links_shown_in_the_readme_are_whole() -> None:
    """One token throughout, in its one spelling, and the words of the header as they are minted."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tokens = set(re.findall(r"[A-Za-z0-9_-]{26}\.[A-Za-z0-9_-]{18}(?![\w-])", text))
    assert len(tokens) == 1
    token = tokens.pop()
    header = f"List-Unsubscribe: <https://go.example.com/u/{token}>, <mailto:u+{token}@go.example.com>\n"
    assert f"{header}List-Unsubscribe-Post: {links.ONE_CLICK}\nList-Id: <newsletter.go.example.com>\n" in text


# The pages that say what there is: each is held to the code.


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def sections(text: str) -> dict[str, str]:
    """What stands under each second heading of a page."""
    return dict(re.findall(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)", text))


def table(section: str) -> dict[str, list[str]]:
    """The rows of the tables of a section by their first cell, if that is a name."""
    rows = re.findall(r"(?m)^\| `([\w.]+)` \| (.+) \|$", section)
    return {name: rest.split(" | ") for name, rest in rows}


MODELS: dict[str, type[BaseModel]] = {
    "`[[brand]]`": catalogue.Brand,
    "`[[brand.topic]]`": catalogue.Topic,
    "`[[account]]`": catalogue.Account,
    "`[[webhook]]`": catalogue.Webhook,
    "`[soft_bounces]`": catalogue.SoftBounces,
}


@pytest.mark.parametrize("heading", list(MODELS))
def test_the_page_of_the_catalogue_has_every_key_and_no_other(heading: str) -> None:
    told = table(sections(page("catalogue"))[heading])
    keys = {field.alias or name: field for name, field in MODELS[heading].model_fields.items()}
    assert list(told) == list(keys)
    for name, (_, default, meaning) in told.items():
        assert (default == "required") is keys[name].is_required(), name
        assert meaning
        if written := re.fullmatch(r'`"?([^"]+?)"?`', default):
            assert read(heading, name, written[1]) == keys[name].default, name


def read(heading: str, name: str, text: str) -> object:
    """A default as the catalogue would read it."""
    value: object = {"true": True, "false": False}.get(text, int(text) if text.isdecimal() else text)
    given = dict(LEAST[heading], **{name: value})
    return getattr(MODELS[heading].model_validate(given), name)


LEAST: dict[str, dict[str, object]] = {
    "`[[brand]]`": {
        "name": "b",
        "title": "B",
        "number": 1,
        "link_host": "b.example",
        "mailto": "u@b.example",
        "postal_address": "1 Main Street",
    },
    "`[[brand.topic]]`": {"name": "t", "title": "T", "number": 16},
    "`[[account]]`": {"name": "a", "provider": "sendgrid", "brand": "b"},
    "`[[webhook]]`": {"name": "w", "url": "https://crm.example.com/hooks", "secret": "CRM_SECRET"},
    "`[soft_bounces]`": {},
}


def test_every_table_of_the_catalogue_has_its_section() -> None:
    tables = {"brand": "`[[brand]]`", "account": "`[[account]]`", "webhook": "`[[webhook]]`", "soft_bounces": "`[soft_bounces]`"}
    assert set(catalogue.Catalogue.model_fields) == set(tables)
    assert set(tables.values()) < set(sections(page("catalogue")))


def test_the_example_of_the_catalogue_is_one() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", page("catalogue"), re.DOTALL)
    found = catalogue.parse(example)
    assert found.account[0].provider in PROVIDERS
    assert set(re.findall(r"`(\w+)`", table(page("catalogue"))["provider"][2])) == set(PROVIDERS)


@pytest.mark.parametrize("kind", list(bulk.COLUMNS))
def test_the_page_of_imports_has_every_column_that_is_read(kind: str) -> None:
    assert tuple(table(sections(page("imports"))[f"`import {kind}`"])) == bulk.COLUMNS[kind]


@pytest.mark.parametrize("origin", foreign.ORIGINS, ids=lambda origin: origin.name)
def test_the_page_of_imports_has_every_file_that_is_recognised(origin: foreign.Origin) -> None:
    rows = [line.split("|")[1] for line in page("imports").split("### A provider's own file")[1].splitlines() if line.startswith("|")]
    named = [{column for each in re.findall(r"`([^`]+)`", row) for column in each.split(",")} for row in rows]
    assert any(origin.must <= columns for columns in named)


async def test_the_rows_on_the_page_of_imports_are_taken(
    conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: catalogue.Catalogue, now: datetime
) -> None:
    importer = bulk.Import(addresses, shared_catalogue, now)
    readers: dict[str, tuple[Any, Any]] = {
        "addresses": (importer.address, bulk.entries),
        "suppressions": (importer.suppression, bulk.changes),
        "consents": (importer.consent, bulk.claims),
    }
    refused: list[str] = []
    for kind, (reader, writer) in readers.items():
        (shown,) = re.findall(r"```csv\n(.*?)```", sections(page("imports"))[f"`import {kind}`"], re.DOTALL)
        columns, found = rows.read(io.StringIO(shown, newline=""))
        assert set(columns) <= set(bulk.COLUMNS[kind])
        tally = await bulk.run(
            conn, found, reader, writer, now=now, reject=lambda _row, why: refused.append(why), progress=lambda more: None
        )
        assert (tally.added, refused) == (len(shown.splitlines()) - 1, []), kind


def test_the_limits_of_a_proof_are_those_of_the_page() -> None:
    assert f"At most {bulk.SOURCE} characters" in page("imports")
    assert f"At most {bulk.NOTICE:,} characters" in page("imports")


def routes() -> dict[str, str]:
    """Each route of /v1, and the power that it wants."""
    found = {}
    rooms = [
        ast.parse((ROOT / f"mailprefs/web/{room}.py").read_text(encoding="utf-8"))
        for room in ("marketer", "changes", "audiences", "candidates", "exports", "operator")
    ]
    for node in (node for room in rooms for node in ast.walk(room)):
        if isinstance(node, ast.AsyncFunctionDef):
            said = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
            if route := re.search(r"routes\.(get|post|delete|put)\('(.+?)'\)", said):
                power = re.search(r"wants\(Power\.(\w+)\)", said)
                assert power, f"{route[2]} wants no power"
                found[f"`{route[1].upper()} {route[2]}`"] = power[1].lower()
    return found


def test_the_page_of_the_api_has_every_route_with_the_power_it_wants() -> None:
    told = {heading: text for heading, text in sections(page("api")).items() if heading.startswith("`")}
    assert set(told) == set(routes())
    for heading, power in routes().items():
        assert f"Wants `{power}`." in told[heading], heading
    powers = {name for row in re.findall(r"(?m)^\| (`.+?`) \|", sections(page("api"))["Keys"]) for name in re.findall(r"`(\w+)`", row)}
    assert powers == {power.value for power in Power}


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("`POST /v1/links`", marketer.LinksAsked),
        ("`POST /v1/decisions`", marketer.DecisionsAsked),
        ("`POST /v1/addresses/lookup`", marketer.LookupAsked),
        ("`POST /v1/exports`", exports.ExportAsked),
    ],
)
def test_the_questions_on_the_page_of_the_api_are_understood(heading: str, model: type[BaseModel]) -> None:
    asked, *_ = re.findall(r"```json\n(.*?)```", sections(page("api"))[heading], re.DOTALL)
    assert model.model_validate_json(asked).model_dump() == json.loads(asked)


def test_the_answers_on_the_page_of_the_api_have_the_keys_of_the_words() -> None:
    (_, answered) = re.findall(r"```json\n(.*?)```", sections(page("api"))["`POST /v1/decisions`"], re.DOTALL)
    (decision, _) = json.loads(answered)["decisions"]
    assert list(decision) == [field.name for field in fields(Decision)]
    assert list(decision["reasons"][0]) == [field.name for field in fields(Reason)]


def kinds_answered() -> set[str]:
    """Every kind of problem that the code can answer with."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "mailprefs/web").glob("*.py"))
    literal = re.findall(r'\bproblem\((?:\d+|status), "([a-z0-9-]+)"', code)
    chosen = [kind for line in re.findall(r"(?m)^ *kind = \{.*$", code) for kind in re.findall(r'"([a-z-]+)"', line)]
    return {kind for _, _, kind in problems._KINDS} | set(literal) | set(chosen)


def test_the_page_of_errors_has_every_kind_that_is_answered_and_no_other() -> None:
    assert {"internal", "unknown-account", "not-found", "refused", "not-http-1"} < kinds_answered(), "the control: all ways are seen"
    assert set(sections(page("errors"))) == kinds_answered()


def test_the_page_of_the_sandbox_has_every_fault() -> None:
    assert re.findall(r"(?m)^\| `([\w-]+)` \|", page("sandbox")) == list(faults.COURSES)


def test_each_error_is_told_with_the_status_that_it_has() -> None:
    told = sections(page("errors"))
    for _, status, kind in problems._KINDS:
        assert told[kind].strip().startswith(f"{status}."), kind
    body = problems.problem(404, "unknown-scope", "").body
    assert isinstance(body, bytes)
    assert json.loads(body)["type"] == re.findall(r'"type": "(.+?)"', page("errors"))[0]


def test_the_readme_says_how_many_connections_a_process_holds() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"A web process holds up to {app.CONNECTIONS} connections" in text
    assert f"a worker up to {service.CONNECTIONS}" in text


def test_the_readme_has_every_variable_of_the_environment() -> None:
    text = sections((ROOT / "README.md").read_text(encoding="utf-8"))["In production"]
    named = re.findall(r"`([A-Z_]{4,})`", " ".join(re.findall(r"(?m)^\| (`.*?) \|", text)))
    assert sorted(named) == sorted(["METRICS_TOKEN", *(str(field.alias) for field in Settings.model_fields.values())])
