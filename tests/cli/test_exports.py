"""``audience`` and ``export``: files for others, and the proof of what they are."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from backports import zstd

from mailprefs import exports, seals
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.directory import Entry, know
from mailprefs.exports import Maker
from mailprefs.links import KeyRing
from mailprefs.shapes import Shape
from mailprefs.spelling import MINTED
from mailprefs.words import Channel

from .shell import Shell

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def people(conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> list[str]:
    found = sorted(f"p{n}@example.org" for n in range(20))
    await know(conn, [Entry(addresses.read(text), party="=1") for text in found], now=now)
    return found


async def test_the_name_of_a_file_says_what_it_is(shell: Shell, people: list[str]) -> None:
    for name, unpack in (("a.csv", bytes), ("a.csv.gz", gzip.decompress), ("a.csv.zst", zstd.decompress)):
        (await shell("audience", "newsletter", "-o", name)).said(0, "^20 addresses$")
        assert sorted(unpack((shell.home / name).read_bytes()).decode().splitlines()[1:]) == people
    (await shell("audience", "newsletter", "-o", "a.jsonl.gz", "--links")).said(0)
    rows = [json.loads(line) for line in gzip.decompress((shell.home / "a.jsonl.gz").read_bytes()).splitlines()]
    assert [list(row) for row in rows] == [["address", *MINTED]] * 20
    (await shell("audience", "newsletter", "-o", "a.parquet")).said(0, "20 addresses")
    assert (shell.home / "a.parquet").read_bytes()[-4:] == b"PAR1"
    (await shell("audience", "newsletter", "--compress", "none", "-o", "b.csv.gz")).said(0)
    assert (shell.home / "b.csv.gz").read_bytes().startswith(b"address\n"), "what is said counts more than a name"


async def test_the_variant_for_a_spreadsheet_says_that_it_is_lossy(shell: Shell, people: list[str]) -> None:
    done = (await shell("audience", "newsletter", "--spreadsheet", "--columns", "address,party")).said(0, "for a spreadsheet alone")
    assert "'=1" in done.out
    (await shell("audience", "newsletter", "--spreadsheet", "--format", "ndjson")).said(1, "CSV")
    (await shell("audience", "orders", "--links")).said(2, "marketing alone")


@pytest.mark.parametrize("purpose", [" ", "x" * 201, "two\nlines", "\x1b[31m", "\udcff"])
async def test_a_purpose_is_kept_as_it_was_said_or_refused(shell: Shell, purpose: str) -> None:
    """It is signed: what is cut off, or cannot be shown, was not said."""
    (await shell("export", "new", "newsletter", "--purpose", purpose)).said(1, "one line of 200 characters at most")
    assert not json.loads((await shell("export", "list", "--json")).said(0).out)
    (await shell("export", "new", "newsletter", "--purpose", f" {'é' * 200} ")).said(0)
    assert json.loads((await shell("export", "list", "--json")).said(0).out)[0]["purpose"] == "é" * 200


async def test_an_export_is_asked_for_made_fetched_and_verified(
    shell: Shell, alone: Shell, conn: asyncpg.Connection, people: list[str], shared_catalogue: Catalogue, ring: KeyRing
) -> None:
    id = (await shell("export", "new", "newsletter", "--purpose", "the May issue", "--compress", "zstd")).said(0).out.strip()
    (await shell("export", "fetch", id, "out.csv.zst")).said(1, "not made yet")
    assert await Maker(shell.home / ".mailprefs/exports", shared_catalogue, ring, lambda: datetime.now(UTC)).round(conn)
    assert "made" in (await shell("export", "list")).said(0).out
    await conn.execute("update export set refused = 'for want of DuckDB' where id = $1", UUID(id))
    assert "): for want of DuckDB\n" in (await shell("export", "list")).said(0).out
    await conn.execute("update export set refused = null where id = $1", UUID(id))
    (row,) = json.loads((await shell("export", "list", "--json")).said(0).out)
    assert (row["id"], row["count"], row["state"], row["purpose"]) == (str(UUID(id)), 20, "made", "the May issue")
    (await shell("export", "fetch", id, "out.csv.zst")).said(0, "20 addresses")
    public = (await shell("export", "key")).said(0).out.strip()
    nowhere = {"DATABASE_URL": "postgresql://127.0.0.1:1/x"}
    done = (await shell("export", "verify", "out.csv.zst", env=nowhere)).said(0)
    assert "connective/newsletter by email: 20 addresses" in done.out
    (shell.home / "mailprefs.keys.json").rename(shell.home / "elsewhere.json")
    assert json.loads((await shell("export", "verify", "out.csv.zst", "--key", public, "--json", env=nowhere)).said(0).out)["count"] == 20
    (shell.home / "elsewhere.json").rename(shell.home / "mailprefs.keys.json")
    (await shell("export", "verify", "out.csv.zst", "--key", "")).said(1, "no public key")  # of a variable that is not set
    (await shell("export", "recompute", id)).said(0, "the same bytes")
    file = shell.home / "out.csv.zst"
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    (await shell("export", "verify", "out.csv.zst")).said(1, "altered, or is not whole")
    (await shell("export", "verify", "out.csv.zst", "--manifest", "mailprefs.toml")).said(1, "no manifest")
    await conn.execute("update address set plaintext = 'other@example.org' where plaintext = 'p1@example.org'")
    (await shell("export", "recompute", id)).said(1, "other bytes")


async def test_who_has_nothing_of_ours_verifies_an_export_as_the_page_says(
    conn: asyncpg.Connection, people: list[str], shared_catalogue: Catalogue, ring: KeyRing, now: datetime, tmp_path: Path
) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/audiences.md").read_text(encoding="utf-8"), re.DOTALL)
    topic, until = shared_catalogue.topic("newsletter"), now + timedelta(days=7)
    id = await exports.ask(conn, topic, Channel.EMAIL, Shape(), purpose="été", requester="test", expires_at=until, now=now)
    assert await Maker(tmp_path, shared_catalogue, ring, lambda: now).round(conn)
    export = await exports.find(conn, id)
    assert export is not None
    file, manifest = tmp_path / str(export.file), tmp_path / "manifest"
    manifest.write_text(str(export.manifest), encoding="utf-8")

    async def checked(public: str) -> bool:
        run = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(file), str(manifest), public, stderr=asyncio.subprocess.PIPE
        )
        await run.communicate()
        return run.returncode == 0

    assert await checked(seals.public(ring))
    assert not await checked(seals.public(KeyRing.new(now.date())))
    file.write_bytes(file.read_bytes().replace(b"p1@", b"q1@"))
    assert not await checked(seals.public(ring))
