"""The providers, one explicit list. A new one is a file and a line here."""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import ParamSpec, TypeVar

from aiohttp import ClientSession

from mailprefs.catalogue import Account
from mailprefs.errors import Misconfigured
from mailprefs.providers import mending
from mailprefs.providers.base import MOST_KEPT, Bound, Credential, Delivery, Ear, Fetching, Heard, Kept, Provider, Resolving, Sealed
from mailprefs.providers.brevo import Brevo
from mailprefs.providers.calling import base_of
from mailprefs.providers.customerio import CustomerIo
from mailprefs.providers.klaviyo import Klaviyo
from mailprefs.providers.mailchimp import Mailchimp
from mailprefs.providers.mailersend import MailerSend
from mailprefs.providers.mailgun import Mailgun
from mailprefs.providers.mailjet import Mailjet
from mailprefs.providers.mandrill import Mandrill
from mailprefs.providers.postmark import Postmark
from mailprefs.providers.resend import Resend
from mailprefs.providers.sendgrid import SendGrid
from mailprefs.providers.ses import SES
from mailprefs.providers.sparkpost import SparkPost
from mailprefs.providers.standard import Standard
from mailprefs.providers.twilio import Twilio
from mailprefs.settings import Settings
from mailprefs.words import Channel

PROVIDERS: Mapping[str, Ear] = {
    each.name: each
    for each in (
        Brevo(),
        CustomerIo(),
        Klaviyo(),
        Mailchimp(),
        MailerSend(),
        Mailgun(),
        Mailjet(),
        Mandrill(),
        Postmark(),
        Resend(),
        SendGrid(),
        SES(),
        SparkPost(),
        Standard(),
        Twilio(),
    )
}
LARGE = 16 * 1024  # bytes of a delivery: up to here it takes some milliseconds, whatever it holds
_APART = ThreadPoolExecutor(1, "mailprefs-delivery")
Asked = ParamSpec("Asked")
Found = TypeVar("Found")

CHANNELS: Mapping[str, Channel] = {name: each.channel for name, each in PROVIDERS.items()}


def engaged(account: Account, settings: Settings, providers: Mapping[str, Ear] = PROVIDERS) -> tuple[Ear, Credential]:
    """Return who carries an account's mail, and the account's credential, checked before anything is heard or told.

    Raises Misconfigured, which names the account and the setting, if it could not be heard or told, or would do harm.
    """
    provider = providers.get(account.provider)
    if provider is None:
        raise Misconfigured(f"account '{account.name}' names the provider '{account.provider}'; there are: {', '.join(providers)}")
    secrets = settings.secrets_of(account.name, account.secrets)
    credential = Credential(account.name, secrets, account.model_dump(), account.api_base)
    if provider.channel is Channel.SMS and account.stops is None:
        raise Misconfigured(f"account '{account.name}' lacks stops: the scope that STOP to its number stops, such as marketing or a topic")
    if provider.channel is Channel.EMAIL and account.stops is not None:
        raise Misconfigured(f"account '{account.name}' has stops, which is for numbers that text: of e-mail, scopes says what was left")
    provider.check(credential)
    if isinstance(provider, Provider):
        base_of(credential, provider.hosts)  # whatever a provider checks: nothing is sent anywhere else
    return provider, credential


def told_apart(hearings: Sequence[tuple[Account, Ear, Credential]]) -> None:
    """Raise Misconfigured, which names both, for two accounts where a delivery to the one would verify at the other and stop elsewhere."""
    for (one, ear, its), (other, same, others) in combinations(hearings, 2):
        if ear.name == same.name and (one.brand, one.stops) != (other.brand, other.stops) and _interchangeable(ear, its, others):
            raise Misconfigured(
                f"the accounts '{one.name}' and '{other.name}' prove their deliveries alike, but stop different scopes: what was told to "
                "one could be taken for the other's. Give each a secret of its own at the provider."
            )


def _interchangeable(ear: Ear, one: Credential, other: Credential) -> bool:
    """True if each part of a proof that holds for the one may hold for the other."""
    covers = ear.covers if isinstance(ear, Bound) else ()
    secret = all(set(one.valid(name)) & set(other.valid(name)) for name in ear.secrets_in)
    return secret and all(set(one.values(name)) & set(other.values(name)) for name in covers)


def unproven(provider: Ear, headers: Container[str]) -> bool:
    """True for headers, asked in any case, that no genuine delivery has: none of those is there in which the proof travels."""
    return isinstance(provider, Sealed) and not any(name in headers for name in provider.seals)


async def listen(provider: Ear, credential: Credential, delivery: Delivery, http: ClientSession) -> Heard:
    """Return what a delivery says, once it is proven. Raises Forged, or Unavailable if what its proof or its ids want does not come."""
    return await understood(provider, credential, delivery, http, lambda heard: heard)


async def understood(
    provider: Ear, credential: Credential, delivery: Delivery, http: ClientSession, place: Callable[[Heard], Found]
) -> Found:
    """Return what ``place``, which is pure, makes of what a delivery says: in one go, unless something is asked or mended in between."""
    if isinstance(provider, Fetching):
        await provider.fetch(http, credential, delivery)
    heard, placed = await apart(delivery, _proven, provider, credential, delivery, place)
    if placed:
        return placed[0]
    heard = await _resolved(provider, credential, heard, http)
    if heard.kept:
        for again in await apart(delivery, mending.readings, delivery):
            told = await _resolved(provider, credential, await apart(delivery, provider.parse, again), http)
            heard = await apart(delivery, mending.with_stops, heard, told)
    few = heard if len(heard.kept) <= MOST_KEPT else replace(heard, kept=(Kept("too_many", delivery.body),))
    return await apart(delivery, place, few)


def _proven(provider: Ear, credential: Credential, delivery: Delivery, place: Callable[[Heard], Found]) -> tuple[Heard, tuple[Found, ...]]:
    """Return what is said, and what it comes to where nothing is left to ask: each way to the thread and back waits for the loop's turn."""
    provider.verify(credential, delivery)
    heard = provider.parse(delivery)
    return heard, () if heard.kept or isinstance(provider, Resolving) else (place(heard),)


async def _resolved(provider: Ear, credential: Credential, heard: Heard, http: ClientSession) -> Heard:
    return await provider.resolve(http, credential, heard) if isinstance(provider, Resolving) else heard


async def apart(delivery: Delivery, work: Callable[Asked, Found], *args: Asked.args, **kwargs: Asked.kwargs) -> Found:
    """Return what a pure function comes to. What a large delivery asks for is done in a thread: the loop serves everybody else meanwhile.

    One at a time, for two would only take each other's turns; and not among the loop's own threads, which look up names.
    """
    whole = partial(work, *args, **kwargs)
    return await get_running_loop().run_in_executor(_APART, whole) if len(delivery.body) > LARGE else whole()
