"""A provider's own file of suppressions, from the shell."""

from __future__ import annotations

import asyncpg
from backports import zstd

from .shell import Shell

FILE = b"email,created\njane@example.org,1769851800\nkim@example.org,1769851800\n"


async def test_a_provider_s_file_is_imported_as_it_came(shell: Shell, conn: asyncpg.Connection) -> None:
    (shell.home / "global_unsubscribes.csv.zst").write_bytes(zstd.compress(FILE))
    dry = ("import", "suppressions", "global_unsubscribes.csv.zst", "--dry-run")
    (await shell(*dry)).said(0, "read as sendgrid-unsubscribes", r"2 rows read, 2 accepted, 2 of them new \(dry run")
    assert await conn.fetchval("select count(*) from consent") == 0
    (await shell(*dry[:-1])).said(0, "2 of them new$")
    assert await conn.fetchval("select count(*) from consent where scope = 257 and cause = 'choice'") == 2
    (await shell(*dry[:-1], "--scope", "newsletter")).said(0, "2 of them new$")
    assert await conn.fetchval("select count(*) from consent where scope = 272") == 2
    (await shell(*dry[:-1], "--scope", "nothing")).said(2)
    (await shell("import", "addresses", "-", stdin=FILE)).said(1, "'address'")
