"""A subscription is confirmed by the operator, at the topic's regional host and nowhere else."""

from __future__ import annotations

import json

import pytest

from mailprefs.errors import Forged
from mailprefs.providers import sns
from mailprefs.providers.base import Credential

from .sns_sender import asking, notification

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
