"""``filter``: a file of candidates, from the shell."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from datetime import datetime

import asyncpg
import duckdb
import pytest
from backports import zstd

from mailprefs import ledger
from mailprefs.addresses import Addresses
from mailprefs.cli.signals import TERMINATED
from mailprefs.words import Cause, Change, Door, Effect

from .shell import PATIENCE, Shell

ROWS = b'note,address\r\n"a, b",jane@example.org\r\nx,Joe@Example.org\r\ny,no address\r\nz,kim@example.org\r\n'
ALLOWED = 'note,address\n"a, b",jane@example.org\r\nz,kim@example.org\r\n'


@pytest.fixture
async def left(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    stop = Change(addresses.read("joe@example.org"), 257, Cause.COMPLAINT, Effect.STOP, Door.PROVIDER, "1", now, by="sendgrid-main")
    await ledger.record(conn, [stop], now=now)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
async def test_candidates_are_filtered_whatever_they_are_packed_in(shell: Shell, left: None, pack: Callable[[bytes], bytes]) -> None:
    done = await shell("filter", "newsletter", "--denied", "denied.csv", stdin=pack(ROWS))
    assert done.said(0, "4 candidates, 2 may be sent newsletter, 2 may not").out == ALLOWED
    denied = (shell.home / "denied.csv").read_text()
    assert denied == (
        "note,address,reasons\n"
        "x,Joe@Example.org,connective/marketing:complaint\n"
        "y,no address,connective/newsletter:unreadable\n"
    )  # fmt: skip
    (shell.home / "in").write_bytes(pack(ROWS))
    (await shell("filter", "newsletter", "in", "-o", "out.csv")).said(0)
    assert (shell.home / "out.csv").read_bytes().decode() == ALLOWED
    assert oct((shell.home / "out.csv").stat().st_mode)[-3:] == "600"


async def test_what_is_written_is_packed_as_its_name_says(shell: Shell, left: None) -> None:
    (await shell("filter", "newsletter", "-o", "out.csv.zst", "--denied", "denied.csv.gz", stdin=ROWS)).said(0)
    assert zstd.decompress((shell.home / "out.csv.zst").read_bytes()).decode() == ALLOWED
    assert gzip.decompress((shell.home / "denied.csv.gz").read_bytes()).decode().count("\n") == 3


@pytest.mark.parametrize(
    ("rows", "name", "format_"), [(ROWS, "out.parquet", "csv"), (ROWS, "out.jsonl.gz", "csv"), (b"{}\n", "out.csv", "ndjson")]
)
async def test_no_file_is_called_what_it_is_not(shell: Shell, left: None, rows: bytes, name: str, format_: str) -> None:
    for option in ("-o", "--denied"):
        (await shell("filter", "newsletter", option, name, stdin=rows)).said(2, f"as {format_}; {name} says something else")
        assert not (shell.home / name).exists()


async def test_an_archive_that_breaks_off_leaves_no_file_that_looks_whole(shell: Shell, left: None) -> None:
    (shell.home / "in.csv.gz").write_bytes(gzip.compress(ROWS)[:-9])
    (await shell("filter", "newsletter", "in.csv.gz", "-o", "out.csv", "--denied", "denied.csv")).said(1, "breaks off")
    assert not (shell.home / "out.csv").exists()
    assert not (shell.home / "denied.csv").exists()


async def test_who_is_told_to_end_leaves_no_half_of_a_file(shell: Shell, left: None) -> None:
    async with shell.running("filter", "newsletter", "-o", "out.csv", "--denied", "denied.csv", status=TERMINATED) as running:
        assert running.process.stdin
        running.process.stdin.write(ROWS)
        await running.process.stdin.drain()
        async with asyncio.timeout(PATIENCE):
            while len(list(shell.home.glob(".mailprefs-*"))) < 2:
                await asyncio.sleep(0.01)
    assert [*shell.home.glob(".mailprefs-*"), *shell.home.glob("*.csv")] == []


async def test_ndjson_and_a_column_of_another_name(shell: Shell, left: None) -> None:
    rows = [{"email": "jane@example.org", "plan": 1.50}, {"email": "joe@example.org"}]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    done = await shell("filter", "newsletter", "--column", "email", stdin=text)
    assert done.said(0).out == '{"email": "jane@example.org", "plan": 1.5}\n'
    (await shell("filter", "newsletter", stdin=b"post\nx\n")).said(1, r"one alone 'email'\. --column")
    (await shell("filter", "newsletter", stdin=text.replace(b"email", b"post"))).said(1, r"one alone 'email'\. --column")


async def test_numbers_that_no_float_holds_come_back_as_they_came(shell: Shell, left: None) -> None:
    row = '{{"address":"{}","n":1e400,"price":1.50}}\n'.format
    text = "".join(row(f"{name}@example.org") for name in ("jane", "joe"))
    done = await shell("filter", "newsletter", "--denied", "denied.ndjson", stdin=text.encode())
    assert done.said(0).out == row("jane@example.org")
    denied = (shell.home / "denied.ndjson").read_text()
    assert denied == row("joe@example.org").replace("}", ', "reasons": "connective/marketing:complaint"}')


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (b"address;n\njane@example.org;1\n", "separated by semicolons: save it with commas"),
        (b"address,address\n", "a column twice"),
        (b"jane@example.org,1\n", "must name the columns"),
    ],
)
async def test_a_file_without_the_column_is_told_what_to_do_and_repeats_no_address(
    shell: Shell, left: None, rows: bytes, said: str
) -> None:
    assert "jane" not in (await shell("filter", "newsletter", stdin=rows)).said(1, said).err
    (await shell("filter", "newsletter", "--column", "Mail", stdin=rows)).said(1, "no column is called 'Mail'")


async def test_no_file_is_read_and_written_at_once(shell: Shell, left: None) -> None:
    (shell.home / "in.csv").write_bytes(ROWS)
    for words in (("-o", "in.csv"), ("--denied", "./in.csv"), ("-o", "x.csv", "--denied", "x.csv")):
        (await shell("filter", "newsletter", "in.csv", *words)).said(2, "named twice")
    assert (shell.home / "in.csv").read_bytes() == ROWS
    (await shell("filter", "newsletter", "in.csv", "-o", "x.csv")).said(0)


@pytest.mark.parametrize("command", ["filter", "audience"])
async def test_no_spreadsheet_is_written_that_is_none(shell: Shell, left: None, command: str) -> None:
    (await shell(command, "newsletter", "-o", "out.xlsx", stdin=ROWS)).said(1, "name it .csv")
    assert not (shell.home / "out.xlsx").exists()


async def test_a_column_of_reasons_that_is_there_already_is_not_given_a_second(shell: Shell, left: None) -> None:
    """Whoever filters again what was denied would have two, and read either."""
    rows = b"address,Reasons\njoe@example.org,old\n"
    (await shell("filter", "newsletter", "--denied", "denied.csv", stdin=rows)).said(1, "a column is called 'reasons' already")
    duckdb.execute(f"copy (select 'joe@example.org' address, 'old' Reasons) to '{shell.home / 'in.parquet'}' (format parquet)")
    table = ("filter", "newsletter", "in.parquet", "-o", "out.parquet")
    (await shell(*table, "--denied", "denied.parquet")).said(1, "a column is called 'reasons' already")
    assert sorted(path.name for path in shell.home.glob("*.parquet")) == ["in.parquet"]
    (await shell("filter", "newsletter", stdin=rows)).said(0, "1 candidate, 0 may be sent")
    (await shell(*table)).said(0, "1 candidate, 0 may be sent")
    again = (
        await shell("filter", "newsletter", "--denied", "/dev/stdout", stdin=b'{"address": "joe@example.org", "reasons": "old"}\n')
    ).said(0)
    assert json.loads(again.out) == {"address": "joe@example.org", "reasons": "connective/marketing:complaint"}


@pytest.mark.parametrize("called", ["email", "E-mail", "Email Address", "EMAIL_ADDRESS"])
async def test_a_column_that_is_obviously_meant_is_read_and_named(shell: Shell, left: None, called: str) -> None:
    done = await shell("filter", "newsletter", stdin=f"{called},n\njane@example.org,1\njoe@example.org,2\n".encode())
    assert done.said(0, f"are read from the column '{called}'").out == f"{called},n\njane@example.org,1\n"
    done = await shell("filter", "newsletter", stdin=f'{{"{called}": "joe@example.org"}}\n{{"{called}": "jane@example.org"}}\n'.encode())
    assert done.said(0, f"are read from the column '{called}'").out == f'{{"{called}": "jane@example.org"}}\n'
    for other in (f"{called},e_mail\n", f'"address {called}"\n'):
        (await shell("filter", "newsletter", stdin=other.encode())).said(1, "--column")
    done = await shell("filter", "newsletter", stdin=f"{called},address\njoe@example.org,jane@example.org\n".encode())
    assert "1 may be sent" in done.said(0).err
    assert "column" not in done.err, "the control: 'address' is what it is called"


async def test_an_unknown_topic_is_wrong_usage(shell: Shell) -> None:
    (await shell("filter", "nothing", stdin=ROWS)).said(2)


async def test_a_parquet_file_is_answered_by_one_with_every_column_as_it_was(shell: Shell, left: None) -> None:
    rows = "(1, 'jane@example.org', [1.5]), (2, 'joe@example.org', []), (3, null, null), (4, 'kim@example.org', [])"
    duckdb.execute(f"copy (from (values {rows}) t(n, email, l)) to '{shell.home / 'in.parquet'}' (format parquet)")
    words = ("filter", "newsletter", "in.parquet")
    done = await shell(*words, "-o", "out.parquet", "--denied", "denied.parquet")
    done.said(0, "4 candidates, 2 may be sent", "are read from the column 'email'")
    assert duckdb.read_parquet(str(shell.home / "out.parquet")).fetchall() == [(1, "jane@example.org", [1.5]), (4, "kim@example.org", [])]
    denied = duckdb.read_parquet(str(shell.home / "denied.parquet")).fetchall()
    assert denied == [(2, "joe@example.org", [], "connective/marketing:complaint"), (3, None, None, "connective/newsletter:unreadable")]
    (await shell(*words)).said(2, "--output")
    for name in ("out.csv", "out.parquet.gz"):
        (await shell(*words, "-o", name)).said(2, f"as parquet; {name} says something else")
    (await shell(*words, "--column", "mail", "-o", "x.parquet")).said(1, "no column of it is called 'mail'")
    (await shell("filter", "newsletter", stdin=(shell.home / "in.parquet").read_bytes())).said(1, "Parquet")


@pytest.mark.parametrize("tall", ["repeat(chr(10), 600000)", "repeat('x', 1100000) || chr(10)", "repeat('a' || chr(13), 3000)"])
async def test_no_address_in_a_parquet_file_moves_the_rows_behind_it(shell: Shell, left: None, tall: str) -> None:
    rows = f"(0, {tall}), (1, 'jane@example.org'), (2, 'joe@example.org'), (3, 'kim@example.org')"
    duckdb.execute(f"copy (from (values {rows}) t(n, address)) to '{shell.home / 'in.parquet'}' (format parquet)")
    (await shell("filter", "newsletter", "in.parquet", "-o", "out.parquet")).said(0, "4 candidates, 2 may be sent")
    assert duckdb.read_parquet(str(shell.home / "out.parquet")).select("n").fetchall() == [(1,), (3,)]
