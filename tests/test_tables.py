"""Parquet files of candidates keep every column, whatever it is called."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from mailprefs.errors import Misconfigured, Unreadable
from mailprefs.tables import Table

duckdb = pytest.importorskip("duckdb")


def table(folder: Path, column: str) -> Table:
    """Return a file of five rows with one column more."""
    path = folder / "in.parquet"
    rows = duckdb.sql("select i || '@example.com', i * 10 from range(5) r(i)")
    names = [duckdb.ColumnExpression(old).alias(new) for old, new in zip(rows.columns, ("address", column), strict=True)]
    rows.select(*names).write_parquet(str(path))
    return Table(path)


@pytest.mark.parametrize("column", ["n", "place", "Rows", "out"])
def test_the_denied_have_every_column_under_its_own_name_and_their_reasons(tmp_path: Path, column: str) -> None:
    denied, allowed, others = (tmp_path / name for name in ("denied", "allowed", "others"))
    denied.write_text("1,x\n3,y\n", encoding="utf-8")
    table(tmp_path, column).split(denied, allowed, others)
    left, out = duckdb.read_parquet(str(allowed)), duckdb.read_parquet(str(others))
    assert (left.columns, left.fetchall()) == (["address", column], [(f"{n}@example.com", n * 10) for n in (0, 2, 4)])
    assert (out.columns, out.fetchall()) == (["address", column, "reasons"], [("1@example.com", 10, "x"), ("3@example.com", 30, "y")])


def test_a_full_disk_is_not_taken_for_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    given = table(tmp_path, "n")
    (tmp_path / "denied").write_text("1,x\n", encoding="utf-8")
    with pytest.raises(Misconfigured, match="No space left"):
        given.split(tmp_path / "denied", Path("/dev/full"), tmp_path / "others")
    given.path.write_bytes(given.path.read_bytes()[:-50])
    with pytest.raises(Unreadable):
        given.split(tmp_path / "denied", tmp_path / "allowed", tmp_path / "others")


def test_a_column_that_would_hide_the_places_of_the_rows_is_refused_before_anybody_is_asked_about(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="'file_row_number'"):
        table(tmp_path, "File_Row_Number").addresses(None, tmp_path / "texts")
    assert table(tmp_path, "n").addresses(None, tmp_path / "texts") == "address", "the control"


@pytest.mark.parametrize("name", ["people?.parquet", "people*.parquet", "people[12].parquet", "~people.parquet", "people{1,2}.parquet"])
def test_a_file_is_itself_alone_whatever_its_name_could_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The rows of a second file would be known by places of their own, so that whoever left there is let through."""
    folder = tmp_path / "of [2026] *"
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = table(folder, "n").path.rename(name)
    for other in ("people1.parquet", "people2.parquet"):
        duckdb.sql("select 'kim@example.org' address, 7 n from range(9)").write_parquet(str(tmp_path / other))
        (tmp_path / other).rename(folder / other)
    (folder / "denied").write_text("0,x\n4,y\n", encoding="utf-8")
    given = Table(path)
    assert given.addresses(None, folder / "texts") == "address"
    assert (folder / "texts").read_text(encoding="utf-8").split() == ['"address"', *(f'"{n}@example.com"' for n in range(5))]
    assert given.height == 5
    given.split(folder / "denied", folder / "allowed", folder / "others")
    monkeypatch.chdir(tmp_path)
    (folder / "allowed").rename("left.parquet")
    assert duckdb.read_parquet("left.parquet").fetchall() == [(f"{n}@example.com", n * 10) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("names", "wrong"), [(("Address", "address"), True), (("address", "address"), True), (("address", "address_1"), False)]
)
def test_a_column_that_would_come_back_under_another_name_is_refused(tmp_path: Path, names: tuple[str, str], wrong: bool) -> None:
    """Of two that one name fits, the addresses would be looked for in the first, and the second be called otherwise."""
    arrow, written = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    written.write_table(arrow.table([["jane@example.org"], ["x"]], names=names), str(tmp_path / "in.parquet"))
    with pytest.raises(Unreadable, match="one name") if wrong else nullcontext():
        assert Table(tmp_path / "in.parquet").addresses(None, tmp_path / "texts") == "address"
