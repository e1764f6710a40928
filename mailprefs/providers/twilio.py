"""Twilio: the texts that people send to a number of ours in, STOP above all; consents out. Known of it: docs/providers/twilio.md."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlencode
from uuid import uuid4

from mailprefs.errors import Forged, Misconfigured
from mailprefs.providers import facts, posted, samples, signing, telling
from mailprefs.providers.base import (
    Answers,
    Credential,
    Delivery,
    Heard,
    Listed,
    Outcome,
    Rejected,
    Sample,
    Settlement,
    Telling,
    Unclear,
    Unlisted,
    Unsafe,
)
from mailprefs.providers.calling import Line, base_of
from mailprefs.providers.sorting import Counted, place, sort
from mailprefs.words import Channel, Event, Kind

if TYPE_CHECKING:
    from aiohttp import ClientSession

WORDS: Mapping[str, Kind | str] = {
    "STOP": Kind.UNSUBSCRIBED,
    "START": Kind.RESUBSCRIBED,  # from the very number that sent STOP: the recipient's own act
    "HELP": "it asks for help, which Twilio answers, and changes nothing",
    "message": "it is a text like any other, and says nothing about stopping",
    "report": "it is a report about a text of ours; what a person wants is not in it",
}
# What a whole text must be, in letters without accents. CTIA's and Twilio's own, 47 CFR 64.1200(a)(10), and other languages'.
STOPS = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "OPTOUT", "REVOKE"}) | frozenset(
    {"ARRET", "ARRETER", "DESABONNER", "ALTO", "BAJA", "CANCELAR", "PARAR", "STOPP", "ABMELDEN"}
)
STARTS = frozenset({"START", "YES", "UNSTOP"})
HELPS = frozenset({"HELP", "INFO"})
# What a reasonable person may mean by wanting no more texts (47 CFR 64.1200(a)(10)(i)). Too much here only costs somebody a look.
REVOKING = re.compile(
    r"\b(?:STOP\w*|UNSUB\w*|CANCEL\w*|QUIT|REVOK\w*|WITHDRAW\w*|REMOVE\w*|DELETE\w*|ENOUGH|SPAM\w*|LEAVE ME|GO AWAY|NOT INTERESTED"
    r"|OPT(?:ING|ED)? ?OUT|OFF (?:YOUR|THE|THIS|UR) LIST|TAKE ME OFF|NO MORE|NO LONGER|WRONG (?:NUMBER|PERSON)|LOSE MY NUMBER"
    r"|(?:DO NOT|DON ?T|NEVER|END) (?:\w{1,20} ){0,3}(?:TEXT|TXT|MESSAGE|CONTACT|SEND|CALL|WANT|EMAIL|WRITE|BOTHER|SMS)\w*"
    r"|ARRET\w*|DESABONN\w*|DESINSCRI\w*|BAJA|PARAR|PAREN?|ALTO|NO (?:ME )?(?:ENVI|ESCRIB|MAND)\w*"
    r"|ABMELD\w*|ABBESTELL\w*|KEINE (?:\w{1,20} ){0,2}(?:SMS|NACHRICHT|TEXT|WERBUNG)\w*)\b"
)
SIGNS = frozenset("\U0001f6d1\u26d4\U0001f6ab")  # a stop sign, no entry, prohibited

SIGNATURE = "X-Twilio-Signature"
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_BODY_DIGEST = re.compile(r"(?:^|&)bodySHA256=([0-9a-f]{64})(?=&|$)")
_ADDRESS = re.compile(r"(?P<scheme>https?)://(?P<host>(?:[^/?@]*@)?(?:\[[^]/?]*\]|[^/?@:]*))(?P<port>:[0-9]+)?(?P<rest>(?:[/?].*)?)")
_PORTS: Mapping[str, str] = {"https": ":443", "http": ":80"}
_IDS = ("MessageSid", "SmsMessageSid", "SmsSid")
_OPTED_OUT = "21610"  # Twilio refused a text of ours: this person sent STOP, which may never have reached us
_AUTH_ADVICE = "At Twilio, the Console shows the auth token of the account that owns the number; set it unchanged."
_URL_ADVICE = "Set it to the webhook of the number or messaging service at Twilio, letter for letter: Twilio signs it with every post."

BULK = "/v1/Consents/Bulk"
_SENDER = re.compile(r"MG[0-9a-f]{32}|\+[1-9][0-9]{1,14}")
_SID = re.compile(r"AC[0-9a-f]{32}")
_NOT_VALID = 30646  # the one error of a consent that Twilio explains: something in it is not valid
_SID_ADVICE = "At Twilio, the Console shows the account SID beside the auth token; it begins with AC."
_MAP_ADVICE = (
    "Twilio blocks every text of a sender, codes as well: map one scope alone, the one in stops, to a messaging service (MG…) or a number "
    "that carries nothing else, or leave scopes out."
)


@dataclass(frozen=True, slots=True)
class Twilio:
    """Twilio both ways. Holds no state."""

    budget: timedelta = telling.BUDGET

    name: ClassVar[str] = "twilio"
    channel: ClassVar[Channel] = Channel.SMS
    # An empty answer in its markup sends no text back: Twilio confirms STOP itself, and one confirmation is all there may be.
    answers: ClassVar[Answers] = Answers(body=b"<Response/>", content_type="text/xml")
    kinds: ClassVar[Mapping[str, Kind | str]] = WORDS
    secrets_in: ClassVar[tuple[str, ...]] = ("auth_token",)
    covers: ClassVar[tuple[str, ...]] = ("public_url",)  # all numbers of an account at Twilio share its token
    seals: ClassVar[tuple[str, ...]] = (SIGNATURE,)
    secrets_out: ClassVar[tuple[str, ...]] = ("account_sid", "auth_token")
    hosts: ClassVar[tuple[str, ...]] = ("accounts.twilio.com",)
    batch: ClassVar[int] = 25  # the most it takes
    pace: ClassVar[float] = 1.5  # a hundred requests a minute are what it lets an account make

    def check(self, credential: Credential) -> None:
        """Raise Misconfigured, naming account, setting and what to do, unless the account could be heard and, if mapped, told."""
        signing.check(credential, "auth_token", 32, _AUTH_ADVICE)
        posted.check_public_url(credential, _URL_ADVICE)
        if credential.groups:
            _check_told(credential)
        base_of(credential, self.hosts)

    def verify(self, credential: Credential, delivery: Delivery) -> None:
        """Raise Forged unless the post was signed for this account. Nothing in it is dated: no window (docs/providers/twilio.md)."""
        url, query = posted.public_url(credential), delivery.url.partition("?")[2]
        if digest := _BODY_DIGEST.search(query):  # of a body that is no form; Twilio adds it to the address, and signs that alone
            signing.word([hashlib.sha256(delivery.body).hexdigest()], digest[1])
            url, fields = f"{url.partition('?')[0]}?{query}", []
        else:
            fields = posted.octets(delivery)
        if not (fields or digest):
            raise Forged  # else the signature would cover the address alone
        readings = [[posted.signed(each, fields)] for each in _spellings(url)]
        signing.hmac_of_any(credential.valid("auth_token"), delivery.header(SIGNATURE), readings, "sha1", "base64")
        if (sid := credential.secrets.get("account_sid")) and not digest:
            told = [text for name, text in fields if name == b"AccountSid"]
            signing.word([sid], told[0].decode("latin-1") if len(told) == 1 else None)

    def parse(self, delivery: Delivery) -> Heard:
        """Read a verified delivery, which tells one text. Never raises."""
        return sort(posted.event(delivery), lambda told: _read(told, delivery))

    def sample(self, told: Sample) -> bytes:
        """Return the body in which Twilio would tell this: a report of ours, or the text STOP."""
        if told.kind is Kind.UNSUBSCRIBED:
            return samples.form({"MessageSid": told.id, "From": told.address, "Body": "STOP"})
        return samples.form({"MessageSid": told.id, "To": told.address, "MessageStatus": told.kind})

    def sign(self, credential: Credential, body: bytes, at: datetime) -> Delivery:
        """Return the delivery of a form, signed with the auth token together with the account's public_url."""
        whole = body + (f"&AccountSid={sid}".encode() if (sid := credential.secrets.get("account_sid")) else b"")
        unsigned = samples.posted(whole, at, {}, kind=samples.FORM)
        signed = posted.signed(posted.public_url(credential), posted.octets(unsigned))
        signature = signing.hmac_of(credential.secrets["auth_token"], signed, digest="sha1", spelling="base64")
        return samples.posted(whole, at, {SIGNATURE: signature}, kind=samples.FORM)

    async def tell(self, http: ClientSession, credential: Credential, tellings: Sequence[Telling]) -> list[Settlement]:
        """Assert each telling as the consent of a number to one sender. No other sender of the account is touched."""

        async def act(group: str, stop: bool, numbers: list[str], settled: telling.Settled) -> None:
            if not _SENDER.fullmatch(group):
                raise Unsafe(f"The account maps a topic to what is no sender of Twilio's. {_MAP_ADVICE}")
            await _settle(_line(http, credential, self.hosts), group, stop, numbers, settled)

        return await telling.told(tellings, self.budget, act, fit=lambda number: _E164.fullmatch(number) is not None)

    def pull(self, http: ClientSession, credential: Credential, group: str) -> AsyncIterator[Listed]:
        """Twilio takes consents and shows none: there is nothing to list, and an empty list would be a lie."""
        raise Unlisted(
            "Twilio shows nobody's consents, so there is no list of its to compare. Each stop is told again after 45 days instead."
        )


# In


def _spellings(url: str) -> tuple[str, ...]:
    """Return an address without a port and with one: Twilio signs now the one, now the other (twilio-python, request_validator.py)."""
    found = _ADDRESS.fullmatch(url)
    if not found:
        return (url,)
    port = found["port"] or _PORTS[found["scheme"]]
    return tuple(f"{found['scheme']}://{found['host']}{each}{found['rest']}" for each in ("", port))


def _read(told: Mapping[str, str], delivery: Delivery) -> Event | Counted | str:
    """Return what one text says, or the reason why it is kept aside for a person to read."""
    word = _word(told)
    if word not in WORDS:
        return word
    kind = place(word, WORDS[word])
    if not isinstance(kind, Kind):
        return kind
    number = told.get("From", "")
    if not _E164.fullmatch(number):
        return "other_channel" if ":" in number else "no_recipient"  # whatsapp:+1555…: another channel's choice
    id_ = next((sid for name in _IDS if (sid := facts.text(told.get(name)))), None)
    return Event(kind, id_, delivery.received_at, number, detail=_code(told, word)) if id_ else "no_id"


def _code(told: Mapping[str, str], word: str) -> str:
    """Return which of the known words it was, since YES may have answered another question; else what Advanced Opt-Out made of it."""
    said = "".join(_letters(told.get("Body", "")).split())
    return said if said in STOPS | STARTS else word


def _word(told: Mapping[str, str]) -> str:
    """Return what a text comes to: a key of WORDS, or why a person must read it."""
    advanced = told.get("OptOutType", "").strip().upper()
    if advanced in ("STOP", "START", "HELP"):  # Advanced Opt-Out has read it already, with the words that its owner chose
        return advanced
    text = told.get("Body")
    if text is None:
        return "unknown_kind" if "MessageStatus" not in told else "opted_out" if told.get("ErrorCode") == _OPTED_OUT else "report"
    letters = _letters(text)
    if "".join(letters.split()) in STOPS or (letters.strip() and STOPS.issuperset(letters.split())):
        return "STOP"
    whole = text.strip().upper()
    if whole in STARTS or whole in HELPS:  # to the letter: only a stop is read generously
        return "START" if whole in STARTS else "HELP"
    return "revocation" if REVOKING.search(letters) or SIGNS.intersection(text) else "message"


def _letters(text: str) -> str:
    """Return a text in capital letters and digits without accents, with a space for everything else."""
    plain = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letter if letter.isalnum() else " " for letter in plain).upper()


# Out


def _check_told(credential: Credential) -> None:
    """Raise Misconfigured unless one scope alone is told, to a sender that carries nothing else: the one that STOP stops."""
    if not _SID.fullmatch(credential.needed("account_sid", 34, _SID_ADVICE)):
        raise credential.wrong("account_sid", "is not one, or only a part of one", _SID_ADVICE)
    scopes, stops = credential.options.get("scopes"), str(credential.options.get("stops")).rpartition("/")[2]
    if not isinstance(scopes, Mapping) or list(scopes) != [stops]:
        raise Misconfigured(f"Account '{credential.account}': scopes is not about what stops names, and about that alone. {_MAP_ADVICE}")
    if not _SENDER.fullmatch(credential.groups[0]):
        raise Misconfigured(f"Account '{credential.account}': scopes maps to '{credential.groups[0]}', which is no sender. {_MAP_ADVICE}")


def _line(http: ClientSession, credential: Credential, hosts: Sequence[str]) -> Line:
    sid, token = credential.lent("account_sid", _SID_ADVICE), credential.lent("auth_token", _AUTH_ADVICE)
    proof = b64encode(f"{sid}:{token}".encode()).decode()
    headers = {"Authorization": f"Basic {proof}", "Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    return Line(http, base_of(credential, hosts), headers)


async def _settle(line: Line, sender: str, stop: bool, numbers: Sequence[str], settled: telling.Settled) -> None:
    """Tell what numbers consent to, and write down what became of each. Raises Rejected."""
    named = {uuid4().hex: number for number in numbers}
    told = {"sender_id": sender, "status": "opt-out" if stop else "opt-in", "source": "others"}
    items = [json.dumps({"contact_id": number, "correlation_id": id_, **told}) for id_, number in named.items()]
    answer = await line.send("POST", BULK, urlencode([("Items", item) for item in items]).encode())
    if answer.status in telling.REFUSED:
        raise Rejected
    results = facts.within(answer.json(201), "items")
    if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
        raise Unclear("other_shape")
    became: telling.Settled = {}
    for result in results:
        number = named.pop(str(result.get("correlation_id")), None)
        if number is None:  # of nobody, or twice: which of the two holds is not known
            raise Unclear("other_consent")
        became[number] = _became(result.get("error_code"))
    settled.update(became)
    if named:
        raise Unclear("not_answered")


def _became(code: object) -> Settlement:
    """Return what became of one consent: 0 is done. Of the errors, only the one that blames the consent itself is a refusal."""
    if type(code) is not int:
        return Settlement(Outcome.UNKNOWN, "other_shape")
    if code == 0:
        return telling.DONE
    return Settlement(Outcome.REFUSED if code == _NOT_VALID else Outcome.UNKNOWN, f"error_{abs(code)}")
