"""What is Amazon SES's own way with a contact, told over real HTTP: a write replaces everything, and nobody else's choice is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler
from yarl import URL

from mailprefs.errors import Misconfigured
from mailprefs.providers import sigv4
from mailprefs.providers.base import Listed, Outcome, Settlement, Slow, Telling, Unclear
from mailprefs.providers.ses import SES
from mailprefs.sandbox.app import create_app
from mailprefs.sandbox.ses import IN, LIST, OUT, TOPICS, contact

from .scripted import GONE, reply, scripted
from .teller_ses import TELLER, holding
from .tellers import DONE, Box

ADDRESS = "a@example.com"


Between = Callable[[web.Request], Awaitable[None]]  # what happens after a request has left and before SES carries it out


@pytest.fixture
def between() -> list[Between]:
    return []


@pytest.fixture
async def box(between: list[Between]) -> AsyncIterator[Box]:
    @web.middleware
    async def act(request: web.Request, handler: Handler) -> web.StreamResponse:
        for each in between if request.path.startswith("/ses/") else ():
            await each(request)
        return await handler(request)

    app = create_app(["ses"])
    app.middlewares.append(act)
    async with TestServer(app) as server, ClientSession() as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, TELLER)


async def held_as(box: Box, topics: dict[str, str] | None = None, **one: object) -> None:
    """Put one contact on the list."""
    contacts = {ADDRESS: contact({}) | one} if one else {}
    await box.put({"lists": {LIST: {"topics": topics or dict.fromkeys(TOPICS, IN), "contacts": contacts}}})


async def one(box: Box, address: str = ADDRESS) -> Any:
    return (await box.state())["lists"][LIST]["contacts"].get(address)


async def writes(box: Box) -> list[str]:
    return [each["method"] for each in await box.requests() if each["method"] != "GET"]


async def test_a_write_keeps_everything_else_that_stands_for_the_contact(box: Box) -> None:
    for stop, choice in ((True, OUT), (False, IN)):
        await held_as(box, choices={"offers": OUT, "newsletter": IN if stop else OUT}, attributes='{"name": "Alex"}')
        assert await box.tell(stop, [ADDRESS]) == [DONE]
        kept = await one(box)
        assert (kept["choices"], kept["attributes"], kept["all"]) == ({"offers": OUT, "newsletter": choice}, '{"name": "Alex"}', False)


async def test_who_is_no_contact_becomes_one_for_a_stop_alone(box: Box) -> None:
    assert await box.tell(False, [ADDRESS]) == [DONE]
    assert await one(box) is None
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert (await one(box))["choices"] == {"newsletter": OUT}


async def test_who_left_everything_is_stopped_and_a_go_says_that_it_cannot_help(box: Box) -> None:
    await held_as(box, all=True)
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert await box.tell(False, [ADDRESS]) == [Settlement(Outcome.REFUSED, "unsubscribed_all")]
    assert await writes(box) == []
    assert [listed.address for listed in await box.pulled()] == [ADDRESS]


async def test_a_topic_that_is_out_by_default_is_no_choice_of_anybodys(box: Box) -> None:
    await held_as(box, {"newsletter": OUT, "offers": IN}, choices={})
    assert await box.pulled() == []
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert (await one(box))["choices"] == {"newsletter": OUT}
    assert await box.pulled() == [Listed(ADDRESS, "newsletter")]
    await held_as(box, {"newsletter": OUT, "offers": IN}, choices={})
    assert await box.tell(False, [ADDRESS]) == [DONE]
    assert (await one(box))["choices"] == {"newsletter": IN}


async def test_two_writers_of_one_contact_in_one_process_lose_nothing(box: Box) -> None:
    await held_as(box, choices={})
    await box.faults({"fault": "slow", "seconds": 0.2}, {"fault": "slow", "seconds": 0})
    settled = await asyncio.gather(box.tell(True, [ADDRESS]), box.tell(True, [ADDRESS], "offers"))
    assert list(settled) == [[DONE], [DONE]]
    assert (await one(box))["choices"] == {"newsletter": OUT, "offers": OUT}


async def test_two_writers_in_two_processes_may_and_one_more_assertion_mends_it(box: Box) -> None:
    """The control, and the limit of what the API allows: no write can be made conditional."""
    await held_as(box, choices={})
    await box.faults({"fault": "slow", "seconds": 1}, {"fault": "slow", "seconds": 0})
    first = asyncio.create_task(box.tell(True, [ADDRESS]))
    await asyncio.sleep(0.15)
    other = SES()
    [second] = await other.tell(box.http, box.credential, [Telling(ADDRESS, "offers", True)])
    assert [second, *await first] == [DONE, DONE]
    assert (await one(box))["choices"] == {"newsletter": OUT}
    assert await box.tell(True, [ADDRESS], "offers") == [DONE]
    assert (await one(box))["choices"] == {"newsletter": OUT, "offers": OUT}


async def test_who_was_made_a_contact_meanwhile_is_told_again(box: Box, between: list[Between]) -> None:
    async def made(request: web.Request) -> None:
        if request.method == "POST":
            await held_as(box, choices={"offers": OUT})

    between.append(made)
    assert await box.tell(True, [ADDRESS]) == [Settlement(Outcome.UNKNOWN, "made_meanwhile")]
    between.clear()
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert (await one(box))["choices"] == {"offers": OUT, "newsletter": OUT}


async def test_whom_ses_will_not_have_is_put_aside(box: Box) -> None:
    await box.faults({"fault": "answer", "status": 400, "body": '{"message": "Invalid address"}'})
    assert await box.tell(True, [ADDRESS]) == [Settlement(Outcome.REFUSED, "http_400")]


async def test_a_write_that_another_overtook_is_not_called_done(box: Box) -> None:
    await held_as(box, choices={})
    await box.faults("lying")
    assert await box.tell(True, [ADDRESS]) == [Settlement(Outcome.UNKNOWN, "not_there")]
    await box.faults({"fault": "answer", "status": 404, "body": "{}"})
    assert await box.tell(True, [ADDRESS]) == [Settlement(Outcome.UNKNOWN, "gone_meanwhile")]


async def test_a_smaller_page_is_asked_for_where_a_large_one_is_refused(box: Box) -> None:
    await box.put(holding({"newsletter": [f"p{n:03}@example.com" for n in range(250)]}))
    await box.listing_faults({"fault": "answer", "status": 400, "body": '{"message": "Invalid page size"}'})
    assert len(await box.pulled()) == 250
    asked = [json.loads(each["body"]) for each in await box.requests() if each["path"].endswith("/list")]
    assert [each["PageSize"] for each in asked] == [1000, 100, 100, 100]


@pytest.mark.parametrize("token", ['""', "7", "[]", "true"])
async def test_a_page_that_leads_nowhere_is_no_end(box: Box, token: str) -> None:
    await box.listing_faults({"fault": "answer", "body": f'{{"Contacts": [], "NextToken": {token}}}'})
    with pytest.raises(Unclear) as unclear:
        await box.pulled()
    assert unclear.value.detail == "no_next"


async def test_a_page_that_leads_to_itself_is_unclear(box: Box) -> None:
    again = {"fault": "answer", "body": '{"Contacts": [], "NextToken": "x"}'}
    await box.listing_faults(again, again)
    with pytest.raises(Unclear) as unclear:
        await box.pulled()
    assert unclear.value.detail == "no_next"


async def test_every_request_is_signed_as_it_arrives_for_the_region_of_the_account(box: Box, between: list[Between]) -> None:
    secrets, proven = TELLER.credential.secrets, []
    key = sigv4.Key(secrets["access_key_id"], secrets["secret_access_key"], "eu-west-3", "ses")

    async def check(request: web.Request) -> None:
        at = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        body = await request.read()
        named = {"Content-Type": request.content_type} if body else {}
        url = URL(f"http://{request.headers['Host']}{request.raw_path}", encoded=True)
        wanted = sigv4.signed(key, request.method, url, body, at, named)
        assert abs(datetime.now(UTC) - at) < timedelta(seconds=10)
        proven.append(wanted["Authorization"] == request.headers["Authorization"])

    between.append(check)
    there = replace(box, credential=replace(box.credential, options={**box.credential.options, "region": "eu-west-3"}))
    assert await there.tell_all(True, TELLER.addresses) == [DONE] * len(TELLER.addresses)
    await there.pulled()
    assert len(proven) > 10
    assert all(proven)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"region": None}, "region is missing"),
        ({"region": "us-east-1.example.com/"}, "region is missing"),
        ({"region": "moon-1"}, "region is missing"),
        ({"contact_list": None}, "contact_list is missing"),
        ({"contact_list": ""}, "contact_list is missing"),
        ({"contact_list": "main/contacts"}, "contact_list is missing"),
    ],
)
def test_a_region_or_contact_list_that_is_none_refuses_to_start(options: dict[str, object], says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        TELLER.provider.check(replace(TELLER.credential, options={**TELLER.credential.options, **options}))


@pytest.mark.parametrize("stop", [True, False])
async def test_the_throttling_that_aws_has_in_common_is_a_wait_and_no_refusal(stop: bool) -> None:
    """It may come as a 400; read as one, whoever was told in a rush would be put aside."""
    path = f"/v2/email/contact-lists/{LIST}"
    found = {f"GET {path}": reply({"ContactListName": LIST, "Topics": [{"TopicName": each} for each in TOPICS]})}
    left = [{"TopicName": TOPICS[0], "SubscriptionStatus": OUT}]
    throttled = reply({"message": "Rate exceeded"}, 400, x_amzn_ErrorType="ThrottlingException:http://internal.example.com/")
    for answer, error in ((throttled, Slow), (reply({}, 400, x_amzn_ErrorType="BadRequestException"), None)):
        gone = {f"GET {path}/contacts/.*": GONE, f"POST {path}/contacts": answer}
        there = {f"GET {path}/contacts/.*": reply({"EmailAddress": ADDRESS, "TopicPreferences": left}), f"PUT {path}/contacts/.*": answer}
        async with scripted(TELLER.provider, TELLER.credential, {**found, **(gone if stop else there)}) as one:
            if error:
                with pytest.raises(error):
                    await one.tell(TOPICS[0], ADDRESS, stop=stop)
            else:
                assert (await one.tell(TOPICS[0], ADDRESS, stop=stop))[0].outcome is not Outcome.DONE


def test_the_region_says_where_and_no_other_is_called() -> None:
    here = replace(TELLER.credential, options={**TELLER.credential.options, "region": "eu-west-3"})
    for host in ("email.eu-west-3.amazonaws.com", "email-fips.eu-west-3.amazonaws.com"):
        TELLER.provider.check(replace(here, api_base=f"https://{host}"))
    for host in ("email.us-east-1.amazonaws.com", "email.eu-west-3.example.com"):
        with pytest.raises(Misconfigured, match="api_base"):
            TELLER.provider.check(replace(here, api_base=f"https://{host}"))
