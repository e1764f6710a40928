"""Mails that we write ourselves: links to one's choices, and questions whether mail is wanted. Owed in the database, so that none is lost.

They go over SMTP, or as a signed message to a system of the sender's own, which mails them. Whether we know an address is looked at when
its mail is sent, never when it is asked for: no answer, and no time that an answer takes, tells whether somebody is known.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.headerregistry import Address as Mailbox
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from hashlib import sha256
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

import aiosmtplib
import idna
from aiohttp import ClientError, ClientSession

from mailprefs import db, languages, passes, telemetry
from mailprefs.catalogue import Brand, Catalogue, Webhook
from mailprefs.db import Connection, queries
from mailprefs.errors import MailprefsError, Misconfigured
from mailprefs.languages import Language
from mailprefs.links import KeyRing
from mailprefs.passes import Pass, Purpose
from mailprefs.providers import attempts
from mailprefs.settings import Settings
from mailprefs.words import Address, Clock

HOURLY = 3  # mails that may be asked for to one address
HOUR = timedelta(hours=1)
BATCH = 20  # mails that are taken at once
LEASED = timedelta(minutes=15)  # longer than a batch may take
ANSWER = 30.0  # seconds for one answer of a mail server
TAKEN = 40.0  # seconds for one mail, all its answers: a batch ends before its lease does
STALE = timedelta(days=1)  # a mail that could not be sent for so long is not what anybody waits for any more
CAP = timedelta(minutes=10)  # the longest wait between two attempts
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Refused(MailprefsError):
    """Nobody takes this mail."""


class Deferred(MailprefsError):
    """This mail is not taken at the moment."""


class Away(MailprefsError):
    """No mail can be sent this way at the moment."""


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail as it is owed, with what is known of where it goes."""

    address: Address
    id: UUID
    purpose: Purpose
    scope: int
    language: str | None
    asked_at: datetime
    attempts: int
    unreachable: bool
    complained: bool


@dataclass(frozen=True, slots=True)
class Written:
    """One mail as it is sent."""

    mail: Mail
    to: str = field(repr=False)
    brand: Brand
    language: str
    link: str = field(repr=False)
    minutes: int
    subject: str
    text: str = field(repr=False)


class Way(Protocol):
    """How the mails of a brand go out."""

    async def carry(self, written: Written, now: datetime) -> None:
        """Hand one over. Raises Refused for one that nobody takes, Deferred for one that is not taken yet, Away if none can be sent."""
        ...


async def ask(
    connection: Connection, purpose: Purpose, address: Address, scope: int, *, language: str | None, now: datetime, to: str | None = None
) -> bool:
    """Owe a mail to an address, and return whether there was room for one more in this hour.

    A link to somebody's choices goes to the text that we know of that very address, and to nobody where we know none. A question whether
    mail is wanted goes ``to`` the text that was given, which nobody else is told before it is answered.
    """
    return bool(
        await queries("post").ask(
            connection,
            bucket=address.bucket,
            key=address.key,
            id=uuid4(),
            kind=purpose,
            scope=scope,
            plaintext=to,
            language=language,
            most=HOURLY,
            since=now - HOUR,
            now=now,
        )
    )


async def awaited(connection: Connection, one: Pass) -> str | None:
    """Return the address that a question was mailed to; None if it was answered, or is long gone."""
    address = Address(one.key)
    found: str | None = await queries("post").awaited(connection, bucket=address.bucket, key=one.key, id=one.id)
    return found


async def answered(connection: Connection, one: Pass) -> None:
    """Forget the address that a question was mailed to. Whoever said yes is known by now; of whoever said no nothing but that is kept."""
    await queries("post").done(connection, bucket=Address(one.key).bucket, key=one.key, id=one.id)


async def close(connection: Connection, one: Pass, *, now: datetime) -> None:
    """Let a link to somebody's choices, and the sessions that it opened, work no more."""
    await queries("post").close(connection, bucket=Address(one.key).bucket, key=one.key, id=one.id, now=now)


async def is_closed(connection: Connection, one: Pass) -> bool:
    return bool(await queries("post").is_closed(connection, bucket=Address(one.key).bucket, key=one.key, id=one.id))


async def forget(connection: Connection, *, now: datetime) -> None:
    """Forget what is over: mails that nobody will answer any more, the counts of the last hour, links that have ended anyway."""
    late = await queries("post").forget_mails(connection, before=now - passes.WORKS[Purpose.CONFIRM] - STALE)
    if late:
        telemetry.alarm("mail_given_up", times=late)
    await queries("post").forget_askings(connection, before=now - HOUR)
    await queries("post").forget_closings(connection, before=now - 2 * passes.WORKS[Purpose.SESSION] - HOUR)


def mailing(settings: Settings, catalogue: Catalogue) -> frozenset[int]:
    """Return the numbers of the brands whose links can be mailed. Pages of the others promise no mail."""
    return frozenset(brand.number for brand in catalogue.brand if brand.mailer or (settings.smtp_url and brand.from_))


def ways(settings: Settings, catalogue: Catalogue, handed: Mapping[str, Handed]) -> dict[int, Way]:
    """Return how the mails of each brand go out, by its number. Raises Misconfigured for an SMTP_URL that is none."""
    relay = Relay.of(settings.smtp_url.get_secret_value()) if settings.smtp_url else None
    found: dict[int, Way] = {}
    for brand in catalogue.brand:
        if brand.mailer:
            found[brand.number] = handed[brand.mailer]
        elif relay and brand.from_:
            found[brand.number] = relay
    return found


@dataclass(frozen=True)
class Relay:
    """A mail server that takes our mails: ``SMTP_URL``."""

    host: str
    port: int
    tls: bool  # from the first byte
    name: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Relay:
        """Read ``smtp://`` or ``smtps://``, with user and password where the server wants them. Raises Misconfigured, never repeating."""
        wrong = Misconfigured("SMTP_URL wants smtp://user:password@host:587 or smtps://user:password@host:465")
        try:
            found = urlsplit(url)
            port = found.port
        except ValueError:
            raise wrong from None
        if found.scheme not in ("smtp", "smtps") or not found.hostname or found.path.strip("/") or found.query or found.fragment:
            raise wrong
        tls = found.scheme == "smtps"
        name, password = (unquote(part) if part else None for part in (found.username, found.password))
        return cls(found.hostname, port or (465 if tls else 587 if name else 25), tls, name, password)

    def client(self) -> aiosmtplib.SMTP:
        """Return the way there. A password goes over an encrypted line alone; without one, it is encrypted where the server offers that."""
        started = True if self.name and self.host not in _LOOPBACK else None
        return aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port,
            username=self.name,
            password=self.password,
            use_tls=self.tls,
            start_tls=None if self.tls else started,
            timeout=ANSWER,
        )

    async def carry(self, written: Written, now: datetime) -> None:
        """Send one mail, on a connection of its own."""
        sender = parseaddr(written.brand.from_ or "")[1]
        try:
            to = _spelt(written.to)
            async with self.client() as client:
                if not to.isascii() and not client.supports_extension("smtputf8"):
                    raise Refused
                wide = [] if to.isascii() else ["SMTPUTF8"]
                body = letter(replace(written, to=to), now).as_bytes(policy=SMTP.clone(utf8=bool(wide)))
                await client.sendmail(sender, [to], body, mail_options=wide)
        except aiosmtplib.SMTPRecipientsRefused as error:
            if any(each.code >= 500 for each in error.recipients):
                raise Refused from None
            raise Deferred from None
        except aiosmtplib.SMTPDataError:  # about this one; what is wrong with the server itself shows before
            raise Deferred from None
        except (aiosmtplib.SMTPNotSupported, UnicodeError):  # an address that this server, or mail itself, cannot carry
            raise Refused from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ssl.SSLError):
            raise Away from None


def _spelt(address: str) -> str:
    """Return an address as most servers take it: its domain in ASCII (RFC 5891); only its mailbox may need RFC 6531."""
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain}" if domain.isascii() else f"{local}@{idna.encode(domain, uts46=True).decode()}"


@dataclass(frozen=True)
class Handed:
    """A system of the sender's own that mails what we write, told by a signed Standard Webhook."""

    webhook: Webhook
    key: bytes = field(repr=False)
    http: ClientSession

    async def carry(self, written: Written, now: datetime) -> None:
        """Post one mail. Whatever is no 2xx is tried again."""
        body = json.dumps({"type": f"mail.{written.mail.purpose}", "timestamp": now.isoformat(), "data": _handed(written)}).encode()
        id_, timestamp = f"msg_{sha256(written.mail.id.bytes).hexdigest()[:27]}", str(int(now.timestamp()))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": id_,
            "webhook-timestamp": timestamp,
            "webhook-signature": attempts.signature(self.key, id_, timestamp, body),
        }
        try:
            async with self.http.post(self.webhook.url, data=body, headers=headers, allow_redirects=False) as answer:
                if not 200 <= answer.status < 300:
                    raise Away
        except (ClientError, TimeoutError, OSError):
            raise Away from None


def _handed(written: Written) -> dict[str, Any]:
    return {
        "brand": written.brand.name,
        "to": written.to,
        "language": written.language,
        "link": written.link,
        "minutes": written.minutes,
        "subject": written.subject,
        "text": written.text,
    }


def letter(written: Written, now: datetime) -> EmailMessage:
    """Return the mail as it is sent: plain text, to one, and nothing that answers by itself should answer."""
    name, address = parseaddr(written.brand.from_ or "")
    local, _, domain = address.rpartition("@")
    message = EmailMessage(policy=SMTP)
    message["From"] = Mailbox(name, local, domain)
    message["To"] = Mailbox("", *written.to.rpartition("@")[::2])
    message["Subject"] = written.subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{written.mail.id.hex}.{written.mail.attempts}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answering machine writes back
    message["Content-Language"] = written.language
    message.set_content(written.text)
    return message


@dataclass(eq=False)
class Postman:
    """Sends what is owed, the oldest first. A mail that was being sent when the worker was killed is sent again."""

    catalogue: Catalogue
    ring: KeyRing = field(repr=False)
    pool: db.Pool
    ways: Mapping[int, Way]
    clock: Clock

    async def round(self) -> bool:
        """Send what is due, and return whether there is more to send at once."""
        async with db.acquired(self.pool) as connection:
            mails = [
                _mail(row) async for row in queries("post").lease(connection, now=self.clock(), until=self.clock() + LEASED, most=BATCH)
            ]
        away: set[Way] = set()
        for mail in mails:
            await self._settle(mail, away)
        await self._show()
        return len(mails) == BATCH and not away

    async def _settle(self, mail: Mail, away: set[Way]) -> None:
        """Send one mail, and write down what came of it."""
        try:
            outcome = await self._sent(mail, away)
        except Exception as error:  # of one mail: the others go on
            telemetry.alarm("unexpected", at=type(error).__name__)
            outcome = "waiting"
        telemetry.count("mails", kind=mail.purpose, outcome=outcome)
        place = {"bucket": mail.address.bucket, "key": mail.address.key, "id": mail.id}
        async with db.acquired(self.pool) as connection:
            if outcome == "waiting":
                await queries("post").postpone(connection, **place, until=self.clock() + _wait(mail.attempts))
            elif outcome == "sent" and mail.purpose is Purpose.CONFIRM:
                await queries("post").sent(connection, **place)
            else:
                await queries("post").done(connection, **place)

    async def _sent(self, mail: Mail, away: set[Way]) -> str:
        brand, way = self.catalogue.brand_of(mail.scope), self.ways.get(mail.scope >> 8)
        if brand is None:  # of a catalogue that is newer than this worker's
            return "waiting"
        if mail.address.text is None or mail.unreachable or (mail.complained and brand.complaint == "final"):
            return "nobody"  # unknown to us, or whoever must not be written to
        if self.clock() - mail.asked_at > STALE:
            telemetry.alarm("mail_given_up")
            return "given_up"
        try:
            if way is None or way in away:
                raise Away
            async with asyncio.timeout(TAKEN):
                await way.carry(self._written(mail, mail.address.text, brand), self.clock())
        except Refused:
            return "refused"
        except Deferred:
            return "waiting"
        except (Away, TimeoutError):
            telemetry.alarm("mail_not_sent")
            away |= {way} if way else set()
            return "waiting"
        return "sent"

    def _written(self, mail: Mail, to: str, brand: Brand) -> Written:
        """Return the mail with its link, which works from now on."""
        made = Pass(mail.purpose, mail.address.key, mail.scope, mail.id, self.clock())
        path = "m" if mail.purpose is Purpose.MANAGE else "c"
        link = f"https://{brand.link_host}/{path}/{passes.write(self.ring, made)}"
        language = languages.chosen(stored=mail.language, usual=brand.language)
        subject, text = _manage(language, brand, link) if mail.purpose is Purpose.MANAGE else _confirm(language, brand, link)
        return Written(mail, to, brand, language.code, link, int(passes.WORKS[mail.purpose] / timedelta(minutes=1)), subject, text)

    async def _show(self) -> None:
        async with db.acquired(self.pool) as connection:
            oldest = await queries("post").oldest(connection)
        waiting = (self.clock() - oldest).total_seconds() if oldest else 0
        telemetry.gauge("oldest_mail_age_seconds", max(waiting, 0))


def _manage(said: Language, brand: Brand, link: str) -> tuple[str, str]:
    """Return the subject and the text of a mail with the link to somebody's choices. It names no topic."""
    minutes = int(passes.WORKS[Purpose.MANAGE] / timedelta(minutes=1))
    asked = said.gettext("You, or someone else, asked for a link to choose what %(brand)s sends to this address.", brand=brand.title)
    works = said.ngettext("It works for %(num)s minute:", "It works for %(num)s minutes:", minutes)
    nothing = said.gettext("If it was not you, do nothing. Nothing changes.")
    return said.gettext("The link you asked for"), f"{asked}{said.gap}{works}\n\n{link}\n\n{nothing}\n"


def _confirm(said: Language, brand: Brand, link: str) -> tuple[str, str]:
    """Return the subject and the text of a mail that asks whether mail is wanted. It names no topic: the page does, where it may."""
    days = passes.WORKS[Purpose.CONFIRM].days
    asked = said.gettext("You, or someone else, asked %(brand)s to send emails to this address.", brand=brand.title)
    works = said.ngettext(
        "To say yes or no, open this link. It works for %(num)s day:", "To say yes or no, open this link. It works for %(num)s days:", days
    )
    nothing = said.gettext("If it was not you, do nothing. We send nothing.")
    return said.gettext("Do you want these emails?"), f"{asked}{said.gap}{works}\n\n{link}\n\n{nothing}\n"


def _mail(row: Any) -> Mail:
    address = Address(row["key"], None, row["plaintext"])
    facts = (row["language"], row["asked_at"], row["attempts"], row["unreachable"], row["complained"])
    return Mail(address, row["id"], Purpose(row["kind"]), row["scope"], *facts)


def _wait(attempts: int) -> timedelta:
    """Return how long to wait before the next attempt."""
    return min(CAP, timedelta(seconds=5 * 2 ** min(attempts, 12)))
