"""``provider`` and ``hook``: what to set, whether an account is heard, and deliveries once more."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from aiohttp import ClientSession, web
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from mailprefs import catalogue, db, numbers
from mailprefs.addresses import Addresses
from mailprefs.cli.service import listening
from mailprefs.links import KeyRing
from mailprefs.providers import CHANNELS, PROVIDERS, engaged
from mailprefs.providers.base import Delivery, Sample, Signing
from mailprefs.settings import Settings
from mailprefs.web import app as service
from mailprefs.words import Kind

from .shell import Done, Shell

HERE = Path(__file__).parent
BRANDS = (HERE.parent / "catalogue.toml").read_text(encoding="utf-8").partition("[[account]]")[0]
ACCOUNTS = BRANDS + (HERE / "accounts.toml").read_text(encoding="utf-8")
KNOWN = catalogue.parse(ACCOUNTS)
CANNOT = ("sendgrid", "ses")  # whose deliveries nobody but they can prove
CAN = tuple(name for name in PROVIDERS if name not in CANNOT)
NOBODY = {"twilio": "+12025550100"}  # by provider; of all others it is the address
EMAIL = "mailprefs-test@example.com"
TOPIC = "arn:aws:sns:us-east-1:123456789012:ses-events"
CONFIRM = f"https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t"
PRIVATE = generate_private_key(SECP256R1())
PUBLIC = b64encode(PRIVATE.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
SPELT = {  # secrets that are not any word
    "SENDGRID_KEY": PUBLIC,
    "RESEND_SECRET": "whsec_" + b64encode(b"the secret of Resend....").decode(),
    "TWILIO_SID": "AC" + "0123456789abcdef" * 2,
    "STANDARD_SECRET": "whsec_" + b64encode(b"the secret of anyone....").decode(),
}
VARIABLES = [variable for account in KNOWN.account for variable in account.secrets.values()]
SECRETS = {variable: SPELT.get(variable, f"canary-{variable.lower().replace('_', '-')}".ljust(40, "x")) for variable in VARIABLES}


def pem(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


@dataclass
class Service:
    """The service, and the commands beside it."""

    shell: Shell
    base: str

    async def hook(self, *words: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> Done:
        return await self.shell("hook", *words, env={**SECRETS, "PORT": self.base.rpartition(":")[2], **(env or {})}, stdin=stdin)


@pytest.fixture
async def running(shell: Shell, ring: KeyRing, conn: asyncpg.Connection, database: str) -> AsyncIterator[Service]:
    (shell.home / "mailprefs.toml").write_text(ACCOUNTS, encoding="utf-8")
    shell.secrets += SECRETS.values()
    await numbers.register(conn, KNOWN, [key.id for key in ring.keys], CHANNELS, now=datetime.now(UTC))
    app = service.create_app(Settings().lending(SECRETS), KNOWN, ring, database_url=database)
    async with listening(app, "127.0.0.1", 0) as port:
        yield Service(shell, f"http://127.0.0.1:{port}")


async def rows(conn: asyncpg.Connection) -> dict[str, object]:
    """What the database has of deliveries, without the times at which it was stored."""
    consents = await conn.fetch(
        "select bucket, key, evidence, scope, cause, effect, door, teller from consent order by bucket, key, evidence"
    )
    kept = await conn.fetch("select account, id, reason, raw from event order by account, id")
    return {"consent": [tuple(row) for row in consents], "event": [tuple(row) for row in kept]}


async def heard(conn: asyncpg.Connection, account: str) -> dict[str, int]:
    return {row["kind"]: row["events"] for row in await conn.fetch("select kind, events from heard where account = $1", account)}


def captured(delivery: Delivery, account: str, line: bytes = b"\r\n") -> bytes:
    """A delivery as a recorder would write it."""
    head = [f"POST /hooks/{account}{delivery.url} HTTP/1.1", *(f"{name}: {value}" for name, value in delivery.headers)]
    return line.join([*(each.encode("latin-1") for each in head), b"", delivery.body])


# What to set


async def test_a_provider_says_what_to_set_for_it_or_for_an_account_of_its_own(alone: Shell) -> None:
    general = (await alone("provider", "sendgrid")).said(0).out
    assert "https://YOUR-HOST/hooks/sendgrid-main" in general
    own = (await alone("provider", "sendgrid-second")).said(0).out
    assert "`https://go.example.com/hooks/sendgrid-second`" in own
    assert "mailprefs hook test sendgrid-second" in own
    assert "sendgrid-main" not in own
    assert "YOUR-HOST" not in own


@pytest.mark.parametrize("name", PROVIDERS)
async def test_what_to_set_reads_well_and_names_address_secret_and_try_out(alone: Shell, name: str) -> None:
    (alone.home / "mailprefs.toml").write_text(ACCOUNTS, encoding="utf-8")
    said = (await alone("provider", f"{name}-main")).said(0).out
    assert not any(mark in said for mark in ("**", "```"))
    account = KNOWN.account_named(f"{name}-main")
    assert account
    assert (account.public_url or f"go.example.com/hooks/{name}-main") in said
    assert all(secret in said for secret in PROVIDERS[name].secrets_in)
    assert f"mailprefs hook test {name}-main" in said
    assert all(len(line) <= 140 for line in (await alone("provider", name)).said(0).out.splitlines())


# A try-out


@pytest.mark.parametrize("name", CAN)
async def test_a_sample_is_taken_and_changes_nothing(running: Service, conn: asyncpg.Connection, name: str) -> None:
    before = await rows(conn)
    said = (await running.hook("test", f"{name}-main")).said(0).out
    assert "accepted" in said
    assert "signed" in said.splitlines()[0]
    assert f"/hooks/{name}-main" in said.splitlines()[0]
    [told] = await heard(conn, f"{name}-main")
    assert f"heard       {told} 1\nkept aside  nothing\n" in said
    assert await rows(conn) == before


@pytest.mark.parametrize("name", CAN)
async def test_a_sample_of_an_unsubscribe_stops_nobody_but_nobody(
    running: Service, conn: asyncpg.Connection, addresses: Addresses, name: str
) -> None:
    said = (await running.hook("test", f"{name}-main", "--kind", "unsubscribed")).said(0).out
    assert "heard       unsubscribed 1\n" in said
    [row] = await conn.fetch("select key, scope, effect from consent")
    who = addresses.heard(NOBODY.get(name, EMAIL), CHANNELS[name])
    assert (row["key"], row["effect"]) == (who.key, "stop")
    assert f"stop of {KNOWN.by_number[row['scope']].name}" in said


@pytest.mark.parametrize("name", CANNOT)
async def test_what_only_the_provider_can_sign_must_be_refused_and_what_to_try_is_said(
    running: Service, conn: asyncpg.Connection, name: str
) -> None:
    said = (await running.hook("test", f"{name}-main")).said(0).out
    assert "without a proof" in said
    assert "refused as forged, as it must be" in said
    assert "To try the whole way" in said
    assert await heard(conn, f"{name}-main") == {}


async def test_sendgrids_is_tried_the_whole_way_with_a_key_of_ones_own(running: Service, conn: asyncpg.Connection) -> None:
    file = running.shell.home / "try-out.pem"
    file.write_bytes(pem(PRIVATE))
    said = (await running.hook("test", "sendgrid-main", "--signed-by", str(file))).said(0).out
    assert "accepted" in said
    assert await heard(conn, "sendgrid-main") == {"delivered": 1}
    file.write_bytes(pem(generate_private_key(SECP256R1())))
    said = (await running.hook("test", "sendgrid-main", "--signed-by", str(file))).said(0).out
    assert "not the private half" in said
    assert await heard(conn, "sendgrid-main") == {"delivered": 1}
    file.write_bytes(b"address\njane@example.com\n")
    (await running.hook("test", "sendgrid-main", "--signed-by", str(file))).said(2, "no private key in PEM")


async def test_a_service_with_other_secrets_is_told_apart(running: Service, conn: asyncpg.Connection) -> None:
    other = {"POSTMARK_PASSWORD": "another-password"}
    assert "started with other secrets" in (await running.hook("test", "postmark-main", env=other)).said(1).out
    assert await heard(conn, "postmark-main") == {}


async def test_a_service_that_is_away_or_knows_no_such_account_is_said(running: Service) -> None:
    (await running.hook("test", "postmark-main", env={"PORT": "1"})).said(1, "no service answers at http://127.0.0.1:1/hooks/postmark-main")
    assert "no account of that name" in (await running.hook("test", "postmark-main", "--url", f"{running.base}/hooks/pigeon")).said(1).out
    (await running.hook("test", "pigeon")).said(2, "no such account: pigeon")
    for url in ("ftp://127.0.0.1", "127.0.0.1:80", "http://", "http://[", ""):
        (await running.hook("test", "postmark-main", "--url", url or "x")).said(2, "that is no address of a service")


async def test_an_impostor_is_told_from_the_service(running: Service) -> None:
    """Something that answers 200 to all and keeps nothing: no words of acceptance."""

    async def anything(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", anything)
    async with listening(app, "127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}"
        assert "the service there has another one" in (await running.hook("test", "postmark-main", "--url", url)).said(1).out
        assert "It proved nothing" in (await running.hook("test", "ses-main", "--url", url)).said(1).out


async def test_no_redirect_takes_the_credential_elsewhere(running: Service) -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": f"{running.base}/hooks/postmark-main"})

    app = web.Application()
    app.router.add_post("/{any:.*}", elsewhere)
    async with listening(app, "127.0.0.1", 0) as port:
        said = (await running.hook("test", "postmark-main", "--url", f"http://127.0.0.1:{port}")).said(1).out
    assert "no answer of mailprefs" in said
    assert asked == ["/hooks/postmark-main"]


async def test_the_public_address_is_the_catalogues_and_shows_nothing_secret(running: Service) -> None:
    """A brand's link_host, or the account's own public_url with its user and password left out of all words."""
    for name in ("postmark", "mandrill"):
        text = ACCOUNTS.replace('link_host = "go.example.com"', 'link_host = "127.0.0.1:1"').replace("@go.example.com/h", "@127.0.0.1:1/h")
        (running.shell.home / "mailprefs.toml").write_text(text, encoding="utf-8")
        done = (await running.hook("test", f"{name}-main", "--public")).said(
            1, f"no service answers at https://127.0.0.1:1/hooks/{name}-main"
        )
        assert "in-the-url" not in done.out + done.err


# Who is heard


async def test_a_line_of_each_account_says_how_it_is_received(running: Service, conn: asyncpg.Connection) -> None:
    at = datetime.now(UTC)
    await db.queries("inbox").tally(
        conn, account="postmark-main", kinds=["complained", "delivered"], events=[2, 1500], now=at - timedelta(hours=3)
    )
    aside = [(b"1", "unknown_kind"), (b"2", "unknown_kind"), (b"3", "no_recipient")]
    for raw, reason in aside:
        await db.queries("inbox").set_aside(conn, account="postmark-main", id=[raw.hex()], reason=[reason], raw=[raw], now=at)
    await db.queries("reception").add_forged(conn, accounts=["postmark-main"], deliveries=[7], last_at=[at])
    done = (await running.hook("accounts")).said(0)
    lines = {line.split()[0]: line for line in done.out.splitlines()}
    assert list(lines) == [f"{name}-main" for name in PROVIDERS]
    last = f"last heard {at - timedelta(hours=3):%Y-%m-%d %H:%M:%S}Z, 3 h ago"
    wanted = f"{last}; complained 2, delivered 1,500; 7 forged; 3 kept aside (2 of an unknown kind)"
    assert wanted in lines["postmark-main"]
    assert lines["brevo-main"].endswith("never heard; 0 forged; 0 kept aside")
    [told] = json.loads((await running.hook("accounts", "postmark-main", "--json")).said(0).out)["accounts"]
    assert (told["account"], told["events"], told["forged"]) == ("postmark-main", {"complained": 2, "delivered": 1500}, 7)
    assert (told["kept"], told["unknown_kinds"], told["unusual"]) == ({"no_recipient": 1, "unknown_kind": 2}, 2, False)
    assert 3 * 3600 <= told["silent_seconds"] < 3 * 3600 + 300
    (await running.hook("accounts", "pigeon")).said(2, "no such account: pigeon")
    await db.queries("inbox").tally(conn, account="mail", kinds=["unsubscribed"], events=[1], now=at)
    assert [line.split()[0] for line in (await running.hook("accounts")).said(0).out.splitlines()] == [*lines, "mail"]


async def test_an_account_that_is_silent_for_longer_than_usual_is_named_and_ends_in_1(running: Service, conn: asyncpg.Connection) -> None:
    at = datetime.now(UTC)
    for since, status in ((timedelta(days=60), 1), (timedelta(days=2, hours=1), 0)):  # known for long, and, the control, for an hour
        await conn.execute("delete from heard")
        await conn.execute("delete from silence")
        await db.queries("inbox").tally(conn, account="postmark-main", kinds=["delivered"], events=[1], now=at - timedelta(days=2))
        row = ("postmark-main", at - since, at - timedelta(days=2), at)
        await conn.execute("insert into silence (account, since, last_at, looked_at) values ($1, $2, $3, $4)", *row)
        done = (await running.hook("accounts")).said(status)
        assert ("SILENT FOR LONGER THAN USUAL" in done.out) is bool(status)


# Once more


async def posted(base: str, delivery: Delivery, name: str) -> int:
    async with (
        ClientSession() as http,
        http.post(f"{base}/hooks/{name}{delivery.url}", data=delivery.body, headers=dict(delivery.headers)) as answer,
    ):
        return answer.status


def made(name: str, kind: Kind = Kind.UNSUBSCRIBED, group: str = "") -> Delivery:
    """A delivery of this provider's, as its account proves it."""
    account, provider = KNOWN.account_named(f"{name}-main"), PROVIDERS[name]
    assert account
    assert isinstance(provider, Signing)
    _, credential = engaged(account, Settings().lending(SECRETS))
    sample = Sample(
        kind, NOBODY.get(name, "jane@example.org"), "an-event-of-its-own", datetime.now(UTC), group or next(iter(credential.groups), "")
    )
    return provider.sign(credential, provider.sample(sample), sample.at)


def strange(name: str) -> Delivery:
    """A delivery of an event of a kind that nobody knows, of a provider that is known by a password."""
    delivery = made(name, Kind.DELIVERED)
    return replace(delivery, body=delivery.body.replace(b'"Delivery"', b'"Teleported"'))


@pytest.mark.parametrize("name", CAN)
@pytest.mark.parametrize("line", [b"\r\n", b"\n"])
async def test_a_replay_comes_to_what_the_delivery_came_to(running: Service, conn: asyncpg.Connection, name: str, line: bytes) -> None:
    delivery = made(name)
    assert await posted(running.base, delivery, f"{name}-main") == 200
    by_http = await rows(conn)
    assert by_http["consent"]
    file = running.shell.home / "captured.http"
    file.write_bytes(captured(delivery, f"{name}-main", line))
    (await running.hook("replay", str(file))).said(0, "^0 new rows")
    assert await rows(conn) == by_http  # once more is the same state
    await conn.execute("truncate consent, event, once, address, heard, push")
    (await running.hook("replay", str(file), "--dry-run")).said(0, r"1 new rows \(dry run: nothing was kept\)")
    assert await rows(conn) == {"consent": [], "event": []}
    for added in (1, 0):
        (await running.hook("replay", "-", stdin=file.read_bytes())).said(0, f"^{added} new rows")
        assert await rows(conn) == by_http


async def test_a_replay_whose_signature_does_not_hold_is_refused_however_it_is_named(running: Service, conn: asyncpg.Connection) -> None:
    delivery = made("postmark")
    other = replace(delivery, headers=[("Authorization", "Basic bWFpbHByZWZzOndyb25nLXBhc3N3b3Jk")])
    (await running.hook("replay", "-", stdin=captured(other, "postmark-main"))).said(1, "signature does not hold")
    (await running.hook("replay", "-", "--account", "mailgun-main", stdin=captured(delivery, "postmark-main"))).said(
        1, "signature does not hold"
    )
    assert await rows(conn) == {"consent": [], "event": []}
    (await running.hook("replay", "-", stdin=captured(delivery, "postmark-main"))).said(0)  # the control


async def test_a_file_that_is_not_there_is_wrong_usage(alone: Shell) -> None:
    for words in (
        ("replay", "gone.http"),
        ("confirm", "gone.json", "--account", "ses-main"),
        ("test", "postmark-main", "--signed-by", "gone.pem"),
    ):
        (await alone("hook", *words)).said(2, "does not exist")
    for words in (("replay", "."), ("confirm", ".", "--account", "ses-main")):
        (await alone("hook", *words)).said(2, "is a directory")


async def test_a_delivery_that_is_none_is_refused(running: Service) -> None:
    (await running.hook("replay", "-", stdin=b"no empty line")).said(1, "no empty line between headers and body")
    (await running.hook("replay", "-", stdin=b"POST /hooks/pigeon HTTP/1.1\n\n{}")).said(2, "no such account: pigeon")


async def test_what_was_kept_aside_is_listed_and_its_bytes_are_given(running: Service, conn: asyncpg.Connection) -> None:
    unknown = strange("postmark")
    assert await posted(running.base, unknown, "postmark-main") == 200
    listed = (await running.hook("kept")).said(0).out
    [line] = listed.splitlines()
    assert "postmark-main" in line
    assert "unknown_kind" in line
    id_ = line.split()[-1]
    assert (await running.hook("kept", "postmark-main")).said(0).out == listed
    assert (await running.hook("kept", "brevo-main")).said(0).out == ""
    assert (await running.hook("kept", "postmark-main", "--raw", id_)).said(0).out.encode() == unknown.body
    assert (await running.hook("kept", "brevo-main", "--raw", id_)).said(1).out == ""
    for words in (("--raw", id_), ("postmark-main", "--raw", "%"), ("postmark-main", "--raw", id_[:7])):
        (await running.hook("kept", *words)).said(2, "--raw wants")


# The confirmation of a topic


@pytest.mark.parametrize(
    "url",
    [
        "https://169.254.169.254/?Action=ConfirmSubscription&Token=t",
        CONFIRM.replace("https", "http"),
        CONFIRM.replace("us-east-1", "eu-west-1"),
        CONFIRM.replace("amazonaws.com", "amazonaws.com.example.net"),
        CONFIRM.replace("amazonaws.com/", "amazonaws.com@127.0.0.1/"),
        CONFIRM.replace("ConfirmSubscription", "Unsubscribe"),
    ],
)
async def test_a_confirmation_that_leads_elsewhere_is_refused_before_anyone_is_asked(running: Service, url: str) -> None:
    texts = dict.fromkeys(("Message", "MessageId", "Timestamp", "Token", "Signature"), "x")
    certificate = f"https://sns.us-east-1.amazonaws.com/SimpleNotificationService-{'0a' * 16}.pem"
    asking = texts | {"Type": "SubscriptionConfirmation", "TopicArn": TOPIC, "SignatureVersion": "2", "SigningCertURL": certificate}
    body = json.dumps(asking | {"SubscribeURL": url}).encode()
    (await running.hook("confirm", "-", "--account", "ses-main", stdin=body)).said(1, "asks for no confirmation of a subscription of ours")
