"""What leaves is held against the providers' own published descriptions of their APIs: method, path, query, headers, shape of the body.

The facts below were read from those documents, each named where its facts begin; the documents themselves are not kept here. Providers
that are not below publish no description that could be read; what their pages say is in ``teller_<name>.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema_rs
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from mailprefs.sandbox.app import create_app

from .tellers import PATIENT, Box, teller_of

JSON, FORM, JSON_API = "application/json", "application/x-www-form-urlencoded", "application/vnd.api+json"
Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
ADDRESS: Schema = {"type": "string", "pattern": "^[^@]+@[^@]+$"}


def thing(needed: Mapping[str, Schema], more: Mapping[str, Schema] | None = None) -> Schema:
    """An object with these fields, of which the first are required, and no others."""
    return {"type": "object", "properties": {**needed, **(more or {})}, "required": list(needed), "additionalProperties": False}


def several(each: Schema, most: int) -> Schema:
    return {"type": "array", "items": each, "minItems": 1, "maxItems": most}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


@dataclass(frozen=True)
class Operation:
    """One operation as it is published. ``path`` is a pattern in which each parameter is a group of letters that end at a slash."""

    method: str
    path: str
    body: Schema | None = None
    type: str = JSON
    needs: frozenset[str] = frozenset()  # of the query
    takes: frozenset[str] = frozenset()  # of the query, beside those
    headers: frozenset[str] = frozenset()  # in lower case, beside the key

    def wrong(self, request: Mapping[str, Any]) -> str | None:
        """Return what is wrong with a request to this operation."""
        query = [name for name, _ in parse_qsl(urlsplit(request["path"]).query, keep_blank_values=True)]
        headers = {name.lower(): value for name, value in request["headers"]}
        if not self.needs <= set(query) <= self.needs | self.takes:
            return f"query {query}"
        if missing := self.headers - headers.keys():
            return f"no header {missing}"
        if self.body is None:
            return "a body" if request["body"] else None
        if headers.get("content-type", "").partition(";")[0] != self.type:
            return f"type {headers.get('content-type')}"
        told = self._told(request["body"])
        return None if jsonschema_rs.is_valid(self.body, told) else f"body {told}"

    def _told(self, body: str) -> Any:
        if self.type != FORM:
            return json.loads(body)
        told: dict[str, list[Any]] = {}
        for name, value in parse_qsl(body, strict_parsing=True):
            told.setdefault(name, []).append(json.loads(value))
        return told


P = "[^/?]+"  # a parameter of a path

# sendgrid/sendgrid-oai, spec/paths/supression_management/{supressions,unsubscribe_groups}.json and its components, OpenAPI 3
SENDGRID = (
    Operation("GET", f"/v3/asm/groups/{P}"),
    Operation("GET", f"/v3/asm/groups/{P}/suppressions"),
    Operation("POST", f"/v3/asm/groups/{P}/suppressions", thing({"recipient_emails": several(ADDRESS, 1000)})),
    Operation("DELETE", f"/v3/asm/groups/{P}/suppressions/{P}"),
)

# klaviyo/openapi, openapi/stable/apis/bulk_{suppress,unsuppress}_profiles.json, revision 2026-04-15: 100 in a request, email alone
REVISION = frozenset({"revision"})
PROFILE = thing({"type": one_of("profile"), "attributes": thing({"email": ADDRESS})})


def job(kind: str) -> Operation:
    of = thing({"profiles": thing({"data": several(PROFILE, 100)})})
    data = thing({"type": one_of(f"profile-suppression-bulk-{kind}-job"), "attributes": of})
    return Operation("POST", f"/api/profile-suppression-bulk-{kind}-jobs", thing({"data": data}), JSON_API, headers=REVISION)


KLAVIYO = (
    job("create"),
    job("delete"),
    Operation(
        "GET",
        "/api/profiles",
        takes=frozenset({"additional-fields[profile]", "fields[profile]", "filter", "page[size]", "page[cursor]", "sort"}),
        headers=REVISION,
    ),
)

# SparkPost/developers.sparkpost.com, content/api/suppression-list.apib (API Blueprint); list_id is newer than the version that was read
TYPE = one_of("transactional", "non_transactional")
SPARKPOST = (
    Operation(
        "PUT",
        "/api/v1/suppression-list/",
        thing({"recipients": several(thing({"recipient": ADDRESS, "type": TYPE}, {"description": TEXT, "list_id": TEXT}), 10_000)}),
    ),
    Operation("GET", f"/api/v1/suppression-list/{P}", takes=frozenset({"types", "cursor", "per_page", "page"})),
    Operation("DELETE", f"/api/v1/suppression-list/{P}", thing({}, {"type": TYPE}), takes=frozenset({"list_id"})),
    Operation(
        "GET",
        "/api/v1/suppression-list",
        takes=frozenset({"to", "from", "domain", "sources", "types", "description", "cursor", "per_page", "page", "sort", "list_id"}),
    ),
)

# twilio/twilio-oai, spec/yaml/twilio_accounts_v1.yaml, CreateBulkConsents
CONSENT = thing(
    {
        "contact_id": {"type": "string", "pattern": r"^\+[1-9][0-9]{1,14}$"},
        "correlation_id": {"type": "string", "minLength": 32, "maxLength": 32},
        "sender_id": {"type": "string", "pattern": r"^(MG[0-9a-f]{32}|\+[1-9][0-9]{1,14})$"},
        "status": one_of("opt-in", "opt-out"),
        "source": one_of("website", "offline", "opt-in-message", "opt-out-message", "others"),
    }
)
TWILIO = (Operation("POST", "/v1/Consents/Bulk", thing({"Items": several(CONSENT, 100)}), FORM),)

# ActiveCampaign/postmark-python, postmark/models/suppressions, and Postmark's page "Suppressions API"; its OpenAPI files leave this API out
SUPPRESSIONS = thing({"Suppressions": several(thing({"EmailAddress": ADDRESS}), 50)})
POSTMARK = (
    Operation("GET", f"/message-streams/{P}"),
    Operation(
        "GET",
        f"/message-streams/{P}/suppressions/dump",
        takes=frozenset({"SuppressionReason", "Origin", "todate", "fromdate", "EmailAddress"}),
    ),
    Operation("POST", f"/message-streams/{P}/suppressions", SUPPRESSIONS),
    Operation("POST", f"/message-streams/{P}/suppressions/delete", SUPPRESSIONS),
)

# resend/resend-openapi, resend.yaml 1.5.0; its page "Update Contact Topics", whose example sends the array by itself, as do its SDKs
CHOICES = several(thing({"id": {"type": "string", "pattern": "^[0-9a-f-]{36}$"}, "subscription": one_of("opt_in", "opt_out")}), 100)
PAGED = frozenset({"limit", "after", "before"})
RESEND = (
    Operation("GET", f"/topics/{P}"),
    Operation("GET", "/contacts", takes=PAGED),
    Operation("POST", "/contacts", thing({"email": ADDRESS}, {"unsubscribed": {"type": "boolean"}, "topics": CHOICES})),
    Operation("GET", f"/contacts/{P}"),
    Operation("GET", f"/contacts/{P}/topics", takes=PAGED),
    Operation("PATCH", f"/contacts/{P}/topics", {"anyOf": [CHOICES, thing({"topics": CHOICES})]}),
)

# Amazon's own model of SESv2 (2019-09-27): paths, methods and members of the operations on contacts
LISTS = f"/v2/email/contact-lists/{P}"
PREFERENCES: Mapping[str, Schema] = {
    "TopicPreferences": {
        "type": "array",
        "items": thing({"TopicName": TEXT, "SubscriptionStatus": one_of("OPT_IN", "OPT_OUT")}),
    },
    "UnsubscribeAll": {"type": "boolean"},
    "AttributesData": TEXT,
}
FILTER = thing(
    {},
    {
        "FilteredStatus": one_of("OPT_IN", "OPT_OUT"),
        "TopicFilter": thing({}, {"TopicName": TEXT, "UseDefaultIfPreferenceUnavailable": {"type": "boolean"}}),
    },
)
SES = (
    Operation("GET", LISTS),
    Operation("GET", f"{LISTS}/contacts/{P}"),
    Operation("POST", f"{LISTS}/contacts", thing({"EmailAddress": ADDRESS}, PREFERENCES)),
    Operation("PUT", f"{LISTS}/contacts/{P}", thing({}, PREFERENCES)),
    Operation("POST", f"{LISTS}/contacts/list", thing({}, {"Filter": FILTER, "NextToken": TEXT, "PageSize": {"type": "integer"}})),
)

# Mailgun's API reference, "Unsubscribe", which is made from its OpenAPI: a page of a listing must name address and term, be they empty
ENTRIES = f"/v3/{P}/unsubscribes"
MAILGUN = (
    Operation("GET", ENTRIES, needs=frozenset({"address", "term"}), takes=frozenset({"limit", "page"})),
    Operation("POST", ENTRIES, several(thing({"address": ADDRESS, "tags": several(TEXT, 100), "created_at": TEXT}), 1000)),
    Operation("GET", f"{ENTRIES}/{P}"),
    Operation("DELETE", f"{ENTRIES}/{P}", takes=frozenset({"tag"})),
)

# getbrevo/brevo-php, its models CreateContact and UpdateContact, made from its OpenAPI; the guide "Manage your contacts"
YES_OR_NO: Schema = {"type": "boolean"}
BLOCKED: Mapping[str, Schema] = {"emailBlacklisted": YES_OR_NO, "smsBlacklisted": YES_OR_NO, "extId": TEXT}
BREVO = (
    Operation("GET", "/v3/contacts", takes=frozenset({"limit", "offset", "sort", "modifiedSince", "createdSince"})),
    Operation("POST", "/v3/contacts", thing({"email": ADDRESS}, {**BLOCKED, "updateEnabled": YES_OR_NO})),
    Operation("GET", f"/v3/contacts/{P}", takes=frozenset({"identifierType"})),
    Operation("PUT", f"/v3/contacts/{P}", thing({}, BLOCKED), takes=frozenset({"identifierType"})),
)

# Mailchimp Transactional's own clients (rejects, subaccounts), which are made from its description; the sandbox forgets the key
KEY: Mapping[str, Schema] = {"key": {"type": "string"}}
CALL = r"/api/1\.[0-9]+"
MANDRILL = (
    Operation("POST", f"{CALL}/subaccounts/info", thing({**KEY, "id": TEXT})),
    Operation("POST", f"{CALL}/rejects/list", thing(KEY, {"email": ADDRESS, "include_expired": YES_OR_NO, "subaccount": TEXT})),
    Operation("POST", f"{CALL}/rejects/add", thing({**KEY, "email": ADDRESS}, {"comment": TEXT, "subaccount": TEXT})),
    Operation("POST", f"{CALL}/rejects/delete", thing({**KEY, "email": ADDRESS}, {"subaccount": TEXT})),
)

PUBLISHED: Mapping[str, Sequence[Operation]] = {
    "brevo": BREVO,
    "klaviyo": KLAVIYO,
    "mailgun": MAILGUN,
    "mandrill": MANDRILL,
    "postmark": POSTMARK,
    "resend": RESEND,
    "sendgrid": SENDGRID,
    "ses": SES,
    "sparkpost": SPARKPOST,
    "twilio": TWILIO,
}


def wrong(request: Mapping[str, Any], operations: Sequence[Operation]) -> str | None:
    """Return what is wrong with a request, None if it is as one of the operations wants it."""
    path = urlsplit(request["path"]).path
    called = [each for each in operations if each.method == request["method"] and re.fullmatch(each.path, path)]
    found = [each.wrong(request) for each in called]
    return None if None in found else f"{request['method']} {request['path']}: {found or 'no such operation'}"


@pytest.fixture(params=PUBLISHED)
async def box(request: pytest.FixtureRequest) -> AsyncIterator[Box]:
    teller = teller_of(request.param)
    async with TestServer(create_app([teller.name])) as server, ClientSession(timeout=PATIENT) as http:
        yield Box.at(str(server.make_url("")).rstrip("/"), http, teller)


async def test_every_request_is_one_that_the_provider_has_published(box: Box) -> None:
    people = list(box.teller.addresses)
    await box.hold(first=people[:1], second=people[1:2])
    for stop in (True, True, False, False):
        for group in box.teller.groups:
            await box.tell_all(stop, people, group)
            if box.teller.lists:
                await box.pulled(group)
    sent = await box.requests()
    assert len(sent) > 4
    assert [found for each in sent if (found := wrong(each, PUBLISHED[box.teller.name]))] == []


async def test_a_request_that_is_not_published_is_seen(box: Box) -> None:
    """The control: each request that has a body, with one field more, one query more, and another method."""
    await box.tell_all(True, box.teller.addresses)
    operations = PUBLISHED[box.teller.name]
    for each in await box.requests():
        assert wrong(each, operations) is None
        assert wrong({**each, "path": f"{each['path']}{'&' if '?' in each['path'] else '?'}x=1"}, operations)
        assert wrong({**each, "method": "TRACE"}, operations)
        if each["body"].startswith("{"):
            assert wrong({**each, "body": json.dumps({**json.loads(each["body"]), "x": 1})}, operations)
