"""``hook test``: one delivery of our own making to the running service, and what became of it there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from uuid import uuid4

import click
from aiohttp import ClientError
from yarl import URL

from mailprefs import reception
from mailprefs.catalogue import Account
from mailprefs.cli.opening import Opening, now
from mailprefs.cli.saying import show
from mailprefs.cli.signals import run
from mailprefs.db import Connection
from mailprefs.errors import Forged, Misconfigured, Unavailable, Unreadable
from mailprefs.providers import engaged, samples
from mailprefs.providers.base import Credential, Delivery, Ear, Heard, Sample, Signing, Unsignable
from mailprefs.providers.calling import session
from mailprefs.providers.sendgrid import TRY_OUT
from mailprefs.reception import Reception
from mailprefs.words import Address, Channel, Kind

NOBODY = {Channel.EMAIL: "mailprefs-test@example.com", Channel.SMS: "+12025550100"}  # RFC 2606 §3, and a number kept for fiction
KINDS = (Kind.DELIVERED.value, Kind.UNSUBSCRIBED.value)


@dataclass(frozen=True, slots=True)
class Made:
    """A delivery, and how it was proven: where it could not be, why not, and what can be tried instead."""

    delivery: Delivery
    heard: Heard  # as it reads
    signed: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the database has of an account, and what that told of one address."""

    reception: Reception
    told: frozenset[tuple[str, int, str]]  # evidence, scope, effect


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a delivery: the answer, and the database before and after it."""

    status: int
    before: Seen
    after: Seen


@click.command("test")
@click.argument("account")
@click.option("--kind", type=click.Choice(KINDS), default=KINDS[0], show_default=True, help="What it tells, of an address of nobody's.")
@click.option("--url", help="Where the service is: https://HOST, or the whole address.  [HOST and PORT of the environment]")
@click.option("--public", is_flag=True, help="Send it to where the provider does: public_url, or the brand's link_host.")
@click.option(
    "--signed-by",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A private key (PEM), where only the provider has its own.",
)
def test(account: str, kind: str, url: str | None, public: bool, signed_by: Path | None) -> int:
    """Try the running service with one delivery. It is for ACCOUNT, signed as its provider would, and what became of it is shown.

    It says that mail to an address of nobody's was delivered, which changes nothing; with --kind unsubscribed, that this address left:
    then it stays stopped, and the other accounts are told so. Where only the provider has the key, it is sent without a proof, which
    must be refused. Exit 1 if it did not come out as it should.
    """
    opening = Opening()
    known = opening.account(account)
    provider, credential = engaged(known, opening.settings)
    if signed_by:
        credential = replace(credential, secrets={**credential.secrets, TRY_OUT: signed_by.read_text(encoding="utf-8", errors="replace")})
    whole = _address(opening, known, url, public)
    made = _made(provider, credential, Kind(kind))
    _line("sent", f"{kind}, about {NOBODY[provider.channel]}, to {_shown(whole)}, {'signed' if made.signed else 'without a proof'}")
    tried = run(_tried(opening, known, made, NOBODY[provider.channel], whole))
    return 0 if _judged(opening, provider, made, tried) else 1


def _line(word: str, text: str) -> None:
    show(f"{word:<12}{text}")


def _address(opening: Opening, account: Account, url: str | None, public: bool) -> URL:
    """Return the whole address that the delivery is posted to. Raises Misconfigured for one that is none."""
    if url is None and public:
        host = next(brand.link_host for brand in opening.catalogue.brand if brand.name == account.brand)
        url = account.public_url or f"https://{host}"
    try:
        found = URL(url or f"http://{_reached(opening.settings.host)}:{opening.settings.port}")
    except ValueError:
        found = URL()
    if found.scheme not in ("http", "https") or not found.host:
        raise Misconfigured("that is no address of a service, such as https://go.example.com")
    return found if found.path.strip("/") else found.with_path(f"/hooks/{account.name}")


def _reached(host: str) -> str:
    """Return the host by which what listens there is reached from this machine, as it stands in a URL."""
    try:
        found = ip_address(host)
    except ValueError:
        return host
    if found.is_unspecified:
        return "127.0.0.1" if found.version == 4 else "[::1]"
    return host if found.version == 4 else f"[{host}]"


def _shown(url: URL) -> str:
    """Return an address without what may be secret in it."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


def _made(provider: Ear, credential: Credential, kind: Kind) -> Made:
    """Return a delivery of this account's provider, proven if anyone but the provider can."""
    if not isinstance(provider, Signing):
        raise Misconfigured(f"nobody knows how deliveries of {provider.name} are made")
    at, group = now(), next(iter(credential.groups), "")
    body = provider.sample(Sample(kind, NOBODY[provider.channel], f"mailprefs-test-{uuid4().hex}", at, group))
    try:
        delivery, why = provider.sign(credential, body, at), ""
    except Unsignable as error:
        delivery, why = samples.posted(body, at, {}), str(error)
    except Unreadable as error:  # the key that was lent is none
        raise Misconfigured(str(error)) from None
    try:
        provider.verify(credential, delivery)
    except Forged:
        why = why or "The key is not the private half of webhook_key or of webhook_key_next, as they are set here."
    return Made(delivery, provider.parse(delivery), not why, why)


async def _tried(opening: Opening, account: Account, made: Made, who: str, url: URL) -> Tried:
    address = opening.addresses.heard(who)
    async with opening.connected() as connection:
        before = await _seen(connection, account.name, address)
        status = await _posted(url, made.delivery)
        return Tried(status, before, await _seen(connection, account.name, address))


async def _seen(connection: Connection, account: str, address: Address) -> Seen:
    [found] = await reception.figures(connection, [account])
    return Seen(found, frozenset(await reception.told_of(connection, account, address)))


async def _posted(url: URL, delivery: Delivery) -> int:
    """Return the status with which the service answers. Raises Unavailable if it does not."""
    if delivery.header("Authorization"):
        url = url.with_user(None)  # the account's own, and no other
    query = delivery.url.removeprefix("?")
    whole = URL(f"{url}{'&' if url.query_string else '?'}{query}" if query else str(url), encoded=True)
    try:
        async with (
            session(1) as http,
            http.post(whole, data=delivery.body, headers=dict(delivery.headers), allow_redirects=False) as answer,
        ):
            return answer.status
    except (ClientError, OSError):
        raise Unavailable(f"no service answers at {_shown(url)}. Does it run? --url names another place.") from None


def _judged(opening: Opening, provider: Ear, made: Made, tried: Tried) -> bool:
    """Say what became of it, and return whether that is as it should be."""
    answers = provider.answers
    if tried.status == answers.forged:
        return _refused(made, tried.status)
    if tried.status != answers.kept:
        _line("answered", f"{tried.status}: {_TROUBLE.get(tried.status, 'this is no answer of mailprefs: something else stands there')}")
        return False
    _line("answered", f"{tried.status}: accepted")
    if not made.signed:
        _line("", "It proved nothing. Whatever answers there hears anybody, and is not this service.")
        return False
    return _arrived(opening, made, tried)


_TROUBLE = {
    404: "no account of that name hears there: the service was started with another mailprefs.toml, or before the account was in it",
    503: "it could not be kept, and the provider would send it again: the service's log says why",
}


def _refused(made: Made, status: int) -> bool:
    if made.signed:
        _line("answered", f"{status}: refused as forged. The service there was started with other secrets than those that are set here")
        return False
    _line("answered", f"{status}: refused as forged, as it must be. The address is reached, and believes nobody without a proof")
    _line("next", made.why)
    return True


def _arrived(opening: Opening, made: Made, tried: Tried) -> bool:
    """Say what the database has gained, and return whether that is all that the delivery told."""
    before, after = tried.before.reception, tried.after.reception
    told = Counter(made.heard.counted) + Counter(str(event.kind) for event in made.heard.events)
    heard = Counter(after.events) - Counter(before.events)
    if told - heard:
        _line("heard", "nothing, in the database that is looked at from here: the service there has another one")
        return False
    _line("heard", ", ".join(f"{kind} {heard[kind]}" for kind in sorted(told)))
    kept = Counter(after.kept) - Counter(before.kept)
    _line("kept aside", ", ".join(f"{reason} {times}" for reason, times in sorted(kept.items())) or "nothing")
    for _, scope, effect in sorted(tried.after.told - tried.before.told):
        named = opening.catalogue.by_number.get(scope)
        _line("recorded", f"{effect} of {named.name if named else scope}, for this address of nobody's")
    return True
