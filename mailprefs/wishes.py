"""What a person asks for by mail: to be left alone by our mail, or something that another person must read.

No mail is ever answered (RFC 3834), and none turns anything on. The words decide two things apart: whether they ask to leave, and
whether they say more than that. When nobody can be sure, they say more.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from html import unescape
from itertools import islice

from mailprefs import bodies, letters
from mailprefs.letters import Opened, decoded, field_of

LONGEST = 20_000  # characters of a letter's words that are read
AT_ONCE = 500  # characters that are normalised at once: the library takes the square of the number of marks on one letter
MANY = 60  # words in which nobody asks for one thing alone
FEW = 8  # words in which a single "stop" is about our mail

_ASKS = re.compile(
    r"unsub|un-sub|opt(?:ing|ed)?[\s-]?out|(?:off|from) (?:\w+ ){1,2}list|no (?:longer|more) (?:\w+ ){0,5}e?-?mails?"
    r"|stop (?:sending|e?-?mail|this)|abmeld|abbestell|austragen|désabonn|desabonn|désinscri|desinscri|\bbajas?\b|desuscri|descadastr"
    r"|cancelar (?:\w+ ){0,2}(?:suscripci|inscri|assinatura)|disiscri|cancellami|uitschrij|afmeld|avregistrer|avanmäl|avsluta"
    r"|framel|peruuta|wypisz|rezygn|odhlás|odhlas|leiratkoz|dezabon|отпис|退订|取消订阅|退訂|配信停止|購読解除|구독\s?취소|수신\s?거부"
    r"|إلغاء الاشتراك|הסר"
)
_ASKS_IN_FEW = re.compile(r"\b(?:stop|remove|leave|quit|cancel|end|off|signoff|basta|raus)\b")
_TAKES_BACK = re.compile(r"\b(?:do not|don['’]?t|never|nicht|no me|ne pas) (?:\w+ ){0,3}(?:unsub\w*|abmelden|desuscrib\w*)")
_OF_OTHERS = re.compile(r"\b(?:sms|texts?|texting|texted|phones?|calls?|calling|whatsapp|mensajes? de texto)\b")  # not our mail
_OF_MAIL = re.compile(r"mail|newsletter|unsub|opt[\s-]?out|list")
_SAYS_MORE = re.compile(
    r"\b(?:re-?subscrib\w*|subscribe|sign me up|keep me|wieder anmelden"  # what no mail can do
    r"|delet\w+|eras\w+|gdpr|dsgvo|rgpd|lgpd|ccpa|personal data|my data|my account|meine daten|lösch\w+|supprim\w+|borr\w+|elimin\w+"
    r"|lawyer|attorney|anwalt|abogado|avocat|die[ds]?|deceased|verstorben|change (?:my )?(?:e-?mail|address))\b"
)
_QUOTED = re.compile(
    r"^(?:>.*|(?:on|am|le|el|il|op|em) .{5,200}(?:wrote|schrieb|écrit|escribió|ha scritto|schreef|escreveu)\s?:?)$", re.MULTILINE
)
_BELOW = re.compile(  # what follows is a signature, or another letter
    r"^(?:-- ?|_{10,}|-{2,} ?(?:original message|forwarded message|ursprüngliche nachricht|mensaje original|message d'origine).*"
    r"|(?:from|von|de ?): .*)$",
    re.MULTILINE,
)
_SIGNED = re.compile(
    r"^(?:sent from|get outlook|this message was automatically generated|von meinem .*gesendet|gesendet (?:von|mit)|envoyé (?:de|depuis)"
    r"|enviado (?:desde|do|de)|inviato da|verzonden (?:vanaf|met)|skickat från).*$",
    re.MULTILINE,
)
_QUOTED_HTML = re.compile(r"<blockquote|class=.?(?:gmail_quote|moz-cite-prefix)|id=.?(?:divRplyFwdMsg|appendonsend)", re.IGNORECASE)
_UNSEEN = re.compile(r"<(style|script|title)\b.*?(</\1|\Z)", re.IGNORECASE | re.DOTALL)  # one that is open to the end is sought once
_TAG = re.compile(r"<[^<>]*>|&#[0-9]{9,};?")  # also a number that is no letter's: int() raises for one of thousands of digits
_NAMES_A_PLACE = re.compile(rf"[@/]|{letters.FORM}")  # an address, a link and a token ask nothing
_END = re.compile(r"[.!?]+")
_NO_LETTER = re.compile(r"[^\w\s.'’-]")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the words of a letter come to."""

    leaves: bool  # they ask to leave, or there are none
    says_more: bool  # a person should read them


def read(opened: Opened) -> Wish:
    """Return what a letter asks for: its subject, and what its writer wrote in it rather than quoted."""
    return wish(f"{decoded(field_of(opened.top, 'subject'))}\n{_written(opened)}")


def wish(text: str) -> Wish:
    """Return what words ask for. No words ask to leave: the address is there for nothing else."""
    kept = [word for word in _SIGNED.sub("", _folded(text)).split() if not _NAMES_A_PLACE.search(word)]
    said = " ".join(_NO_LETTER.sub(" ", _END.sub(" . ", " ".join(kept))).split())
    words = [word for word in said.split() if word != "."]
    others = _OF_OTHERS.search(said) is not None
    more = others or len(words) > MANY or any(pattern.search(said) for pattern in (_SAYS_MORE, _TAKES_BACK))
    asks = _ASKS.search(_TAKES_BACK.sub(" ", said)) is not None and (not others or _OF_MAIL.search(said) is not None)
    asks = asks or (len(words) <= FEW and not more and _ASKS_IN_FEW.search(said) is not None)
    return Wish(leaves=asks or not words, says_more=more or not (asks or not words))


def is_automatic(opened: Opened) -> bool:
    """True for what a machine answered, such as a notice of absence (RFC 3834 §5). A mailbox provider that leaves for a person is none."""
    auto = field_of(opened.top, "auto-submitted").lower()
    if auto.startswith(("auto-replied", "auto-notified")) or field_of(opened.top, "precedence").lower() == "auto_reply":
        return True
    return any(field_of(opened.top, name) for name in ("x-autoreply", "x-autorespond"))


def _written(opened: Opened) -> str:
    """Return what the writer wrote, above what is quoted: of plain text and HTML, the plain text."""
    shown = list(islice(bodies.shown(opened.top), letters.PARTS))
    plain = [part for part in shown if part.get_content_type() == "text/plain"]
    if plain:
        return _joined(_QUOTED.sub("", _BELOW.split(_folded(bodies.text_of(part)), maxsplit=1)[0]) for part in plain)
    return _joined(_words(bodies.text_of(part)) for part in shown)


def _joined(texts: Iterable[str]) -> str:
    """Return texts one below the other, as far as they are read; those behind are not asked for."""
    left, kept = LONGEST, list[str]()
    for text in texts:
        kept.append(text[:left])
        left -= len(kept[-1])
        if not left:
            break
    return "\n".join(kept)


def _folded(text: str) -> str:
    whole = text[:LONGEST]
    return "".join(unicodedata.normalize("NFKC", whole[n : n + AT_ONCE]) for n in range(0, len(whole), AT_ONCE)).casefold()


def _words(page: str) -> str:
    """Return about what an HTML page says above what it quotes. The library's parser takes seconds over pages that are meant to hurt.

    A style that is open to the end counts as words: so a person reads them.
    """
    seen = _UNSEEN.sub(lambda found: " " if found[2] else found[0], _QUOTED_HTML.split(page, maxsplit=1)[0])
    return unescape(_TAG.sub(" ", seen))
