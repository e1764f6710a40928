"""Customer.io's people and the topics they turned off: the two APIs that change and show them. Named by docs/providers/customerio.md."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mailprefs.errors import Misconfigured, Unreadable
from mailprefs.providers import facts, reading, telling
from mailprefs.providers.base import Credential, Outcome, Settlement, Unclear, Unlisted, Unsafe
from mailprefs.providers.calling import PAGE, Line, base_of, is_loopback
from mailprefs.providers.steady import Steady

if TYPE_CHECKING:
    from aiohttp import ClientSession

HOSTS = ("track.customer.io", "track-eu.customer.io", "api.customer.io", "api-eu.customer.io")
TOPIC = re.compile(r"topic_[0-9]{1,18}")
_SHOWN = "At Customer.io, Workspace Settings → API and webhook credentials →"
ADVICE: Mapping[str, str] = {  # secret → where it is found
    "site_id": f"{_SHOWN} Track API Keys shows it.",
    "api_key": f"{_SHOWN} Track API Keys shows it beside the site id.",
    "app_key": f"{_SHOWN} App API Keys makes one. With it we read back what we told.",
}
PEOPLE = 100  # in one page of a listing: as many as it gives the attributes of
PREFERENCES = "cio_subscription_preferences"
_YES = frozenset({"true", "1"})  # what Customer.io takes for true in ``unsubscribed``, in any case
_REGIONS: Mapping[object, str] = {None: "", "us": "", "eu": "-eu"}
_WHO: Mapping[str, object] = {  # may have turned something off
    "or": [
        {"attribute": {"field": PREFERENCES, "operator": "exists"}},
        {"attribute": {"field": "unsubscribed", "operator": "eq", "value": "true"}},
    ]
}


@dataclass(frozen=True, slots=True)
class Person:
    """One person as Customer.io shows them, and what they chose of a topic."""

    id: str  # Customer.io's own, which never changes
    address: str  # "" for one without
    off: bool  # the topic was turned off
    left: bool  # everything was
    since: datetime | None  # the latest moment at which that can have been


@dataclass(frozen=True, slots=True)
class Lines:
    """The ways to one workspace: ``track`` changes people, ``app`` shows them."""

    track: Line
    app: Steady

    @classmethod
    def of(cls, http: ClientSession, credential: Credential, pause: timedelta) -> Lines:
        """Return the ways to an account's workspace. Raises Barred without one of its keys."""
        site, key, app = (credential.lent(name, advice) for name, advice in ADVICE.items())
        track_base, app_base = _bases(credential)
        proof = b64encode(f"{site}:{key}".encode()).decode()
        track = Line(http, track_base, {"Authorization": f"Basic {proof}", "Accept": "application/json"})
        return cls(track, Steady(http, app_base, {"Authorization": f"Bearer {app}", "Accept": "application/json"}, pause))

    @staticmethod
    def check(credential: Credential) -> None:
        """Raise Misconfigured unless it is known where the workspace lives."""
        _bases(credential)

    async def topic(self, topic: str, *, listing: bool = False) -> None:
        """Raise Unsafe unless the topic exists, and for a listing Unlisted if it is off by default."""
        if not TOPIC.fullmatch(topic):
            raise Unsafe("The account maps a topic to what is no identifier such as topic_7. Correct scopes in mailprefs.toml.")
        found = (await self.app.call("GET", "/v1/subscription_topics", most=PAGE)).json(200)
        one = [each for each in _objects(found, "topics") if each.get("identifier") == topic]
        if not one:
            raise Unsafe(f"Customer.io has no {topic} (any more) in its subscription center. Map the topic to one that exists.")
        if listing and one[0].get("subscribed_by_default") is not True:
            raise Unlisted(
                f"Customer.io's {topic} is off by default: who never chose is not told apart from who left. Map to a topic that is on by "
                "default, or do without this comparison: each stop is told again after 45 days instead."
            )

    async def people(self, topic: str, address: str) -> list[Person]:
        """Return everyone with the address: there may be several where a workspace knows people by ids."""
        found = (await self.app.call("GET", f"/v1/customers?email={quote(address, safe='')}", most=PAGE)).json(200)
        people = [await self._one(topic, _id(each.get("cio_id"))) for each in _objects(found, "results")]
        if any(person.address.casefold() != address.casefold() for person in people):
            raise Unclear("other_person")
        return people

    async def everyone(self, topic: str) -> AsyncIterator[Person]:
        """Yield everyone who ever chose something, over all pages. Raises Unclear if one is missing or is none."""
        start = ""
        while True:
            answer = await self.app.call("POST", f"/v1/customers?limit={PEOPLE}{start}", json={"filter": _WHO}, most=PAGE, asks=True)
            found = answer.json(200)
            for person in await self._shown(topic, _objects(found, "identifiers")):
                yield person
            following = facts.within(found, "next")
            if following in (None, ""):
                return
            before, start = start, f"&start={quote(str(following), safe='')}"
            if not isinstance(following, str) or start == before:
                raise Unclear("other_page")

    async def write(self, topic: str, whom: Mapping[str, str], *, on: bool) -> Settlement | None:
        """Turn a topic on or off for one person, and leave the other topics alone. Return the refusal, if it is refused."""
        # The dots say that the rest of the preferences stays; the identifier says what it is, so that no address is taken for an id.
        change = {"type": "person", "identifiers": whom, "action": "identify", "attributes": {f"{PREFERENCES}.topics.{topic}": on}}
        answer = await self.track.call("POST", "/api/v2/entity", json=change)
        if answer.status in telling.REFUSED:
            return Settlement(Outcome.REFUSED, f"http_{answer.status}")
        answer.json(200)
        return None

    async def _one(self, topic: str, id_: str) -> Person:
        """Return one person with what they chose. Raises Unclear if it is another, or nobody."""
        answer = await self.app.call("GET", f"/v1/customers/{quote(id_, safe='')}/attributes?id_type=cio_id", most=PAGE)
        shown = facts.within(answer.json(200), "customer")
        if not isinstance(shown, dict) or (person := _person(shown, topic)).id != id_:
            raise Unclear("not_shown")
        return person

    async def _shown(self, topic: str, named: Sequence[Mapping[str, Any]]) -> list[Person]:
        """Return the people of a page with what they chose. Raises Unclear unless each is shown."""
        if not named:
            return []
        asked = {"ids": [_id(each.get("cio_id")) for each in named]}
        answer = await self.app.call("POST", "/v1/customers/attributes?id_type=cio_id", json=asked, most=PAGE, asks=True)
        people = [_person(each, topic) for each in _objects(answer.json(200), "customers")]
        if {person.id for person in people} != set(asked["ids"]):
            raise Unclear("not_shown")
        return people


def _bases(credential: Credential) -> tuple[str, str]:
    """Return where the workspace is changed and where it is asked. Raises Misconfigured."""
    region = credential.options.get("region") or None
    if region not in _REGIONS:
        raise Misconfigured(f"Account '{credential.account}': region is us or eu: where Customer.io keeps the workspace. Correct it.")
    base = base_of(credential, HOSTS)
    if is_loopback(base):
        return base, base
    if credential.api_base:  # which names a region, and one of its two hosts
        region = "eu" if "-eu." in base else "us"
    return f"https://track{_REGIONS[region]}.customer.io", f"https://api{_REGIONS[region]}.customer.io"


def _person(shown: Mapping[str, Any], topic: str) -> Person:
    attributes = shown.get("attributes")
    if not isinstance(attributes, dict):
        raise Unclear("other_shape")
    off = _is_off(_preferences(attributes.get(PREFERENCES)), topic)
    left = any(str(each.get("unsubscribed")).casefold() in _YES for each in (shown, attributes))
    since = facts.within(shown, "timestamps", PREFERENCES if off else "unsubscribed")
    return Person(_id(attributes.get("cio_id")), facts.text(attributes.get("email")) or "", off, left, _moment(since))


def _preferences(written: object) -> object:
    """Return the preferences, which stand as JSON in a text; None where nothing was ever chosen."""
    if not isinstance(written, str):
        return written
    try:
        return reading.value(written.encode()) if written else None
    except Unreadable:
        raise Unclear("other_shape") from None


def _is_off(preferences: object, topic: str) -> bool:
    """True if a topic was turned off. Without a choice, or with an empty one, it is as by default."""
    topics = facts.within(preferences, "topics")
    if not (preferences is None or isinstance(preferences, dict)) or not (topics is None or isinstance(topics, dict)):
        raise Unclear("other_shape")
    chosen = facts.within(topics, topic)
    if chosen not in (None, "", True, False, "true", "false"):
        raise Unclear("other_shape")
    return chosen in (False, "false")


def _moment(seconds: object) -> datetime | None:
    if type(seconds) is not int or not facts.EARLIEST.timestamp() <= seconds < 1 << 33:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _objects(found: object, name: str) -> list[dict[str, Any]]:
    entries = facts.within(found, name)
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise Unclear("other_shape")
    return entries


def _id(value: object) -> str:
    if named := facts.text(value):
        return named
    raise Unclear("other_shape")
