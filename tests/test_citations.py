"""What comments refer to is there, and the pages that comments lean on say what the code does."""

from __future__ import annotations

import ast
import inspect
import re
import tokenize
from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import product
from pathlib import Path
from uuid import UUID

import pytest

from mailprefs import ledger, outbox, words
from mailprefs.errors import NotEntitled
from mailprefs.words import Address, Cause, Change, Door, Effect

HERE = Path(__file__)
ROOT = HERE.parent.parent
PACKAGE = ROOT / "mailprefs"
FILES = sorted(
    path
    for folder, kind in (("mailprefs", "py"), ("tests", "py"), ("tools", "py"), ("sql", "sql"))
    for path in (ROOT / folder).rglob(f"*.{kind}")
)
PAGES = sorted((ROOT / "docs").glob("*.md"))
# a page, and behind it a numbered section or a heading in quotes: docs/state.md §2 · docs/providers/ses.md "How it is verified"
CITED = re.compile(r'(?P<page>[\w./-]+\.md)\b`*(?:,? (?:§(?P<number>\d+)|"(?P<heading>[^"\n]+)"))?')
NAMED = re.compile(r"\b(?:docs|sql|tests|mailprefs|tools|examples)/[a-z0-9_./-]+\.(?:py|sql|md|toml)\b")
SOURCES = "SOURCE.md"  # there is one in each folder of payloads


def prose(path: Path) -> Iterator[str]:
    """Yield the comments and docstrings of a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".sql":
        yield "\n".join(comment for line in text.splitlines() if (comment := line.partition("--")[2]))
        return
    with path.open("rb") as file:
        yield "\n".join(token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (said := ast.get_docstring(node)):
            yield said


def astray(said: str) -> list[str]:
    """Return what a text cites and what is not there."""
    return [cited[0] for cited in CITED.finditer(said) if cited["page"] != SOURCES and not leads(cited)]


def leads(cited: re.Match[str]) -> bool:
    page = ROOT / cited["page"]
    if not page.is_file():
        return False
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    if cited["number"]:
        return any(heading.startswith(f"{cited['number']}. ") for heading in headings)
    return cited["heading"] is None or cited["heading"] in headings


@pytest.mark.parametrize("path", [path for path in FILES if path != HERE], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_page_and_section_that_a_comment_names_is_there(path: Path) -> None:
    assert [cited for said in prose(path) for cited in astray(said)] == []


@pytest.mark.parametrize("said", ["state.md §2", "docs/nowhere.md", "docs/state.md §99", '(docs/mail.md "How it is not")', "``x.md``"])
def test_a_citation_that_leads_nowhere_is_found(said: str) -> None:
    assert astray(f"True afterwards ({said}).")


def test_citations_are_found_where_they_stand() -> None:
    """The control: what is looked through holds some, with sections and with headings."""
    found = [cited for path in FILES if path != HERE for said in prose(path) for cited in CITED.finditer(said)]
    assert any(cited["number"] for cited in found)
    assert any(cited["heading"] for cited in found)


@pytest.mark.parametrize("path", [*PAGES, *(path for path in FILES if path != HERE)], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_is_there(path: Path) -> None:
    texts = [path.read_text(encoding="utf-8")] if path in PAGES else prose(path)
    assert [name for text in texts for name in NAMED.findall(text) if not (ROOT / name).exists()] == []


# docs/state.md


def rows(page: str, columns: int) -> Iterator[list[str]]:
    """Yield the cells of every row of a page's tables that has so many columns, headings among them."""
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == columns:
            yield cells


def in_ticks(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def entitled(cause: Cause, effect: Effect, door: Door) -> bool:
    """True if a door may make this Change on one of the nodes that the cause can sit on."""
    at = datetime.fromisoformat("2026-11-22T12:00+00:00")
    until = at + timedelta(days=1) if cause.ends and effect is Effect.STOP else None
    for scope in (0, 257):
        try:
            ledger.entitled(Change(Address(UUID(int=1)), scope, cause, effect, door, "1", at, until))
        except NotEntitled:
            continue
        return True
    return False


def test_the_page_on_state_says_who_may_stop_and_lift_what() -> None:
    table = {name: (stop, lift) for first, _, stop, lift in rows("state.md", 4) for name in in_ticks(first) if name in list(Cause)}
    assert set(table) == set(Cause)
    for cause, door in product(Cause, Door):
        stop, lift = table[cause]
        assert (stop == "every door" or door in in_ticks(stop)) is entitled(cause, Effect.STOP, door), (cause, door)
        assert (door in in_ticks(lift)) is entitled(cause, Effect.GO, door), (cause, door)


def test_every_worked_example_is_a_test_of_its_number() -> None:
    tested = set(re.findall(r"def test_(\d+)_", (ROOT / "tests/model/test_worked_examples.py").read_text(encoding="utf-8")))
    assert tested == {cells[0] for cells in rows("state.md", 6) if cells[0].isdecimal()}


# docs/outbox.md


def test_the_page_on_the_outbox_names_every_verdict_fate_and_column() -> None:
    page = (ROOT / "docs/outbox.md").read_text(encoding="utf-8")
    assert [verdict for verdict in outbox.Verdict if verdict.upper() not in page] == []
    table = re.search(
        r"create table push \((.+?)primary key", (ROOT / "sql/migrations/0001_state.sql").read_text(encoding="utf-8"), re.DOTALL
    )
    assert table
    columns = set(re.findall(r"(?m)^  (\w+) ", table[1])) - {"bucket", "account", "key", "scope"}
    assert columns
    assert {*outbox.Fate, *columns} - set(in_ticks(page)) == set()


def test_the_page_of_alarms_has_every_alarm_that_is_raised_and_no_other() -> None:
    raised = {name for path in PACKAGE.rglob("*.py") for name in alarmed(path.read_text(encoding="utf-8"))}
    assert {"quarantined", "unmapped_group", "unexpected"} < raised, "the control: all ways are seen"
    told = re.findall(r"(?m)^\| `(\w+)` \|", (ROOT / "docs/alarms.md").read_text(encoding="utf-8"))
    assert sorted(told) == sorted(raised)


def alarmed(code: str) -> list[str]:
    """The names of the alarms that a room raises, at once or where it adds them up."""
    return re.findall(r'(?:telemetry\.alarm\(|alarms\[)"(\w+)"', code)


# docs/rooms.md


def floors() -> dict[str, float]:
    """The floor of each room that is there, as tests/test_floors.py says it."""
    tree = ast.parse((HERE.parent / "test_floors.py").read_text(encoding="utf-8"))
    [value] = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS"]
    there = {".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for path in PACKAGE.rglob("*.py")}
    return {room: float(floor) for floor, rooms in ast.literal_eval(value).items() for room in rooms if room in there}


def test_the_map_shows_every_room_on_its_floor_and_no_other() -> None:
    shown = {room: float(floor) for floor, names, _ in rows("rooms.md", 3) if re.fullmatch(r"[\d.]+", floor) for room in in_ticks(names)}
    assert shown == floors()


def test_the_map_goes_from_the_ground_up() -> None:
    tables = re.findall(r"(?:^\| [\d.]+ \|.*\n)+", (ROOT / "docs/rooms.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(tables) == 2
    for table in tables:
        shown = [float(floor) for floor in re.findall(r"(?m)^\| ([\d.]+) \|", table)]
        assert shown == sorted(shown)


# docs/glossary.md


def test_the_glossary_has_every_word_of_the_words() -> None:
    glossary = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    terms = set(re.findall(r"(?m)^\| \*\*(.+?)\*\*", glossary))
    said = set(in_ticks(glossary))
    for name, kind in inspect.getmembers(words, inspect.isclass):
        if kind.__module__ == words.__name__:
            assert name in terms, name
            assert not issubclass(kind, StrEnum) or {word.value for word in kind} <= said, name
