"""What is shipped is whole: pinned, hashed, from nowhere in particular, with its SQL, and thin where it must be."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mailprefs import shipped

REPOSITORY = Path(__file__).parent.parent
RUNNING, EVERYTHING = REPOSITORY / "requirements.lock", REPOSITORY / "requirements-dev.lock"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
HOSTS = re.compile(r"\w+://|--(index|extra-index|find-links|trusted-host)|\b[\w-]+\.(org|com|net|io|dev|cloud|internal)\b", re.IGNORECASE)
NEVER = ("py" + "pi.", "python" + "hosted", "--extra-" + "index-url", "artifact" + "ory")  # spelt so that this file does not name one
PIN = re.compile(r"([a-z0-9-]+)==([\w.]+)( ; .+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)")


def pins(lock: Path) -> dict[str, str]:
    return {name: version for name, version, *_ in PIN.findall(lock.read_text())}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline from a copy: with the build tools of the locks and nothing else."""
    source, out = tmp_path_factory.mktemp("source") / "a clone", tmp_path_factory.mktemp("wheel")
    parts = ("mailprefs", "sql", "examples", "docs")
    for part in parts:
        shutil.copytree(REPOSITORY / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for path in REPOSITORY.glob("*"):
        if path.is_file():
            shutil.copy(path, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source)]
    subprocess.run([*build, "--quiet", "--disable-pip-version-check"], check=True, timeout=120)
    return next(out.glob("mailprefs-*.whl"))


@pytest.mark.parametrize("lock", [RUNNING, EVERYTHING], ids=lambda lock: lock.name)
def test_every_pin_of_a_lock_has_its_hashes_and_no_line_says_where_from(lock: Path) -> None:
    text = lock.read_text()
    assert PIN.sub("", text) == ""
    assert HOSTS.search(text) is None
    assert HOSTS.search(f"--index-url https://packages.example.com/simple\n{text}")  # the control


def test_the_larger_lock_pins_all_that_runs_at_the_very_same_versions() -> None:
    assert pins(RUNNING).items() <= pins(EVERYTHING).items()
    assert not {"pytest", "mypy", "ruff", "hypothesis"} & pins(RUNNING).keys()


def test_all_that_is_asked_for_is_pinned_as_asked() -> None:
    groups, extras = PROJECT["dependency-groups"], PROJECT["project"]["optional-dependencies"]
    wanted = chain(PROJECT["project"]["dependencies"], *extras.values(), *(g for name, g in groups.items() if name != "dev"))
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins(EVERYTHING)[canonicalize_name(requirement.name)]), requirement


EXTRAS = {"parquet.py": {"duckdb"}, "columns.py": {"datafusion", "pyarrow"}}  # the rooms that know what to do where an extra is missing


def test_no_room_imports_what_running_does_not_install() -> None:
    sources = packages_distributions()
    for path in (REPOSITORY / "mailprefs").rglob("*.py"):
        for name in _imported(path.read_text()) - set(sys.stdlib_module_names) - {"mailprefs"} - EXTRAS.get(path.name, set()):
            assert {canonicalize_name(source) for source in sources[name]} & pins(RUNNING).keys(), f"{path} imports {name}"
    assert _imported("def f():\n    from pytest.mark import x, y\n    import hypothesis.strategies") == {"pytest", "hypothesis"}
    assert not {"pytest", "hypothesis"} & pins(RUNNING).keys()  # the control: these would be found


def _imported(code: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(code)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}}


def test_no_file_names_the_host_of_a_registry() -> None:
    kinds = {".py", ".toml", ".lock", ".md", ".sql", ".sh", ".cfg", ".ini", ".txt", ".yml", ".yaml", ".json", ""}
    assert [f"{path}: {found}" for path in _ours() if path.suffix in kinds for found in _named(path)] == []


def _ours() -> Iterator[Path]:
    """Every file of the project; not what tools leave beside them."""
    for path in chain.from_iterable(part.rglob("*") if part.is_dir() else [part] for part in REPOSITORY.iterdir() if _is_ours(part)):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _is_ours(part: Path) -> bool:
    return not part.name.startswith(".") or part.name in {".ci", ".gitignore"}


def _named(path: Path) -> list[str]:
    text = path.read_text(errors="replace").lower()
    return [host for host in NEVER if host in text]


def test_the_wheel_holds_every_room_and_every_query_where_the_rooms_look(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sql = {f"mailprefs/sql/{path.relative_to(REPOSITORY / 'sql').as_posix()}" for path in (REPOSITORY / "sql").rglob("*.sql")}
    rooms = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "mailprefs").rglob("*.py")}
    assert sql
    assert sql | rooms <= names
    assert not {name for name in names if name.startswith(("tests/", "tools/", "sql/"))}


def test_an_installed_wheel_reads_its_own_sql_and_an_editable_one_the_repository(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    said = in_a_new_python("from mailprefs import shipped; print(shipped.folder('sql'))", first=tmp_path, site=True)
    assert Path(said.strip()) == tmp_path / "mailprefs" / "sql"
    assert shipped.folder("sql") == REPOSITORY / "sql"


def test_a_link_is_minted_and_read_with_itsdangerous_and_the_standard_library_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    files = distribution("itsdangerous").files or []
    for file in files:
        if file.parts[0] == "itsdangerous" and file.suffix == ".py":
            (tmp_path / file).parent.mkdir(exist_ok=True)
            shutil.copy(str(file.locate()), tmp_path / file)
    assert in_a_new_python(MINT, first=tmp_path, site=False) == "True\n"
    with pytest.raises(subprocess.CalledProcessError):  # the control: there is nothing else to import
        in_a_new_python("import mailprefs.db", first=tmp_path, site=False)


MINT = """
import mailprefs.links, sys
print(not {"socket", "asyncio", "aiohttp", "asyncpg", "pydantic"} & sys.modules.keys())
"""


def in_a_new_python(code: str, *, first: Path, site: bool) -> str:
    """Return what a Python says that finds its modules in ``first``, and only there and at home unless ``site``."""
    words = [sys.executable, *([] if site else ["-S"]), "-c", f"import sys; sys.path.insert(0, {str(first)!r})\n{code}"]
    return subprocess.run(words, cwd="/", env={}, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout


def test_the_console_script_is_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "mailprefs = mailprefs.__main__:main" in archive.read(entry_points).decode()
