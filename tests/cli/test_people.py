"""``import``, ``audience``, ``why``, ``stop`` and ``lift``: what may be sent to whom, from the shell."""

from __future__ import annotations

import asyncio
import csv
import getpass
import gzip
import io
import json
import os
import sys
from datetime import datetime, timedelta

import asyncpg

from mailprefs import directory, ledger
from mailprefs.addresses import Addresses
from mailprefs.cli.signals import TERMINATED
from mailprefs.directory import Entry
from mailprefs.words import Cause, Change, Door, Effect

from .shell import MAILPREFS, PATIENCE, Shell

MARKETING, NEWSLETTER, OFFERS, PARTNERS = 257, 272, 273, 274


async def test_what_is_imported_is_counted_rejected_and_sent(shell: Shell, conn: asyncpg.Connection) -> None:
    (shell.home / "people.csv").write_text(
        "address,locale,party\njane@example.org,en,p1\nkim@example.org,es,p2\n+12025550123,,p1\nnot an address,,\n"
    )
    dry = (await shell("import", "addresses", "people.csv", "--dry-run")).said(1, r"4 rows read, 3 accepted, 3 of them new \(dry run")
    assert dry.out == ""
    assert await conn.fetchval("select count(*) from address") == 0
    words = ("4 rows read, 3 accepted, 3 of them new$", r"1 row was refused and is in people\.csv\.rejects\.csv, each with its reason")
    (await shell("import", "addresses", "people.csv")).said(1, *(f"(?m){each}" for each in words))
    with (shell.home / "people.csv.rejects.csv").open(newline="") as file:
        (reject,) = csv.DictReader(file)
    assert (reject["address"], reject["row"]) == ("not an address", "4")
    again = (await shell("import", "addresses", "people.csv", "--json", "--rejects", "bad.csv")).said(1)
    assert json.loads(again.out) == {"read": 4, "accepted": 3, "added": 0, "rejected": 1}
    assert (shell.home / "bad.csv").read_bytes() == (shell.home / "people.csv.rejects.csv").read_bytes()

    stops = "".join(f'{{"address": "{who}", "scope": "newsletter", "cause": "choice"}}\n' for who in ("kim@example.org", "lee@example.org"))
    (shell.home / "stops.ndjson.gz").write_bytes(gzip.compress(f"{stops}oops\n".encode()))
    (await shell("import", "suppressions", "stops.ndjson.gz")).said(
        1, "3 rows read, 2 accepted, 2 of them new", r"stops\.ndjson\.gz\.rejects\.ndjson"
    )
    (reject,) = map(json.loads, (shell.home / "stops.ndjson.gz.rejects.ndjson").read_text().splitlines())
    assert reject == {"line": "oops", "row": 3, "reason": "no JSON object"}

    consents = b"address,scope,at,source\njane@example.org,partners,2026-01-01T00:00:00Z,form 7\n"
    (await shell("import", "consents", "-", stdin=consents)).said(0, "1 row read, 1 accepted, 1 of them new")
    (await shell("import", "consents", "-", stdin=consents.replace(b"at,", b"when,"))).said(1, "no column 'at': `import consents` wants")
    many = "".join(f"p{n}@example.org\n" for n in range(1200)).encode()
    (await shell("import", "addresses", "-", "--dry-run", stdin=b"address\n" + many)).said(0, "1,200 rows read, 1,200 accepted, 1,200 of")

    assert (await shell("audience", "newsletter")).said(0, "^1 address$").out == "address\njane@example.org\n"
    assert (await shell("audience", "partners")).said(0).out == "address\njane@example.org\n"
    assert (await shell("audience", "care", "--channel", "sms", "--columns", "party,address")).said(
        0
    ).out == "party,address\np1,+12025550123\n"
    lines = (await shell("audience", "orders", "--format", "ndjson", "--columns", "address,locale")).said(0).out.splitlines()
    assert sorted((row["address"], row["locale"]) for row in map(json.loads, lines)) == [
        ("jane@example.org", "en"),
        ("kim@example.org", "es"),
    ]


async def test_an_import_that_was_killed_is_run_again_and_nothing_is_missing_or_twice(shell: Shell, conn: asyncpg.Connection) -> None:
    """It stood in the middle of the file, with a thousand rows recorded and more of them read."""
    rows = [f"p{n}@example.org,newsletter,choice,2026-01-31T09:30:00Z\n" for n in range(2500)]
    whole = "".join(["address,scope,cause,at\n", *rows]).encode()
    process = await shell._started(("import", "suppressions", "-"), MAILPREFS, {})
    assert process.stdin
    process.stdin.write(whole[: len(whole) * 3 // 4])
    while not (recorded := await conn.fetchval("select count(*) from consent")):
        await asyncio.sleep(0.01)
    process.kill()
    await process.communicate()
    assert recorded == 1000
    again = (await shell("import", "suppressions", "-", "--json", stdin=whole)).said(0)
    assert json.loads(again.out) == {"read": 2500, "accepted": 2500, "added": 1500, "rejected": 0}
    assert await conn.fetchval("select count(*) from consent") == 2500
    assert await conn.fetchval("select count(*) from address where stops = '{272}'") == 2500


async def test_an_audience_in_a_file_is_whole_or_the_old_one(shell: Shell) -> None:
    (await shell("import", "addresses", "-", stdin=b"address\njane@example.org\n")).said(0)
    done = (await shell("audience", "newsletter", "-o", "out.csv")).said(0, "1 address")
    assert done.out == ""
    assert (shell.home / "out.csv").read_text() == "address\njane@example.org\n"
    for words in (("gossip",), ("newsletter", "--columns", "password"), ("connective/marketing",)):
        (await shell("audience", *words, "-o", "out.csv")).said(2)
    (await shell("audience", "newsletter", "-o", "out.csv", env={"DATABASE_URL": "postgresql://127.0.0.1:1/x"})).said(1)
    assert (shell.home / "out.csv").read_text() == "address\njane@example.org\n"
    assert [path.name for path in shell.home.iterdir() if "out" in path.name] == ["out.csv"], "no half of one is left"
    (await shell("audience", "newsletter", "-o", "no/where.csv")).said(2, "cannot be written: No such file")


async def test_what_is_no_file_is_written_through_and_never_replaced(shell: Shell) -> None:
    (await shell("import", "addresses", "-", stdin=b"address\njane@example.org\n")).said(0)
    (shell.home / "out").symlink_to("/proc/self/fd/1")  # which is what /dev/stdout is
    for how in (None, MAILPREFS):  # a file, and a pipe
        done = await shell("audience", "newsletter", "-o", "out", command=how)
        assert done.said(0).out == "address\njane@example.org\n"
        done = await shell("import", "addresses", "-", "--rejects", "out", stdin=b"address\nnot an address\n", command=how)
        assert done.said(1).out.startswith("address,row,reason\nnot an address,1,")
        assert (shell.home / "out").is_symlink()


async def test_files_about_people_are_private_and_go_where_they_are_told(shell: Shell) -> None:
    (await shell("import", "addresses", "-", stdin=b"address\njane@example.org\n")).said(0)
    (shell.home / "away.csv").symlink_to("real.csv")
    bad = b"address\nnot an address\n"
    for words, stdin in ((("audience", "newsletter", "-o"), b""), (("import", "addresses", "-", "--rejects"), bad)):
        (await shell(*words, "away.csv", stdin=stdin)).said(2, r"away\.csv is a link, and is not written through")
        assert not (shell.home / "real.csv").exists()
        (shell.home / "mine.csv").write_text("old")
        (shell.home / "mine.csv").chmod(0o644)
        assert (await shell(*words, "mine.csv", stdin=stdin)).status < 2
        assert (shell.home / "mine.csv").stat().st_mode & 0o777 == 0o600
        assert (shell.home / "mine.csv").read_text().startswith("address")


async def test_what_is_shown_moves_no_cursor(shell: Shell, conn: asyncpg.Connection) -> None:
    escape, shown = "\x1b]0;owned\x07", r"\x1b]0;owned\x07"
    done = await shell("why", f"{escape}@example.org", "orders")
    assert done.said(0).out.splitlines()[0] == f"{shown}@example.org"
    (await shell("stop", "jane@example.org", "orders", "--cause", "staff", "--evidence", escape)).said(0)
    assert shown in (await shell("why", "jane@example.org", "orders")).said(1).out
    (await shell("stop", "jane@example.org", "orders", "--cause", escape, "--evidence", "x")).said(2)
    (await shell("sync", escape)).said(2, "no such account")
    (await shell("import", "addresses", f"{escape}\n.csv")).said(2, "does not exist")
    (await shell("api-keys", "new", "links", "--label", escape)).said(0)
    assert shown in (await shell("api-keys", "list")).said(0).out
    assert json.loads((await shell("why", f"{escape}@example.org", "orders", "--json")).out)["address"] == f"{escape}@example.org"


async def test_columns_that_are_not_read_are_named(shell: Shell) -> None:
    stdin = b"address,Locale,unsubscribed,p\x1by\njane@example.org,en,yes,\n"
    read = "what is read: address, channel, locale, region, party"
    (await shell("import", "addresses", "-", stdin=stdin)).said(0, rf"(?m)warning: not read: Locale, p\\x1by, unsubscribed; {read}$")
    (shell.home / "people.ndjson").write_text(
        '{"address": "jane@example.org", "source": 1}\n{"address": "kim@example.org", "plan": null}\n'
    )
    (await shell("import", "addresses", "people.ndjson")).said(0, "warning: not read: plan, source; ")
    done = await shell("import", "addresses", "-", stdin=b"party,address\np1,jane@example.org\n")
    assert "warning" not in done.said(0).err


async def test_what_a_consent_said_is_shown(shell: Shell) -> None:
    content = b'address,scope,at,source,notice\njane@example.org,partners,2026-01-01T00:00:00Z,form 7,"Yes, write\nto me"\n'
    (await shell("import", "consents", "-", stdin=content)).said(0)
    shown = (await shell("why", "jane@example.org", "partners")).said(0).out
    assert r"given at 'form 7', with the words 'Yes, write\nto me'" in shown
    (entry,) = json.loads((await shell("why", "jane@example.org", "partners", "--json")).said(0).out)["history"]
    assert (entry["source"], entry["notice"]) == ("form 7", "Yes, write\nto me")


async def test_an_import_that_is_told_to_end_says_how_far_it_came_and_is_done_again(shell: Shell, conn: asyncpg.Connection) -> None:
    """More is sent than a pipe can hold, so whoever took all but that has begun the third thousand; the rest of it never comes."""
    rest = b"".join(b"p%d@example.org,%b\n" % (n, b"x" * 4096) for n in range(2_000, 2_500))
    content = b"address,x\nnot an address,\n" + b"".join(b"p%d@example.org,\n" % n for n in range(1_999)) + rest
    async with shell.running("import", "addresses", "-", status=TERMINATED) as running:
        assert running.process.stdin
        running.process.stdin.write(content)
        await asyncio.wait_for(running.process.stdin.drain(), PATIENCE)
        assert len(list(shell.home.glob(".mailprefs-*"))) == 1, "what was refused is on its way"
    said = running.heard.decode()
    assert "ended early: 2,000 rows were read, and what was accepted of them is recorded. Run it again with the same file" in said
    assert [path.name for path in shell.home.iterdir() if "rejects" in path.name or path.name.startswith(".mailprefs")] == []
    assert await conn.fetchval("select count(*) from address") == 1_999
    done = await shell("import", "addresses", "-", "--json", stdin=content)
    assert json.loads(done.said(1).out) == {"read": 2_500, "accepted": 2_499, "added": 500, "rejected": 1}
    with (shell.home / "stdin.rejects.csv").open(newline="") as file:
        assert [(row["address"], row["row"]) for row in csv.DictReader(file)] == [("not an address", "1")]


async def test_the_rejects_are_not_written_over_what_is_read(shell: Shell) -> None:
    (shell.home / "people.csv").write_text("address\nnot an address\n")
    (await shell("import", "addresses", "people.csv", "--rejects", "./people.csv")).said(2, "written over the file that is read")
    assert (shell.home / "people.csv").read_text() == "address\nnot an address\n"


async def test_why_says_what_is_behind_an_answer(shell: Shell, conn: asyncpg.Connection, addresses: Addresses, now: datetime) -> None:
    jane = addresses.read("jane@example.org")
    changes = [
        Change(jane, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now),
        Change(jane, OFFERS, Cause.PAUSE, Effect.STOP, Door.PAGE, "2", now, until=now + timedelta(days=3_000)),
    ]
    await ledger.record(conn, changes, now=now)
    await conn.execute(
        "insert into told select bucket, account, key, scope, stop, since, since, since from push where scope = $1 and account = 1",
        NEWSLETTER,
    )
    await conn.execute("delete from push where account = 1 and scope = $1", NEWSLETTER)
    whole = json.loads((await shell("why", "Jane@Example.org", "--json")).said(1).out)
    at = now.isoformat()
    assert list(whole) == ["address", "met", "decisions", "history", "told"]
    assert whole["address"] == "Jane@Example.org"
    decisions = {each["topic"]: each for each in whole["decisions"]}
    assert list(decisions) == [
        f"connective/{name}" for name in ("newsletter", "offers", "partners", "studies", "recovery", "orders", "care")
    ]
    hold = {"scope": "connective/newsletter", "cause": "choice", "since": at, "until": None}
    assert decisions["connective/newsletter"] == {
        "address": "Jane@Example.org",
        "topic": "connective/newsletter",
        "allowed": False,
        "reasons": [hold],
    }
    assert decisions["connective/offers"]["reasons"][0]["until"] == (now + timedelta(days=3_000)).isoformat()
    missing = {"scope": "connective/partners", "cause": "consent_missing", "since": None, "until": None}
    assert decisions["connective/partners"]["reasons"] == [missing]
    assert decisions["connective/orders"] == {"address": "Jane@Example.org", "topic": "connective/orders", "allowed": True, "reasons": []}
    entry = {"at": at, "scope": "connective/newsletter", "cause": "choice", "effect": "stop", "door": "link", "evidence": "link:1"}
    assert whole["history"][0] == entry
    told = {(row["account"], row["scope"], row["asked_at"], row["sent_at"], row["confirmed_at"]) for row in whole["told"]}
    assert ("sendgrid-main", "connective/newsletter", at, at, at) in told
    assert ("sendgrid-second", "connective/newsletter", at, None, None) in told
    assert all(list(row) == ["account", "scope", "asked_at", "sent_at", "confirmed_at"] for row in whole["told"])

    shown = (await shell("why", "jane@example.org")).said(1).out
    assert "no   connective/newsletter" in shown
    assert f"choice at connective/newsletter since {now:%Y-%m-%d %H:%M}Z" in shown
    assert "yes  connective/orders" in shown
    assert "link:1" in shown
    assert "waiting" in shown
    assert (await shell("why", "jane@example.org", "orders")).said(0).out.splitlines()[1].split() == ["yes", "connective/orders"]
    (await shell("why", "jane@example.org", "newsletter")).said(1)
    (await shell("why", "jane@example.org", "gossip")).said(2, "no such topic; there are: connective/newsletter")
    assert "never met" not in shown


async def test_an_address_that_was_never_met_is_told_from_one_that_nothing_speaks_against(
    shell: Shell, conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    never = (await shell("why", "Nobody@example.org", "newsletter")).said(0).out.splitlines()
    assert never[1].startswith("  never met here")
    assert never[2].split() == ["yes", "connective/newsletter"]
    assert json.loads((await shell("why", "never met", "orders", "--json")).said(0).out)["met"] is False
    await directory.know(conn, [Entry(addresses.read("nobody@example.org"))], now=now)
    assert (await shell("why", "nobody@example.org", "newsletter")).said(0).out.splitlines()[1] == never[2], "and the answer is the same"
    (await shell("stop", "keyed@example.org", "newsletter", "--cause", "choice", "--evidence", "x")).said(0)
    assert json.loads((await shell("why", "keyed@example.org", "--json")).out)["met"] is True


async def test_staff_stops_and_lifts_what_staff_may(shell: Shell, conn: asyncpg.Connection, addresses: Addresses) -> None:
    jane = addresses.read("jane@example.org")

    async def stops() -> list[int] | None:
        found: list[int] | None = await conn.fetchval("select stops from address where key = $1", jane.key)
        return found

    by = ("jane@example.org", "orders", "--cause", "staff", "--evidence", "ticket 7")
    for _ in range(2):  # the same ticket may stop, lift and stop again
        (await shell("stop", *by)).said(0, "recorded")
        assert await stops() == [288]
        (await shell("lift", *by)).said(0, "recorded")
        assert await stops() is None
    row = await conn.fetchrow("select door, teller, evidence from consent limit 1")
    assert row is not None
    assert (row["door"], row["teller"]) == ("staff", getpass.getuser())
    assert row["evidence"].startswith("staff:ticket 7 ")
    bounce = ("jane@example.org", "*", "--cause", "bounce", "--evidence", "mailbox is back")
    (await shell("stop", *bounce)).said(0)
    (await shell("lift", *bounce)).said(0)
    assert await stops() is None


async def test_what_staff_may_not_do_is_refused_with_the_reason(shell: Shell, conn: asyncpg.Connection) -> None:
    cases = [
        ("lift", "*", "choice", "only the recipient can lift a choice"),
        ("lift", "connective/marketing", "complaint", "a complaint about connective is final"),
        ("stop", "newsletter", "complaint", "a stop of complaint does not sit there, only on all marketing of a brand"),
        ("stop", "*", "choice", "a stop of choice does not sit there, only on a brand, or what is of one"),
        ("stop", "orders", "bounce", "a stop of bounce does not sit there, only on \\*, which is everything"),
        ("stop", "orders", "choice", "by e-mail an opt-out stops marketing"),
    ]
    for command, scope, cause, said in cases:
        (await shell(command, "jane@example.org", scope, "--cause", cause, "--evidence", "x")).said(1, said)
    (await shell("stop", "jane@example.org", "gossip", "--cause", "staff", "--evidence", "x")).said(2, "no such scope")
    for command, evidence in (("stop", ""), ("lift", " "), ("stop", "kim@example.org wrote"), ("lift", "x" * 81)):
        by = (command, "jane@example.org", "orders", "--cause", "staff", "--evidence", evidence)
        assert "kim" not in (await shell(*by)).said(2, "names nobody: some words, 80 characters at most").err
    (await shell("stop", "jane@example.org", "newsletter")).said(2, r"Choose from:\n {4}choice,\n")
    assert await conn.fetchval("select count(*) from consent") == 0
    (await shell("stop", "jane@example.org", "newsletter", "--cause", "choice", "--evidence", "x" * 80)).said(0, "recorded")
    assert await conn.fetchval("select stops from address") == [NEWSLETTER]


async def test_a_choice_is_lifted_by_nobody_but_its_recipient_whom_staff_has_a_link_mailed(
    shell: Shell, conn: asyncpg.Connection, addresses: Addresses, now: datetime
) -> None:
    by = ("lift", "jane@example.org", "newsletter", "--cause", "choice", "--evidence", "ticket 7")
    (await shell(*by)).said(2, "no link can be mailed for connective: set SMTP_URL")
    shell.environment["SMTP_URL"] = "smtp://127.0.0.1:9"
    catalogue = shell.home / "mailprefs.toml"
    catalogue.write_text(catalogue.read_text().replace("ads = true", 'ads = true\nfrom = "hello@example.com"'))
    (await shell(*by)).said(1, "nobody told us of that address")
    await directory.know(conn, [Entry(addresses.read("jane@example.org"))], now=now)
    for _ in range(3):
        (await shell(*by)).said(0, "only the recipient can lift a choice; a link for that is mailed to them")
    (await shell(*by)).said(1, "three links were asked for within the hour")
    assert await conn.fetchval("select count(*) from mail where kind = 'manage' and scope = 256") == 3
    rows = await conn.fetch("select distinct effect, door, scope from consent")
    assert [tuple(row) for row in rows] == [("note", "staff", NEWSLETTER)], "who asked for it is kept, and nothing is lifted"


NAMELESS = """
import pwd
from mailprefs.cli import main
def nobody(_): raise KeyError("getpwuid(): uid not found")
pwd.getpwuid = nobody
main()
"""


async def test_a_command_by_somebody_without_a_name_is_recorded_too(shell: Shell, conn: asyncpg.Connection) -> None:
    words = ("stop", "jane@example.org", "orders", "--cause", "staff", "--evidence", "odd \udcff")
    (await shell("-c", NAMELESS, *words, command=(sys.executable,))).said(0, "recorded")
    row = await conn.fetchrow("select teller, evidence from consent")
    assert row is not None
    assert row["teller"] == str(os.getuid())
    assert row["evidence"].startswith("staff:odd ? ")


async def test_a_database_that_goes_away_is_said_and_what_was_recorded_is_kept(shell: Shell, conn: asyncpg.Connection) -> None:
    many = io.StringIO()
    many.write("address\n")
    many.writelines(f"p{n}@example.org\n" for n in range(2_500))
    await conn.execute(
        """create function ended() returns trigger language plpgsql as $$ begin
             if new.plaintext = 'p1500@example.org' then perform pg_terminate_backend(pg_backend_pid()); end if;
             return new;
           end $$;
           create trigger ended before insert on address for each row execute function ended()"""
    )
    (await shell("import", "addresses", "-", stdin=many.getvalue().encode())).said(1, "the database went away")
    assert await conn.fetchval("select count(*) from address") == 1_000
