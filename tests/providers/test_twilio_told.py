"""Twilio's own ways when it is told: each consent answered by its own id, one scope and one sender, and no list to compare."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from mailprefs.errors import Misconfigured
from mailprefs.providers.base import Outcome, Rejected, Settlement, Telling, Unlisted
from mailprefs.providers.twilio import Twilio
from mailprefs.sandbox.app import create_app

from .case_twilio import CASE, SID
from .scripted import reply, scripted
from .teller_twilio import FIRST, RECEIPTS, SECOND, TELLER
from .tellers import DONE, Box

TWILIO = Twilio()
ONE, TWO = "+12025550123", "+12025550124"
NOT_VALID = Settlement(Outcome.REFUSED, "error_30646")
UNKNOWN = {detail: Settlement(Outcome.UNKNOWN, detail) for detail in ("not_answered", "other_consent", "other_shape", "error_20500")}


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    async with TestServer(create_app(["twilio"])) as server, ClientSession() as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, TELLER)


@asynccontextmanager
async def answering(change: Any) -> AsyncIterator[list[Settlement]]:
    """Tell two numbers, and what is none, to a Twilio whose results are changed on the way, and yield what became of them."""

    async def consents(request: web.Request) -> web.Response:
        items = [json.loads(str(item)) for item in (await request.post()).getall("Items")]
        results = [{"correlation_id": item["correlation_id"], "error_code": 0, "error_messages": []} for item in items]
        return web.json_response({"items": change(results)}, status=201)

    app = web.Application()
    app.router.add_post("/v1/Consents/Bulk", consents)
    async with TestServer(app) as server, ClientSession() as http:
        account = replace(CASE.credential, api_base=str(server.make_url("")).rstrip("/"))
        yield await TWILIO.tell(http, account, [Telling(number, FIRST, True) for number in (ONE, TWO, "nobody")])


# What became of each


@pytest.mark.parametrize(
    ("change", "became"),
    [
        (lambda results: results, [DONE, DONE]),
        (lambda results: results[::-1], [DONE, DONE]),
        (lambda results: [results[0] | {"error_code": 30646}, results[1]], [NOT_VALID, DONE]),
        (lambda results: [results[1], results[0] | {"error_code": 30646}], [NOT_VALID, DONE]),
        (lambda results: [results[0], results[1] | {"error_code": 20500}], [DONE, UNKNOWN["error_20500"]]),
        (lambda results: [results[0], results[1] | {"error_code": "0"}], [DONE, UNKNOWN["other_shape"]]),
        (lambda results: [results[0], results[1] | {"error_code": False}], [DONE, UNKNOWN["other_shape"]]),
        (lambda results: results[:1], [DONE, UNKNOWN["not_answered"]]),
        (lambda results: [], [UNKNOWN["not_answered"]] * 2),
        (lambda results: [*results, results[0]], [UNKNOWN["other_consent"]] * 2),
        (lambda results: [*results, results[0] | {"correlation_id": "of nobody"}], [UNKNOWN["other_consent"]] * 2),
        (lambda results: "done", [UNKNOWN["other_shape"]] * 2),
    ],
    ids=[
        "as told", "in another order", "one is refused", "the first, told last", "a passing error", "a text", "no number",
        "one is missing", "all are", "one twice", "one of nobody", "no results",
    ],
)  # fmt: skip
async def test_each_consent_is_what_its_own_result_says(change: Any, became: list[Settlement]) -> None:
    async with answering(change) as settled:
        assert settled == [*became, Settlement(Outcome.REFUSED, "no_address")]


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_request_that_is_refused_as_a_whole_is_halved(status: int) -> None:
    async with scripted(TWILIO, CASE.credential, {"POST .*": reply({"code": 20001}, status)}) as one:
        with pytest.raises(Rejected):
            await one.tell(FIRST, ONE, TWO)


async def test_a_number_is_out_of_the_sender_that_is_mapped_and_of_no_other(box: Box) -> None:
    await box.put({"senders": {RECEIPTS: [], SECOND: [ONE]}})
    assert await box.tell(True, [ONE, TWO]) == [DONE, DONE]
    assert (await box.state())["senders"] == {RECEIPTS: [], SECOND: [ONE], FIRST: [ONE, TWO]}
    assert await box.tell(False, [ONE]) == [DONE]
    assert (await box.state())["senders"] == {RECEIPTS: [], SECOND: [ONE], FIRST: [TWO]}


async def test_nobody_but_a_number_is_told(box: Box) -> None:
    nobody = ["a@example.com", "12025550123", "+0202555", "whatsapp:+12025550123", "+1 202 555 0123", "+1202555012345678"]
    settled = await box.tell(True, [*nobody, ONE])
    assert settled == [Settlement(Outcome.REFUSED, "no_address")] * len(nobody) + [DONE]
    assert await box.holds() == [ONE]


# What cannot be listed


async def test_there_is_no_list_to_compare_and_that_is_said() -> None:
    async with ClientSession() as http:
        with pytest.raises(Unlisted, match="shows nobody's consents"):
            TWILIO.pull(http, CASE.credential, FIRST)


# What refuses to start


@pytest.mark.parametrize(
    ("stops", "scopes"),
    [
        ("connective", {"newsletter": FIRST}),
        ("marketing", {"newsletter": FIRST}),
        ("newsletter", {"newsletter": FIRST, "offers": SECOND}),
        ("newsletter", {"offers": FIRST}),
        (None, {"newsletter": FIRST}),
    ],
    ids=["the whole brand, codes as well", "more than is mapped", "less than is mapped", "another topic", "nothing"],
)
def test_a_sender_that_carries_more_than_is_mapped_refuses_to_start(stops: str | None, scopes: dict[str, str]) -> None:
    with pytest.raises(Misconfigured, match="scopes is not about what stops names"):
        TWILIO.check(replace(CASE.credential, options={**CASE.credential.options, "stops": stops, "scopes": scopes}))


@pytest.mark.parametrize("stops", ["newsletter", "connective/newsletter"])
@pytest.mark.parametrize("sender", [FIRST, SECOND])
def test_one_scope_is_told_to_one_sender_however_it_is_named(stops: str, sender: str) -> None:
    TWILIO.check(replace(CASE.credential, options={**CASE.credential.options, "stops": stops, "scopes": {"newsletter": sender}}))


@pytest.mark.parametrize("sender", ["MG0123", "newsletter", "", SID, "12025550100", FIRST.upper()])
def test_what_is_no_sender_refuses_to_start(sender: str) -> None:
    with pytest.raises(Misconfigured, match="no sender"):
        TWILIO.check(replace(CASE.credential, options={**CASE.credential.options, "scopes": {"newsletter": sender}}))


@pytest.mark.parametrize("sid", [None, "AC0123", "MG" + "0" * 32, SID.upper()])
def test_an_account_that_is_told_needs_its_sid(sid: str | None) -> None:
    secrets = {"auth_token": CASE.credential.secrets["auth_token"]} | ({"account_sid": sid} if sid else {})
    with pytest.raises(Misconfigured, match="account_sid"):
        TWILIO.check(replace(CASE.credential, secrets=secrets))
    heard = {key: value for key, value in CASE.credential.options.items() if key != "scopes"}
    TWILIO.check(replace(CASE.credential, secrets={"auth_token": secrets["auth_token"]}, options=heard))  # the control: heard alone
