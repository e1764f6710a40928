"""The operator's door at ``/v1``: has everybody been told, and in time; and does a provider's own list say the same."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from mailprefs import db, outbox, reconcile, telemetry
from mailprefs.apikeys import Power
from mailprefs.errors import Busy, MailprefsError, Misconfigured, Unavailable, Unreadable
from mailprefs.providers.base import Unlisted
from mailprefs.providers.calling import session
from mailprefs.web import problems
from mailprefs.web.guard import wants
from mailprefs.web.keys import COMPARING, EXPORTS, HOUSE, POOL, Hearing

BODY, PATIENCE = 4096, 10.0  # bytes, and seconds for them
PLAIN = 20.0  # seconds within which a comparison is answered like anything else
BREATH = 10.0  # seconds between two signs of life of one that takes longer

routes = web.RouteTableDef()


@routes.get("/v1/sync")
@wants(Power.OPERATE)
async def sync(request: web.Request) -> web.Response:
    """Say what each account has still to hear, and by when: as ``mailprefs sync --json``."""
    async with db.acquired(request.app[POOL]) as connection:
        figures = await outbox.sync(connection, now=request.app[HOUSE].clock())
    return web.json_response({"accounts": [each.shown for each in figures]})


class Wanted(BaseModel):
    """``POST /v1/reconcile/{account}``"""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    fix: bool = False
    shrunk: bool = False


@routes.post("/v1/reconcile/{account}")
@wants(Power.OPERATE)
async def compare(request: web.Request) -> web.StreamResponse:
    """Compare an account's list with ours and return the signed report, as ``mailprefs reconcile --json``."""
    hearing = request.app[HOUSE].hearings.get(request.match_info["account"])
    if hearing is None:
        return problems.problem(404, "unknown-account", "No account of that name stands in the catalogue.")
    comparing = asyncio.create_task(_compared(request.app, hearing, await _wanted(request)))
    try:
        await asyncio.wait([comparing], timeout=PLAIN)
        return web.json_response(comparing.result()) if comparing.done() else await _in_time(request, comparing)
    except reconcile.Shrunk as error:
        return problems.problem(409, "shrunk", str(error).replace("--shrunk", '{"shrunk": true}'))
    except Misconfigured as error:
        return problems.problem(422, "told-nothing", str(error))
    finally:  # whoever asked may have gone: what was healed stays, and the rest is found the next time
        comparing.cancel()
        await asyncio.wait([comparing])


async def _wanted(request: web.Request) -> Wanted:
    body = await problems.read_body(request, limit=BODY, seconds=PATIENCE)
    try:
        return Wanted.model_validate_json(body or b"{}")
    except ValidationError:
        raise Unreadable("the body wants to be nothing, or an object of fix and shrunk, each true or false") from None


async def _compared(app: web.Application, hearing: Hearing, wanted: Wanted) -> dict[str, Any]:
    house, account = app[HOUSE], hearing.account
    if app[COMPARING].locked():  # each holds a connection of those that audiences need
        raise Busy("other lists are being compared. Try again when they are done.")
    async with app[COMPARING], db.acquired(app[EXPORTS]) as connection, session(1) as http:
        number = (await outbox.accounts(connection))[account.name]
        said = house.catalogue, account, hearing.provider, hearing.credential
        books = reconcile.books(*said, number, connection, http, house.addresses, house.clock)
        try:
            return reconcile.signed(house.ring, await books.compare(heal=wanted.fix, shrunk=wanted.shrunk))
        except (*reconcile.TROUBLE, Busy) as error:
            trouble = error
    if isinstance(trouble, Busy):  # said out here: inside it would read as trouble with the database
        raise trouble
    raise Unavailable(reconcile.why(trouble)) from trouble


async def _in_time(request: web.Request, comparing: asyncio.Task[dict[str, Any]]) -> web.StreamResponse:
    """Answer 200 and breathe until the report is there: space before JSON means nothing (RFC 8259 §2). Breaks off where none comes."""
    response = web.StreamResponse(headers={"Content-Type": "application/json; charset=utf-8"})
    await response.prepare(request)
    try:
        while not comparing.done():
            await response.write(b" ")
            await asyncio.wait([comparing], timeout=BREATH)
        await response.write(json.dumps(comparing.result()).encode())
    except BaseException as error:
        if isinstance(error, MailprefsError):
            _say_why(request.match_info["account"], error.__cause__ or error)
        if request.transport is not None:
            request.transport.abort()  # what was sent is no answer, and must not pass for one
        if isinstance(error, ConnectionError):
            return response  # nobody is there to hear it
        raise
    await response.write_eof()
    return response


def _say_why(account: str, error: BaseException) -> None:
    """Tell the operator what the answer could not. That there is no list is nothing to look after: its stops are told again instead."""
    if isinstance(error, Unlisted):
        telemetry.log.info("no_list_to_compare", account=account)
    else:
        telemetry.alarm("list_not_compared", account=account, why=type(error).__name__)
