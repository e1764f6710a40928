"""Amazon's Signature Version 4: what every request to AWS is signed with. Bytes and a moment in, headers out."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote

from yarl import URL

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Key:
    """An access key, and what it is used for."""

    id: str
    secret: str = field(repr=False)
    region: str
    service: str


def now() -> datetime:
    """Return the machine's time. AWS refuses what is signed more than five minutes from its own."""
    return datetime.now(UTC)


def signed(key: Key, method: str, url: URL, body: bytes, at: datetime, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers, which are signed, and with them the date and the proof. The URL is as it stands in the request."""
    moment = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{moment[:8]}/{key.region}/{key.service}/aws4_request"
    covered = {"host": _host(url), "x-amz-date": moment} | {name.lower(): value.strip() for name, value in headers.items()}
    names = ";".join(sorted(covered))
    lines = [f"{name}:{covered[name]}\n" for name in sorted(covered)]
    request = "\n".join([method, _path(url), _query(url), "".join(lines), names, hashlib.sha256(body).hexdigest()])
    text = "\n".join([_ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    proof = hmac.digest(_derived(key, moment[:8]), text.encode(), "sha256").hex()
    credential = f"{_ALGORITHM} Credential={key.id}/{scope}, SignedHeaders={names}, Signature={proof}"
    return {**headers, "X-Amz-Date": moment, "Authorization": credential}


def _derived(key: Key, day: str) -> bytes:
    """Return what signs: a key of that day, region and service alone."""
    derived = f"AWS4{key.secret}".encode()
    for part in (day, key.region, key.service, "aws4_request"):
        derived = hmac.digest(derived, part.encode(), "sha256")
    return derived


def _host(url: URL) -> str:
    return str(url.host_subcomponent) if url.is_default_port() else f"{url.host_subcomponent}:{url.port}"


def _path(url: URL) -> str:
    """Return the path with each of its segments encoded once more, as every service but S3 wants it."""
    return quote(url.raw_path or "/", safe="/-_.~")


def _query(url: URL) -> str:
    pairs = parse_qsl(url.raw_query_string, keep_blank_values=True)
    return "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs))
