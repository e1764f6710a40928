"""Test power: each wrong rule in ``mutants/`` is put into a copy of the tree, and the comparison with the oracle must find it out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parent.parent.parent
COPIED = ("mailprefs", "sql", "tests", "pyproject.toml")
MUTANTS = sorted((Path(__file__).parent / "mutants").glob("*.patch"))
JUDGES = "every_pair or only_those_named"  # the quickest of the tests that compare the ledger with the oracle
UNASKED = ("cacheprovider", "xdist", "cov", "hypothesispytest")  # plugins that only take time


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the project that a mutant may spoil."""
    copy = tmp_path / "tree"
    copy.mkdir()
    for name in COPIED:
        if (TREE / name).is_dir():
            shutil.copytree(TREE / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(TREE / name, copy / name)
    return copy


def apply(patch: Path, tree: Path) -> None:
    """Apply a unified diff to a tree. Lines may have moved; the text that it replaces must be there exactly once."""
    lines = patch.read_text(encoding="utf-8").splitlines(keepends=True)
    target = tree / lines[1].removeprefix("+++ b/").strip()
    starts = [n for n, line in enumerate(lines) if line.startswith("@@")]
    assert starts, f"{patch.name} changes nothing"
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        hunk = lines[start + 1 : end]
        before = "".join(line[1:] for line in hunk if line[0] in " -")
        after = "".join(line[1:] for line in hunk if line[0] in " +")
        text = target.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{patch.name} no longer applies to {target.name}: make it anew"
        target.write_text(text.replace(before, after), encoding="utf-8")


def judged(tree: Path, server: str, *, spread: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the judges in a copy of the tree, whose own package comes first on the path; perhaps on the text of a cluster."""
    asked = [sys.executable, "-m", "pytest", "tests/model/test_ledger_against_model.py", "-k", JUDGES, "-q", "-s", "-x"]
    asked += [word for name in UNASKED for word in ("-p", f"no:{name}")]
    environment = {**os.environ, "PYTHONPATH": str(tree), "MAILPREFS_TEST_DATABASE_URL": server}
    environment |= {"MAILPREFS_TEST_SPREAD": "1"} if spread else {}
    return subprocess.run(asked, cwd=tree, env=environment, capture_output=True, text=True, timeout=280, check=False)


def test_the_tree_as_it_is_is_found_right(tree: Path, server: str) -> None:
    """The control: without a mutant the same judges pass, and it is the copy that they judged."""
    with (tree / "mailprefs" / "ledger.py").open("a", encoding="utf-8") as file:
        file.write('\nimport sys\n\nsys.stdout.write(f"judged: {__file__}\\n")\n')
    verdict = judged(tree, server)
    assert verdict.returncode == 0, verdict.stdout[-3000:] + verdict.stderr[-1000:]
    assert f"judged: {tree / 'mailprefs' / 'ledger.py'}" in verdict.stdout
    assert "2 passed" in verdict.stdout


@pytest.mark.parametrize("patch", MUTANTS, ids=lambda patch: patch.stem)
def test_a_mutant_is_found_out(patch: Path, tree: Path, server: str) -> None:
    apply(patch, tree)
    verdict = judged(tree, server, spread=patch.stem.startswith("on_a_cluster"))
    assert verdict.returncode == 1, f"{patch.stem} was not found out:\n{verdict.stdout[-3000:]}{verdict.stderr[-1000:]}"
    assert "AssertionError" in verdict.stdout, f"{patch.stem} broke the tree instead of the rule:\n{verdict.stdout[-3000:]}"


def test_there_are_mutants_and_none_is_another(tree: Path) -> None:
    assert len(MUTANTS) >= 5
    assert len({patch.read_text(encoding="utf-8") for patch in MUTANTS}) == len(MUTANTS)


def test_a_patch_that_no_longer_applies_says_so(tree: Path) -> None:
    for patch in MUTANTS:
        apply(patch, tree)
        with pytest.raises(AssertionError, match="no longer applies"):
            apply(patch, tree)
        shutil.copytree(TREE / "sql", tree / "sql", dirs_exist_ok=True)
        shutil.copytree(TREE / "mailprefs", tree / "mailprefs", dirs_exist_ok=True)
