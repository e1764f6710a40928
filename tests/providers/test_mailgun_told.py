"""What is Mailgun's own way with its unsubscribes, told over real HTTP: tags stand together in one entry, and a star is all mail."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from mailprefs.errors import Misconfigured
from mailprefs.providers.base import Listed, Outcome, Settlement, Unclear
from mailprefs.sandbox.app import create_app
from mailprefs.sandbox.mailgun import DOMAIN, entry

from .teller_mailgun import TELLER, holding
from .tellers import DONE, Box

ADDRESS = "a@example.com"
SWITCHES = ("merges", "forgets", "keeps")


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    async with TestServer(create_app(["mailgun"])) as server, ClientSession() as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, TELLER)


async def entries(box: Box) -> Any:
    return (await box.state())["domains"][DOMAIN]


async def writes(box: Box) -> list[str]:
    return [each["method"] for each in await box.requests() if each["method"] != "GET"]


@pytest.mark.parametrize("switched", list(itertools.product([False, True], repeat=3)), ids=str)
async def test_whatever_mailgun_does_with_the_other_tags_they_stay(box: Box, switched: tuple[bool, ...]) -> None:
    await box.put(holding({"special offers": [ADDRESS], "surveys": [ADDRESS]}) | dict(zip(SWITCHES, switched, strict=True)))
    assert await box.tell(True, [ADDRESS, "new@example.com"]) == [DONE, DONE]
    assert sorted((await entries(box))[ADDRESS]["tags"]) == ["newsletter", "special offers", "surveys"]
    assert await box.tell(False, [ADDRESS, "new@example.com"]) == [DONE, DONE]
    assert {address: sorted(each["tags"]) for address, each in (await entries(box)).items()} == {ADDRESS: ["special offers", "surveys"]}
    assert await box.undocumented() == []


@pytest.mark.parametrize("tags", [["*"], ["*", "newsletter"], []])
async def test_who_left_all_mail_of_the_domain_is_stopped_and_a_go_says_that_it_cannot_help(box: Box, tags: list[str]) -> None:
    before = {DOMAIN: {ADDRESS: entry(ADDRESS) | {"tags": tags}}}
    await box.put({"domains": before})
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert await box.tell(False, [ADDRESS]) == [Settlement(Outcome.REFUSED, "whole_domain")]
    assert [listed.address for listed in await box.pulled()] == [ADDRESS]
    assert (await entries(box), await writes(box)) == (before[DOMAIN], [])


async def test_a_tag_is_known_in_whatever_case_it_stands(box: Box) -> None:
    await box.put({"domains": {DOMAIN: {ADDRESS: entry(ADDRESS, "Newsletter")}}})
    assert await box.tell(True, [ADDRESS]) == [DONE]
    assert await writes(box) == []
    assert [listed.address for listed in await box.pulled()] == [ADDRESS]


async def test_an_entry_keeps_its_date_and_a_new_one_gets_mailguns(box: Box) -> None:
    old = entry(ADDRESS, "special offers") | {"created_at": "Thu, 11 Dec 2025 01:49:40 UTC"}
    await box.put({"domains": {DOMAIN: {ADDRESS: old}}})
    await box.tell(True, [ADDRESS, "new@example.com"])
    [told] = [json.loads(each["body"]) for each in await box.requests() if each["method"] == "POST"]
    assert told[0] == {"address": ADDRESS, "tags": ["special offers", "newsletter"], "created_at": "Thu, 11 Dec 2025 01:49:40 UTC"}
    age = datetime.now(UTC) - parsedate_to_datetime(told[1]["created_at"])
    assert abs(age.total_seconds()) < 10
    listed = await box.pulled()
    assert listed[0] == Listed(ADDRESS, "newsletter", datetime(2025, 12, 11, 1, 49, 40, tzinfo=UTC))


async def test_who_was_not_among_those_added_is_looked_for(box: Box) -> None:
    await box.faults("per-item")
    assert await box.tell(True, [ADDRESS, "b@example.com"]) == [Settlement(Outcome.UNKNOWN, "not_added"), DONE]
    await box.faults({"fault": "answer", "body": '{"message": "0 addresses have been added to the unsubscribes table"}'})
    assert await box.tell(True, [ADDRESS]) == [Settlement(Outcome.UNKNOWN, "not_added")]


def page(*addresses: str, next: str | None) -> dict[str, object]:
    told = {"items": [entry(address, "newsletter") for address in addresses], "paging": {"next": next}}
    return {"fault": "answer", "body": json.dumps(told)}


async def test_the_next_page_is_asked_for_at_mailgun_wherever_its_address_points(box: Box) -> None:
    await box.hold(first=["a@example.com", "b@example.com", "c@example.com"])
    await box.listing_faults(
        {"fault": "slow", "seconds": 0}, page("a@example.com", next="http://192.0.2.1/x?page=next&address=a%40example.com&limit=9")
    )
    assert [listed.address for listed in await box.pulled()] == ["a@example.com", "b@example.com", "c@example.com"]
    assert await box.undocumented() == []


@pytest.mark.parametrize(
    "next", [None, "", "http://[", "?page=next", "?page=next&address=", "?page=last&address=a%40example.com", "/v3/elsewhere", 7]
)
async def test_a_page_that_leads_nowhere_is_no_end(box: Box, next: Any) -> None:
    await box.listing_faults({"fault": "slow", "seconds": 0}, page("a@example.com", next=next))
    with pytest.raises(Unclear) as unclear:
        await box.pulled()
    assert unclear.value.detail == "no_next"


async def test_a_page_that_leads_to_itself_ends_the_listing_as_unclear(box: Box) -> None:
    again = page("a@example.com", next="?page=next&address=a%40example.com")
    await box.listing_faults({"fault": "slow", "seconds": 0}, again, again)
    with pytest.raises(Unclear) as unclear:
        await box.pulled()
    assert unclear.value.detail == "same_page"


@pytest.mark.parametrize(
    "domain", [None, "", "example", "mg example.com", "https://mg.example.com", "mg.example.com/..", "MG.example.com", "..", "*"]
)
def test_a_sending_domain_that_is_none_refuses_to_start(domain: str | None) -> None:
    with pytest.raises(Misconfigured, match="domain is missing"):
        TELLER.provider.check(replace(TELLER.credential, options={**TELLER.credential.options, "domain": domain}))


def test_an_account_in_the_eu_names_its_host() -> None:
    TELLER.provider.check(replace(TELLER.credential, api_base="https://api.eu.mailgun.net"))
