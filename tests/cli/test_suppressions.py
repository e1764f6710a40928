"""``export suppressions``, from the shell."""

from __future__ import annotations

import asyncpg

from .shell import Shell

STOPS = (
    b"address,scope,cause,at,evidence\njane@example.org,newsletter,choice,2026-01-31T09:30:00Z,the old tool\nkim@example.org,*,bounce,,\n"
)


async def test_what_is_exported_can_be_imported_and_hashed_for_a_taker(shell: Shell, conn: asyncpg.Connection) -> None:
    (await shell("import", "suppressions", "-", stdin=STOPS)).said(0)
    await conn.execute("update address set plaintext = (case when channel = 'email' then 'x' || left(key::text, 4) || '@example.org' end)")
    (shell.home / "taker.key").write_text("a key that the taker made\n")
    whole = (await shell("export", "suppressions", "-o", "out.csv")).said(0, "2 rows")
    assert whole.out == ""
    assert (shell.home / "out.csv").read_text().startswith("address,scope,cause,at,evidence\n")
    (await shell("import", "suppressions", "out.csv", "--dry-run")).said(0, "2 rows read, 2 accepted")
    hashed = (await shell("export", "suppressions", "--hashed", "--key", "taker.key")).said(0, "1 row$").out
    assert hashed.startswith("hash,scope\n")
    assert "@" not in hashed
    (await shell("export", "suppressions", "--hashed")).said(2, "--key")
    await conn.execute("update address set plaintext = null")
    (await shell("export", "suppressions")).said(0, "0 rows", "2 addresses more")
