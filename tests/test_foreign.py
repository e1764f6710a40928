"""Providers' own files: recognised by what they document, every lasting stop in its place, and nothing guessed."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from mailprefs import bulk, foreign, rows
from mailprefs.addresses import Addresses
from mailprefs.bulk import Import
from mailprefs.catalogue import Catalogue
from mailprefs.errors import Unreadable
from mailprefs.foreign import Reading
from mailprefs.rows import Row

ROOT, MARKETING, NEWSLETTER = 0, 257, 272
AT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
UNIX = str(int(AT.timestamp()))
NAIVE = AT + timedelta(hours=12)  # the latest moment that a clock without a zone can mean

FILES = {
    "sendgrid-bounces": (f"status,reason,email,created\n5.1.1,550 no such person,a@example.org,{UNIX}\n", (ROOT, "bounce", AT)),
    "sendgrid-spam-reports": (f"ip,email,created\n192.0.2.1,a@example.org,{UNIX}\n", (MARKETING, "complaint", AT)),
    "sendgrid-invalid": (f"reason,email,created\nno domain,a@example.org,{UNIX}\n", (ROOT, "invalid", AT)),
    "sendgrid-unsubscribes": (f"email,created\na@example.org,{UNIX}\n", (NEWSLETTER, "choice", AT)),
    "mailgun-bounces": ('address,code,error,created_at\na@example.org,550,x,"Sat, 31 Jan 2026 09:30:00 UTC"\n', (ROOT, "bounce", AT)),
    "mailgun-unsubscribes": ('address,tags,created_at\na@example.org,*,"Sat, 31 Jan 2026 09:30:00 +0000"\n', (NEWSLETTER, "choice", AT)),
    "postmark": (
        "EmailAddress,SuppressionReason,Origin,CreatedAt\na@example.org,SpamComplaint,Recipient,2026-01-31T04:30:00-05:00\n",
        (MARKETING, "complaint", AT),
    ),
    "ses": ("EmailAddress,Reason,LastUpdateTime\na@example.org,BOUNCE,2026-01-31T09:30:00+00:00\n", (ROOT, "bounce", AT)),
    "sparkpost": ("recipient,type,description\na@example.org,non_transactional,x\n", (NEWSLETTER, "choice", None)),
    "mandrill": (
        'email,reason,detail,created_at,expires_at,last_event_at,expires_at\na@example.org,spam,,"2026-01-31 09:30:00.1",,,""\n',
        (MARKETING, "complaint", NAIVE + timedelta(seconds=0.1)),
    ),
    "mailchimp-unsubscribed": (
        '"Email Address","First Name",UNSUB_TIME,UNSUB_REASON,UNSUB_REASON\na@example.org,A,"2026-01-31 09:30:00",,\n',
        (NEWSLETTER, "choice", NAIVE),
    ),
    "klaviyo": (
        "Email,Klaviyo ID,Email Marketing Consent,Email Suppressions\na@example.org,01H,SUBSCRIBED,\"['HARD_BOUNCE', 'SPAM_COMPLAINT']\"\n",
        (MARKETING, "complaint", None),
    ),
    "customerio": ("id,email,unsubscribed,plan\n7,a@example.org,true,x\n", (NEWSLETTER, "choice", None)),
    "mailchimp-cleaned": ('"Email Address",CLEAN_TIME,LEID\na@example.org,"2026-01-31 09:30:00",1\n', (ROOT, "bounce", NAIVE)),
}


async def imported(conn: asyncpg.Connection, text: str, importer: Import, *, ndjson: bool = False) -> list[str]:
    refused: list[str] = []
    found = rows.read(io.StringIO(text, newline=""), ndjson=ndjson, known=foreign.recognised)[1]
    ours = Reading("connective/newsletter", "connective/marketing").rows(found)
    await bulk.run(
        conn, ours, importer.suppression, bulk.changes, now=importer.now,
        reject=lambda row, reason: refused.append(reason), progress=lambda _more: None,
    )  # fmt: skip
    return refused


def test_each_kind_of_file_that_is_recognised_is_tried() -> None:
    assert [origin.name for origin in foreign.ORIGINS if origin.name not in FILES] == []


@pytest.mark.parametrize("name", FILES)
async def test_a_provider_s_file_is_recognised_and_each_stop_sits_where_it_belongs(
    conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime, name: str
) -> None:
    text, (scope, cause, at) = FILES[name]
    columns = rows.read(io.StringIO(text, newline=""), known=foreign.recognised)[0]
    origin = foreign.recognised(columns)
    assert origin is not None
    assert origin.name == name
    for _again in range(2):  # the same file twice is one row
        assert await imported(conn, text, Import(addresses, shared_catalogue, now)) == []
    (row,) = await conn.fetch("select key, scope, cause, effect, happened_at from consent")
    assert tuple(row) == (addresses.read("a@example.org").key, scope, cause, "stop", at or now)


async def test_what_an_api_lists_is_read_line_by_line_as_well(
    conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime
) -> None:
    lines = [
        {"created": int(AT.timestamp()), "email": "a@example.org", "reason": "550", "status": "5.1.1"},
        {"EmailAddress": "b@example.org", "Reason": "COMPLAINT", "LastUpdateTime": AT.timestamp()},
        {"recipient": "c@example.org", "type": "transactional", "source": "Bounce Rule", "created": AT.isoformat(), "transactional": True},
        {"address": "d@example.org", "scope": "newsletter", "cause": "choice"},
        {"email": "e@example.org", "unsubscribed": True},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    assert await imported(conn, text, Import(addresses, shared_catalogue, now), ndjson=True) == []
    found = await conn.fetch("select scope, cause from consent order by scope, cause")
    assert [tuple(row) for row in found] == [(ROOT, "bounce"), (ROOT, "bounce"), (MARKETING, "complaint")] + [(NEWSLETTER, "choice")] * 2


@pytest.mark.parametrize("origin", foreign.ORIGINS, ids=lambda origin: origin.name)
def test_an_object_is_of_the_kind_that_its_keys_say_whatever_is_null_in_it(origin: foreign.Origin) -> None:
    line = json.dumps({**dict.fromkeys(origin.must | (origin.may or frozenset())), origin.address: "a@example.org"})
    (row,) = rows.read(io.StringIO(line), ndjson=True, known=foreign.recognised)[1]
    assert foreign.recognised(row.fields) is origin
    (read,) = Reading("connective/newsletter", "connective/marketing").rows(iter([row]))
    assert read.wrong or read.fields["evidence"] == origin.name


async def test_what_is_null_in_an_object_makes_no_other_stop_of_it(
    conn: asyncpg.Connection, addresses: Addresses, shared_catalogue: Catalogue, now: datetime
) -> None:
    beside = {"detail": None, "created_at": "2026-01-31 09:30:00", "expires_at": None, "last_event_at": None, "subaccount": None}
    lines = [
        {"email": "a@example.org", "reason": "spam", **beside},
        {"email": "b@example.org", "created": int(AT.timestamp()), "reason": None, "status": "5.1.1"},
        {"email": "c@example.org", "created": int(AT.timestamp()), "reason": None},
        {"email": "d@example.org", "created": int(AT.timestamp()), "ip": None},
        {"address": None, "scope": "newsletter", "cause": "choice"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    assert await imported(conn, text, Import(addresses, shared_catalogue, now), ndjson=True) == ["no 'address', or not UTF-8"]
    found = {row["key"]: (row["scope"], row["cause"]) for row in await conn.fetch("select key, scope, cause from consent")}
    stops = [(MARKETING, "complaint"), (ROOT, "bounce"), (ROOT, "invalid"), (MARKETING, "complaint")]
    assert found == {addresses.read(f"{name}@example.org").key: stop for name, stop in zip("abcd", stops, strict=True)}


@pytest.mark.parametrize(
    "row",
    [
        {"status": "4.2.2", "reason": "full", "email": "a@example.org", "created": UNIX},
        {"address": "a@example.org", "code": "421", "error": "", "created_at": ""},
        {"EmailAddress": "a@example.org", "SuppressionReason": "Other", "Origin": "", "CreatedAt": ""},
        {"email": "a@example.org", "reason": "soft-bounce", "detail": "", "created_at": "", "expires_at": "", "last_event_at": ""},
        {"email": "a@example.org", "created": "some time ago"},
        {"Email": "a@example.org", "Email Marketing Consent": "NEVER_SUBSCRIBED", "Email Suppressions": "[]"},
        {"email": "a@example.org", "unsubscribed": "False"},
    ],
)
def test_what_says_no_lasting_stop_is_refused_with_a_reason(row: dict[str, str]) -> None:
    (read,) = Reading("connective/newsletter", "connective/marketing").rows(iter([Row(1, row)]))
    assert read.wrong
    assert "example" not in read.wrong


@pytest.mark.parametrize(
    "columns",
    [
        ["email"],
        ["email", "name", "created"],
        ["address", "scope", "cause"],
        ["Email Address", "OPTIN_TIME"],
        ["address", "created_at"],
        ["address", "scope", "cause", "email", "unsubscribed"],
        ["Email", "Email Suppressions"],
        [],
    ],
)
def test_nothing_is_guessed(columns: list[str]) -> None:
    assert foreign.recognised(columns) is None


@pytest.mark.parametrize(
    ("consent", "held", "cause"),
    [
        ("UNSUBSCRIBED", "", "choice"),
        ("SUBSCRIBED", "HARD_BOUNCE", "bounce"),
        ("UNSUBSCRIBED", '["INVALID_EMAIL", "HARD_BOUNCE"]', "choice"),
        ("NEVER_SUBSCRIBED", "INVALID_EMAIL", "invalid"),
        ("SUBSCRIBED", "SOMETHING_NEW", "choice"),
        ("SUBSCRIBED", "", ""),
    ],
)
def test_of_several_words_the_gravest_counts_and_an_unknown_one_stops(consent: str, held: str, cause: str) -> None:
    profile = {"Email": "a@example.org", "Email Marketing Consent": consent, "Email Suppressions": held}
    (read,) = Reading("connective/newsletter", "connective/marketing").rows(iter([Row(1, profile)]))
    assert read.fields.get("cause", "") == cause
    assert bool(read.wrong) == (cause == "")


def test_a_time_is_never_read_as_earlier_than_it_was() -> None:
    assert foreign.moment("2026-01-31 09:30:00") == NAIVE
    assert foreign.moment("2026-01-31 09:30:00 UTC") == AT
    assert foreign.moment(" ") is None
    for odd in ("yesterday", "1e99", "9" * 30, "2026-13-01"):
        with pytest.raises(Unreadable):
            foreign.moment(odd)
