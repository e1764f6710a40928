"""Marketing's door for candidates: a file comes in, those who may be sent a topic go out, both at once and at one pace."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from time import monotonic
from typing import Any

from aiohttp import web
from backports import zstd

from mailprefs import crews, db
from mailprefs.apikeys import Power
from mailprefs.candidates import Filter, Verdict
from mailprefs.crews import Keyed
from mailprefs.errors import Unavailable, Unreadable
from mailprefs.rows import PACKED
from mailprefs.sheets import PARQUET, REASONS, Cutter, Sheet, spare
from mailprefs.web import problems
from mailprefs.web.audiences import STALLED, patient
from mailprefs.web.guard import ARRIVAL, wants
from mailprefs.web.keys import ASKED, HOUSE, POOL
from mailprefs.web.questions import topic_of

STEP = 500  # rows that are asked about together
ARCHIVES = 1000  # in one body; each costs its sender a few bytes, and us a whole piece
CHUNK = 65_536  # bytes
FREE = 2 * CHUNK  # bytes that count nothing: what a filter of ordinary rows holds, however long it takes
WAIT = 30.0  # seconds for which an answer that has begun waits for the database
SHOWN = ("allowed", "denied", "all")
_TYPES = {True: "text/csv; charset=utf-8", False: "application/x-ndjson"}

_WINDOW: Mapping[int, int] = {zstd.DecompressionParameter.window_log_max: 23}  # 8 MiB (RFC 9659), and not the 128 that it may ask for
_UNPACKING: Mapping[str, Callable[[], Any]] = {
    "gzip": partial(zlib.decompressobj, 31),
    "zstd": partial(zstd.ZstdDecompressor, options=_WINDOW),
}

routes = web.RouteTableDef()


@routes.post("/v1/audiences/{brand}/{topic}/filter")
@wants(Power.EXPORT)
async def filtered(request: web.Request) -> web.StreamResponse:
    """Answer with the rows of the body that may be sent a topic: ``?rows=allowed|denied|all``, ``?column=``. Streams both ways."""
    house = request.app[HOUSE]
    problems.known(request.query, "rows", "column")
    shown = request.query.get("rows", "allowed")
    if shown not in SHOWN:
        raise Unreadable(f"'rows' is one of: {', '.join(SHOWN)}")
    topic = topic_of(house, f"{request.match_info['brand']}/{request.match_info['topic']}")
    asking = Filter(house.catalogue, topic, reasons=shown != "allowed")
    if request.content_type.startswith("multipart/"):
        raise Unreadable("it is a form: send the file itself as the body, as `curl -T` does")
    cutter = Cutter(request.query.get("column"))
    chunks = _counted(request, cutter, _unpacked(request))
    first = await _first(cutter, chunks)
    if asking.reasons:
        spare(cutter.sheet, REASONS)
    response = web.StreamResponse(headers={"Content-Type": _TYPES[bool(cutter.sheet.head())]})
    await response.prepare(request)
    try:
        await _answered(request, response, asking, cutter, first, chunks, shown)
    except BaseException as error:
        if request.transport is not None:
            request.transport.abort()  # what was sent is not all, and the reader must not take it for all
        if isinstance(error, ConnectionError):
            return response  # nobody is there to read it
        raise
    await response.write_eof()
    return response


async def _counted(request: web.Request, cutter: Cutter, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Give each chunk, counted with what is held of the rows before it until the next one is asked for. Raises Busy."""
    hold = partial(request.app[ASKED].hold, request[ARRIVAL])
    async for chunk in chunks:
        hold(max(0, cutter.held + len(chunk) - FREE))
        yield chunk
        hold(max(0, cutter.held - FREE))


async def _first(cutter: Cutter, chunks: AsyncIterator[bytes]) -> list[bytes]:
    """Return the rows that come with the first line, so that what cannot be read is refused while that can still be said."""
    async for chunk in chunks:
        if chunk.startswith(PARQUET):
            raise Unreadable("Parquet is not read here, since its end must be known first; use `mailprefs filter`")
        if chunk.startswith(tuple(PACKED)):
            raise Unreadable(f"it is packed, and nothing said so: send it with Content-Encoding: {' or '.join(PACKED.values())}")
        if (rows := cutter.take(chunk)) is not None:
            return rows
    return cutter.finish()


async def _answered(
    request: web.Request,
    response: web.StreamResponse,
    asking: Filter,
    cutter: Cutter,
    first: list[bytes],
    chunks: AsyncIterator[bytes],
    shown: str,
) -> None:
    write, sheet = patient(response.write, STALLED), cutter.sheet
    await write(sheet.head(*(() if shown == "allowed" else (REASONS,))))
    async for rows in _rows(cutter, first, chunks):
        for n in range(0, len(rows), STEP):
            keyed = await _keyed(request, sheet, rows[n : n + STEP])
            verdict = await _judged(request, asking, keyed)
            if lines := await asyncio.to_thread(_lines, verdict, keyed, sheet, shown):
                await write(b"\n".join([*lines, b""]))


async def _rows(cutter: Cutter, first: list[bytes], chunks: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    yield first
    async for chunk in chunks:
        yield cutter.take(chunk) or []
    yield cutter.finish()


async def _keyed(request: web.Request, sheet: Sheet, rows: list[bytes]) -> Keyed:
    """Key some rows beside the loop, of all calls one at a time: the loop is never held, whatever stands in them."""
    house = request.app[HOUSE]
    async with house.slices:
        return await asyncio.to_thread(crews.key, house.addresses, sheet, rows)


async def _judged(request: web.Request, asking: Filter, keyed: Keyed) -> Verdict:
    """Ask about some rows. No connection is held while the client sends, or takes."""
    until = monotonic() + WAIT
    while True:
        try:
            async with db.acquired(request.app[POOL]) as connection:
                return await asking.judge(connection, keyed, now=request.app[HOUSE].clock())
        except Unavailable:
            if monotonic() > until or request.transport is None:
                raise
            await asyncio.sleep(db.ACQUIRE)


def _lines(verdict: Verdict, keyed: Keyed, sheet: Sheet, shown: str) -> list[bytes]:
    if shown == "allowed":
        return verdict.allowed(keyed.rows)
    every = (n for n in range(len(keyed.rows)) if n not in verdict.empty)
    places = sorted(verdict.denied) if shown == "denied" else every
    return [sheet.beside(keyed.rows[n], {REASONS: verdict.denied.get(n, "")}) for n in places]


async def _unpacked(request: web.Request) -> AsyncIterator[bytes]:
    """Give the body in small pieces, unpacked as it says; an archive that unfolds to anything costs its sender's time and no memory."""
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", *_UNPACKING):
        raise Unreadable(f"a body is sent as it is, or with Content-Encoding: {' or '.join(_UNPACKING)}")
    unpacker = _Unpacker(_UNPACKING[encoding]) if encoding in _UNPACKING else None
    while chunk := await _chunk(request):
        for piece in unpacker.take(chunk) if unpacker else (chunk,):
            yield piece
            await asyncio.sleep(0)  # a small body may unfold to much: others are served in between
    if unpacker and not unpacker.is_whole:
        raise Unreadable("the body breaks off")


class _Unpacker:
    """Unpacks what comes in chunks, one archive after another where several stand in it, as ``cat`` makes them."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._inner = make()
        self._archives = 1

    @property
    def is_whole(self) -> bool:
        return bool(self._inner.eof)

    def take(self, chunk: bytes) -> Iterator[bytes]:
        """Give what a chunk holds, in pieces of 64 KiB at most. Raises Unreadable."""
        while True:
            if self._inner.eof:
                chunk = self._inner.unused_data + chunk
                if not chunk:
                    return
                self._archives += 1
                if self._archives > ARCHIVES:
                    raise Unreadable(f"the body is more than {ARCHIVES} archives, one after the other; pack it as one")
                self._inner = self._make()
            try:  # zlib hands back what it had no room for, and zstd keeps it
                piece = self._inner.decompress(getattr(self._inner, "unconsumed_tail", b"") + chunk, CHUNK)
            except (zlib.error, zstd.ZstdError):
                raise Unreadable("the body is not packed as it says, or with a window of more than 8 MiB") from None
            chunk = b""
            if piece:
                yield piece
            elif not self._inner.eof:
                return


async def _chunk(request: web.Request) -> bytes:
    """Return the next piece of the body, b"" at its end. Raises TooSlow where none comes in time, Unreadable where it breaks off."""
    try:
        async with asyncio.timeout(STALLED):
            return await request.content.read(CHUNK)
    except TimeoutError:
        raise problems.TooSlow from None
    except (web.HTTPException, ConnectionError, ValueError, web.RequestPayloadError):
        raise Unreadable("the request broke off") from None
