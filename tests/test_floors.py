"""The architecture, as a test: rooms import only from floors below, and each dangerous thing has one place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mailprefs

PACKAGE = Path(mailprefs.__file__).parent
FLOORS = {
    0: ("words", "errors"),
    0.1: ("shipped", "files", "mistakes", "languages", "colours", "logos", "masks", "patience", "columns"),
    1: ("addresses", "bodies", "tuning", "catalogue", "settings", "db", "telemetry", "client", "rows", "packing"),
    1.1: ("foreign", "parquet", "sheets"),
    1.2: ("crews", "tables"),
    2: ("clock", "links", "embedded", "numbers", "proof"),
    2.04: ("spelling", "seals"),
    2.05: ("turning", "passes"),
    3: ("ledger", "decisions", "audience", "directory", "receipts", "apikeys", "softbounces", "silence", "replicas"),
    3.3: ("shapes",),
    4: (
        "groupcommit",
        "inbox",
        "outbox",
        "feed",
        "exports",
        "privacy",
        "bulk",
        "candidates",
        "suppressions",
        "checkup",
        "restore",
        "letters",
        "reception",
        "choices",
    ),
    4.1: ("leaving", "senders", "reports", "wishes", "jury"),
    5: ("courier", "reconcile", "webhooks", "post", "mailroom"),
    5.5: ("lmtp",),
    5.9: ("web.arrivals", "web.asking", "web.evenness", "web.thoughts"),
    5.95: ("web.bursts",),
    6: ("web.keys", "web.problems", "web.pages"),
    6.1: ("web.guard", "web.connections", "web.forms"),
    6.2: ("web.wire", "web.questions"),
    6.25: ("web.screens",),
    6.28: ("web.presses",),
    6.3: ("web.deeds", "web.signals"),
    6.4: ("web.board",),
    7: (
        "web.recipient",
        "web.preferences",
        "web.manage",
        "web.optin",
        "web.provider",
        "web.marketer",
        "web.changes",
        "web.audiences",
        "web.exports",
        "web.operator",
        "web.admin",
    ),
    7.1: ("web.candidates",),
    8: ("web.app", "worker", "web"),
    9: ("demo.stage",),
    9.1: ("demo.story",),
    9.2: ("demo",),
    9.9: ("cli.saying", "cli.signals"),
    10: ("cli.opening",),
    10.05: ("cli.invite", "cli.suppressions"),
    10.1: (
        "cli.audiences",
        "cli.candidates",
        "cli.drift",
        "cli.endpoints",
        "cli.secrets",
        "cli.mint",
        "cli.people",
        "cli.operate",
        "cli.post",
        "cli.receipts",
        "cli.demo",
        "cli.tryout",
    ),
    10.15: ("cli.exports",),
    10.2: ("cli.service", "cli.hooks"),
    10.3: ("cli",),
    11: ("__main__",),
    # the providers' own stairs, beside floors 2 to 4, and the sandbox's beside floor 5
    2.1: ("providers.base",),
    2.2: ("providers.signing", "providers.sigv4", "providers.reading", "providers.facts", "providers.samples"),
    2.3: (
        "providers.bounces",
        "providers.calling",
        "providers.mending",
        "providers.posted",
        "providers.returned",
        "providers.sns",
        "providers.sorting",
        "providers.unsigned",
        "providers.attempts",
    ),
    2.4: ("providers.offsets", "providers.steady", "providers.telling"),
    2.5: (
        "providers.customerio_people",
        "providers.klaviyo_suppressions",
        "providers.mailersend_unsubscribes",
        "providers.mailgun_tags",
        "providers.mandrill_denylist",
        "providers.ses_contacts",
        "providers.sparkpost_lists",
    ),
    3.1: (
        "providers.brevo",
        "providers.customerio",
        "providers.klaviyo",
        "providers.mailchimp",
        "providers.mailersend",
        "providers.mailgun",
        "providers.mailjet",
        "providers.mandrill",
        "providers.postmark",
        "providers.resend",
        "providers.sendgrid",
        "providers.ses",
        "providers.sparkpost",
        "providers.standard",
        "providers.twilio",
    ),
    3.2: ("providers",),
    5.1: ("sandbox.faults",),
    5.2: (
        "sandbox.brevo",
        "sandbox.customerio",
        "sandbox.klaviyo",
        "sandbox.mailchimp",
        "sandbox.mailersend",
        "sandbox.mailgun",
        "sandbox.mailjet",
        "sandbox.mandrill",
        "sandbox.postmark",
        "sandbox.resend",
        "sandbox.sendgrid",
        "sandbox.ses",
        "sandbox.sparkpost",
        "sandbox.twilio",
    ),
    5.3: ("sandbox.app", "sandbox"),
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def rooms() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    found.pop("__init__")
    return found


ROOMS = rooms()


def imported(tree: ast.Module) -> set[str]:
    """Every module that a room imports, by full name; ``from package import module`` counts as the module."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(tree: ast.Module) -> set[str]:
    found = {name.removeprefix("mailprefs.") for name in imported(tree) if name.startswith("mailprefs.")}
    known = {name for name in found if name in FLOOR}
    # `from mailprefs.providers import base` names the package too; only the module it means counts
    return {name for name in known if not any(other.startswith(f"{name}.") for other in known)}


def test_every_room_has_its_floor() -> None:
    assert {room for room in ROOMS if room not in FLOOR} == set()


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_from_floors_below(room: str) -> None:
    above = {name for name in ours(ROOMS[room]) if FLOOR[name] >= FLOOR[room] and name != room}
    allowed = {"web.keys"} if room == "web.pages" else set()
    assert above - allowed == set()


@pytest.mark.parametrize(
    ("library", "where"),
    [
        ("asyncpg", r"db|ledger|embedded|cli\..+"),
        ("aiohttp", r"providers(\..+)?|client|courier|reconcile|webhooks|post|mailroom|sandbox(\..+)?|web(\..+)?|worker|demo\..+|cli\..+"),
        ("click", r"cli(\..+)?"),
        ("jinja2", r"web\.pages|post"),
    ],
)
def test_a_library_is_imported_in_its_rooms_alone(library: str, where: str) -> None:
    users = {room for room, tree in ROOMS.items() if any(name.split(".")[0] == library for name in imported(tree))}
    assert {room for room in users if not re.fullmatch(where, room)} == set()
    assert users  # else the rule guards nothing


def attributes(tree: ast.Module) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_the_environment_is_read_in_one_place() -> None:
    assert {room for room, tree in ROOMS.items() if attributes(tree) & {"os.environ", "os.getenv", "os.environb"}} == {"settings"}


def test_the_clock_is_read_at_doors_and_in_the_worker_alone() -> None:
    reading = re.compile(r"(datetime|dt\.datetime)\.(now|utcnow|today)|date\.today|time\.time(_ns)?")
    users = {room for room, tree in ROOMS.items() if any(reading.fullmatch(name) for name in attributes(tree))}
    assert users <= {"cli.opening", "web.keys", "worker", "demo.stage", "demo.story", "sandbox.faults", "providers.sigv4"}
    assert "web.keys" in users


def test_no_sql_stands_in_python() -> None:
    sql = re.compile(r"\b(select|insert into|update|delete from)\b.+\b(from|values|set|where)\b", re.IGNORECASE | re.DOTALL)
    for room, tree in ROOMS.items():
        docs = {id(doc) for node in ast.walk(tree) if (doc := _docstring(node)) is not None}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                assert not sql.search(node.value), f"{room}: {node.value[:60]}"


def _docstring(node: ast.AST) -> ast.expr | None:
    """Return the node of a docstring, which may say anything."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
        return None
    return node.body[0].value if isinstance(node.body[0], ast.Expr) else None


def test_links_load_nothing_heavy() -> None:
    script = "import sys, mailprefs.links; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"socket", "ssl", "asyncio", "aiohttp", "asyncpg", "pydantic", "email_validator", "idna", "phonenumbers", "sqlite3", "click"}
    assert heavy & set(loaded) == set()
    assert "itsdangerous" in loaded


def test_no_function_is_longer_than_forty_lines_and_no_room_past_four_hundred() -> None:
    long = [
        f"{room}.{node.name}"
        for room, tree in ROOMS.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 45
    ]
    assert long == []
    assert [path.name for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 420] == []
