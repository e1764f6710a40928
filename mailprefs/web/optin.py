"""The question whether mail is wanted, as it was mailed to who may have asked for it. Only a press answers, and both answers take one."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

from aiohttp import web

from mailprefs import choices, db, directory, ledger, masks, passes, post, proof, telemetry
from mailprefs.catalogue import Brand
from mailprefs.choices import State
from mailprefs.directory import Entry
from mailprefs.errors import Forged, Unavailable
from mailprefs.passes import Pass, Purpose
from mailprefs.web import board, deeds, forms, screens, signals
from mailprefs.web.keys import HOUSE, POOL, THOUGHTS
from mailprefs.words import Address, Cause, Change, Channel, Door, Effect

routes = web.RouteTableDef()


@routes.get("/c/{token}")
async def look(request: web.Request) -> web.Response:
    """Ask, and change nothing: scanners open every link."""
    found = _read(request)
    if found is None:
        return screens.ends_here(request)
    question, brand = found
    try:
        if not question.works(request.app[HOUSE].clock()):
            return screens.show(request, "unanswered", brand)
        return await _question(request, question, brand)
    except Unavailable:
        return screens.away(request, brand)


@routes.post("/c/{token}")
async def answer(request: web.Request) -> web.Response:
    """Record the answer, and say what holds then."""
    found, form = _read(request), await forms.fields(request)
    if found is None:
        return screens.ends_here(request)
    question, brand = found
    try:
        if not question.works(request.app[HOUSE].clock()):
            return screens.show(request, "unanswered", brand)
        said = form.get("answer")
        if forms.unpressed(request) or said not in ("yes", "no"):
            return await _question(request, question, brand)
        often = not request.app[THOUGHTS].allowed(question.key, request.app[HOUSE].clock())
        if often and said == "yes":
            return await _question(request, question, brand)
        # no counts however often it is said; after many, as a press of a link does, which adds a row but once
        return await _answered(request, question, brand, form, Door.LINK if often else Door.MANAGE)
    except Unavailable as error:
        return screens.not_saved(request, brand, error)


def _read(request: web.Request) -> tuple[Pass, Brand] | None:
    """Return the question and whose it is; None for what is none, or about a topic that is not there any more."""
    house = request.app[HOUSE]
    try:
        question = passes.read(house.ring, Purpose.CONFIRM, request.match_info["token"])
    except Forged:
        return None
    brand, scope = house.catalogue.brand_of(question.scope), house.catalogue.by_number.get(question.scope)
    return (question, brand) if brand and scope and scope.is_topic and not scope.retired else None


async def _question(request: web.Request, question: Pass, brand: Brand) -> web.Response:
    honoured = await signals.honour(request, Address(question.key), brand)
    async with db.acquired(request.app[POOL]) as connection:
        to = await post.awaited(connection, question) or (await choices.person(connection, Address(question.key))).address.text
    return screens.show(
        request,
        "wanted",
        brand,
        topic=board.named(request, brand, question.scope),
        masked=masks.mask(to) if to and brand.page == "open" else None,
        honoured=honoured,
        form=forms.fresh(request.app[HOUSE]),
    )


async def _answered(request: web.Request, question: Pass, brand: Brand, form: Mapping[str, str], door: Door) -> web.Response:
    """Record yes as a choice of the recipient's own, with what was shown; no as a stop.

    Whoever said yes is known from then on. Of whoever said no, and is nobody's recipient otherwise, the address is forgotten at once.
    """
    house = request.app[HOUSE]
    now, nonce = house.clock(), forms.nonce(house, form.get("form", ""))
    honoured = await signals.honour(request, Address(question.key), brand)
    shown = board.proven(request, brand, question.scope)
    async with db.acquired(request.app[POOL]) as connection, db.sure(connection), connection.transaction():
        to = await post.awaited(connection, question)
        address = house.addresses.read(to) if to else Address(question.key, Channel.EMAIL)
        if form["answer"] == "yes" and to:
            await directory.know(connection, [Entry(address)], now=now)
        await proof.keep(connection, [shown])
        id_ = f"{shown.digest}-{nonce}-{question.scope}"  # yes and no are facts of their own, and no is one each time
        if form["answer"] == "yes":
            before = await choices.topic(connection, address, brand, house.catalogue, question.scope, now=now)
            made = deeds.chosen(address, question.scope, before, id_, now)
        else:
            made = [Change(address, question.scope, Cause.CHOICE, Effect.STOP, door, uuid4().hex, now)]
        added = await ledger.record(connection, made, now=now)
        await post.answered(connection, question)
    telemetry.count("questions_answered", answer=form["answer"])
    try:
        async with db.acquired(request.app[POOL]) as connection:
            after = await choices.topic(connection, address, brand, house.catalogue, question.scope, now=now)
    except Unavailable:
        return screens.kept(request, brand)
    if form["answer"] == "yes" and not any(added) and after.state is not State.GETS:
        return await _question(request, question, brand)  # an old form once more, after a no: it opens nothing, and says no such thing
    return screens.show(request, "answered", brand, honoured=honoured, yes=form["answer"] == "yes", comes=after.state is State.GETS)
