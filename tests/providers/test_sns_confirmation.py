"""A subscription is confirmed by the operator, at the topic's regional host and nowhere else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from mailprefs.cli import hooks
from mailprefs.errors import Forged, Unavailable
from mailprefs.providers import sns
from mailprefs.providers.base import Credential
from mailprefs.providers.ses import SES

from .amazon import Amazon, amazon
from .sns_sender import ASKING_NAMES, CONFIRM, URL, asking, certificate, key, notification, signed

TOPIC = str(asking()["TopicArn"])
REGION = TOPIC.split(":")[3]
CREDENTIAL = Credential("ses-main", {}, {"topic_arns": [TOPIC]})
RIGHT = f"https://sns.{REGION}.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t"


def body(url: object) -> bytes:
    return json.dumps({**asking(), "SubscribeURL": url}).encode()


def test_the_address_at_the_topics_own_host_is_given_to_the_operator() -> None:
    assert sns.subscribe_url(CREDENTIAL, body(RIGHT)) == RIGHT


@pytest.mark.parametrize(
    "url",
    [
        RIGHT.replace("https", "http"),
        RIGHT.replace("amazonaws.com", "amazonaws.com.example.net"),
        RIGHT.replace("amazonaws.com/", "amazonaws.com@example.net/"),
        RIGHT.replace("amazonaws.com/", "amazonaws.com:8443/"),
        RIGHT.replace(REGION, "us-gov-west-1"),
        RIGHT.replace("ConfirmSubscription", "Unsubscribe"),
        "https://169.254.169.254/?Action=ConfirmSubscription&",
        "",
        None,
        7,
    ],
)
def test_any_other_address_is_refused(url: object) -> None:
    with pytest.raises(Forged):
        sns.subscribe_url(CREDENTIAL, body(url))


def test_a_notification_asks_for_no_confirmation() -> None:
    with pytest.raises(Forged):
        sns.subscribe_url(CREDENTIAL, json.dumps({**notification("{}"), "SubscribeURL": RIGHT}).encode())


def test_another_topic_is_not_confirmed() -> None:
    other = Credential("ses-main", {}, {"topic_arns": [TOPIC + "x"]})
    with pytest.raises(Forged):
        sns.subscribe_url(other, body(RIGHT))


# The command


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Amazon, ClientSession]]:
    """Amazon, with a certificate that is valid now: a command has the machine's own clock."""
    at = datetime.now(UTC)
    pem = certificate(key("confirming"), begins=at - timedelta(days=1), ends=at + timedelta(days=1))
    async with amazon(tmp_path, "sns.us-east-1.amazonaws.com", pem=pem) as both:
        yield both


def proven(url: str = CONFIRM) -> bytes:
    return json.dumps(signed(asking(SubscribeURL=url), ASKING_NAMES, key("confirming"))).encode()


async def test_the_certificate_and_then_the_topics_own_host_are_asked_and_nobody_else(served: tuple[Amazon, ClientSession]) -> None:
    server, http = served
    await hooks.subscribe(http, SES(), CREDENTIAL, proven())
    assert server.served == [URL.removeprefix("https://"), CONFIRM.removeprefix("https://")]


@pytest.mark.parametrize("status", [302, 403, 500])
async def test_another_answer_confirms_nothing_and_leads_nowhere(served: tuple[Amazon, ClientSession], status: int) -> None:
    server, http = served

    def answer() -> web.Response:
        if len(server.served) == 1:
            return web.Response(body=server.pem)
        return web.Response(status=status, headers={"Location": "https://example.net/"})

    server.answer = answer
    with pytest.raises(Unavailable, match=str(status)):
        await hooks.subscribe(http, SES(), CREDENTIAL, proven())
    assert server.served == [URL.removeprefix("https://"), CONFIRM.removeprefix("https://")]


async def test_what_amazon_did_not_sign_is_not_followed(served: tuple[Amazon, ClientSession]) -> None:
    server, http = served
    with pytest.raises(Forged):
        await hooks.subscribe(http, SES(), CREDENTIAL, proven().replace(b"You have chosen", b"You have chozen"))
    assert server.served == [URL.removeprefix("https://")]


@pytest.mark.parametrize(
    "host", ["example.net", "sns.us-east-1.amazonaws.com.example.net", "sns.eu-west-1.amazonaws.com", "169.254.169.254"]
)
async def test_an_address_elsewhere_is_not_even_looked_up_though_it_is_signed(served: tuple[Amazon, ClientSession], host: str) -> None:
    server, http = served
    with pytest.raises(Forged):
        await hooks.subscribe(http, SES(), CREDENTIAL, proven(CONFIRM.replace(f"sns.{REGION}.amazonaws.com", host)))
    assert server.asked == []
