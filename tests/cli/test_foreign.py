"""A provider's own file of suppressions, from the shell."""

from __future__ import annotations

import asyncpg
from backports import zstd

from .shell import Shell

FILE = b"email,created\njane@example.org,1769851800\nkim@example.org,1769851800\n"


async def test_a_provider_s_file_is_imported_as_it_came(shell: Shell, conn: asyncpg.Connection) -> None:
    (shell.home / "global_unsubscribes.csv.zst").write_bytes(zstd.compress(FILE))
    dry = ("import", "suppressions", "global_unsubscribes.csv.zst", "--dry-run")
    (await shell(*dry)).said(
        0, "read as sendgrid-unsubscribes", "an unsubscribe in it stops connective/", r"2 rows read, 2 accepted, 2 of them new \(dry run"
    )
    assert await conn.fetchval("select count(*) from consent") == 0
    (await shell(*dry[:-1])).said(0, "2 of them new$")
    assert await conn.fetchval("select count(*) from consent where scope = 257 and cause = 'choice'") == 2
    (await shell(*dry[:-1], "--scope", "newsletter")).said(0, "2 of them new$")
    assert await conn.fetchval("select count(*) from consent where scope = 272") == 2
    (await shell(*dry[:-1], "--scope", "nothing")).said(2)
    (await shell("import", "addresses", "-", stdin=FILE)).said(1, r"sendgrid-unsubscribes\): `import suppressions` reads them")
    assert await conn.fetchval("select count(*) from address where plaintext is not null") == 0, "who left is nobody to write to"


async def test_a_refused_row_of_a_provider_s_file_is_not_taken_for_columns_that_nobody_reads(
    shell: Shell, conn: asyncpg.Connection
) -> None:
    people = b"id,email,unsubscribed\n1,jane@example.org,true\n2,kim@example.org,false\n3,,true\n"
    done = await shell("import", "suppressions", "-", stdin=people)
    assert "not read" not in done.said(1, "read as customerio", "3 rows read, 1 accepted, 1 of them new").err
    rejects = (shell.home / "stdin.rejects.csv").read_text().splitlines()[1:]
    assert rejects == ["2,kim@example.org,false,2,it says no stop that lasts", "3,,true,3,the column 'email' is empty or missing"]


async def test_a_header_that_nobody_knows_says_how_to_name_the_columns(shell: Shell, conn: asyncpg.Connection) -> None:
    nobodys = b"Email,Suppressed At,Reason\njane@example.org,2026-01-31,bounce\n"
    (await shell("import", "suppressions", "-", stdin=nobodys)).said(
        1, "names no column 'scope' and none 'cause', and is no provider's that is known: `import suppressions` wants address, scope, cause"
    )
    named = nobodys.replace(b"Suppressed At,Reason", b"scope,cause").replace(b"2026-01-31", b"*")
    (await shell("import", "suppressions", "-", stdin=named)).said(0, "are read from the column 'Email'", "1 accepted, 1 of them new")
    assert await conn.fetchval("select count(*) from consent where cause = 'bounce'") == 1


async def test_a_column_that_is_obviously_the_address_s_is_read_and_named(shell: Shell, conn: asyncpg.Connection) -> None:
    people = b"Name,E-Mail,locale\nJane,jane@example.org,en\nKim,oops,en\n"
    (await shell("import", "addresses", "-", stdin=people)).said(1, "are read from the column 'E-Mail'", "1 of them new", "not read: Name;")
    assert await conn.fetchval("select plaintext from address") == "jane@example.org"
    assert (shell.home / "stdin.rejects.csv").read_text().startswith("Name,E-Mail,locale,row,reason\nKim,oops,en,2,")
    (await shell("import", "addresses", "-", stdin=people.replace(b"Name", b"email"))).said(1, "one alone 'email'")
