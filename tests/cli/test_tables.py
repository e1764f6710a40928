"""``filter`` of a Parquet file: whatever goes wrong, no answer is there by half."""

from __future__ import annotations

import duckdb
import pytest

from .shell import Shell


@pytest.fixture
def table(shell: Shell) -> str:
    duckdb.execute(f"copy (select 'jane@example.org' address, 1 n) to '{shell.home / 'in.parquet'}' (format parquet)")
    return "in.parquet"


@pytest.mark.parametrize(("output", "denied"), [("nowhere/out.parquet", "denied.parquet"), ("out.parquet", "nowhere/denied.parquet")])
async def test_where_one_of_two_answers_cannot_be_written_neither_is(shell: Shell, table: str, output: str, denied: str) -> None:
    before = sorted(shell.home.iterdir())
    said = (await shell("filter", "newsletter", table, "-o", output, "--denied", denied)).said(
        2, "nowhere/.*cannot be written: No such file"
    )
    assert ".mailprefs-" not in said.err
    assert sorted(shell.home.iterdir()) == before
    (await shell("filter", "newsletter", table, "-o", "out.parquet", "--denied", "denied.parquet")).said(0, "1 candidate, 1 may be sent")
