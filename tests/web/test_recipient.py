"""What a recipient, a mailbox provider and a scanner get at the link of a message."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest
from aiohttp import ClientSession, web

from mailprefs import directory, ledger, numbers
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue
from mailprefs.directory import Entry
from mailprefs.links import KeyRing, KeyState, Links
from mailprefs.web.keys import HOUSE
from mailprefs.words import Cause, Change, Channel, Door, Effect

ONE_CLICK = b"List-Unsubscribe=One-Click"


@pytest.fixture
def path(links: Links, addresses: Addresses, shared_catalogue: Catalogue) -> str:
    return "/u/" + links.token(addresses.read("jane@example.org").key, shared_catalogue.topic("newsletter"))


async def rows(conn: asyncpg.Connection) -> list[tuple[int, str, str]]:
    return [(r["scope"], r["door"], r["effect"]) for r in await conn.fetch("select scope, door, effect from consent order by at")]


async def stops(conn: asyncpg.Connection) -> list[int] | None:
    found: list[int] | None = await conn.fetchval("select stops from address")
    return found


async def test_one_click_stops_and_answers_empty_without_cookie_or_redirect(
    base: str, http: ClientSession, conn: asyncpg.Connection, path: str
) -> None:
    async with http.post(base + path, data=ONE_CLICK, headers={"Content-Type": "application/x-www-form-urlencoded"}) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
        assert {"Set-Cookie", "Location"} & set(answer.headers) == set()
    assert await rows(conn) == [(272, "link", "stop")]


BOUNDARY = b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'
KINDS = (
    "application/x-www-form-urlencoded",
    "application/x-www-form-urlencoded; charset=nonsense",
    "multipart/form-data; boundary=b",
    "multipart/form-data",
    "text/plain",
    "application/json",
    None,
)
BODIES: list[tuple[str | None, bytes, dict[str, str]]] = [
    (kind, body, extra)
    for kind in KINDS
    for body in (ONE_CLICK, BOUNDARY, b"", b"%%%=\xff\xfe\x00", b"{" * 5000, b"x" * 20_000, b"=" * 100 + b"&" * 100)
    for extra in ({}, {"Content-Encoding": "gzip"}, {"Cookie": "a=b", "Origin": "https://elsewhere.example.net"})
]  # fmt: skip


async def test_no_body_vetoes_an_opt_out(
    base: str, http: ClientSession, conn: asyncpg.Connection, links: Links, addresses: Addresses, shared_catalogue: Catalogue
) -> None:
    topic = shared_catalogue.topic("newsletter")
    for n, (kind, body, extra) in enumerate(BODIES):
        token = links.token(addresses.read(f"p{n}@example.org").key, topic)
        headers = {**extra, **({"Content-Type": kind} if kind else {})}
        async with http.post(f"{base}/u/{token}", data=body, headers=headers, skip_auto_headers=["Content-Type"]) as answer:
            assert answer.status == 200, (kind, body[:20], extra)
    assert await conn.fetchval("select count(*) from address where stops = '{272}'") == len(BODIES) > 100


WIRES = {
    "http-1.0": b"POST %s HTTP/1.0\r\nHost: x\r\n\r\n",
    "chunked": b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    "expect": b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    "cut": b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n\r\nList-Unsub",
}


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())
async def test_an_odd_request_stops_all_the_same(base: str, conn: asyncpg.Connection, path: str, wire: bytes) -> None:
    host, port = base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(wire % path.encode())
    assert b" 200 " in await reader.read()  # the one that was cut is answered when our patience with its body ends
    writer.close()
    await writer.wait_closed()
    assert await stops(conn) == [272]


async def test_whoever_hangs_up_in_the_middle_has_left_all_the_same(base: str, conn: asyncpg.Connection, path: str) -> None:
    host, port = base.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(WIRES["cut"] % path.encode())
    await writer.drain()
    await asyncio.sleep(0.3)
    writer.close()
    await writer.wait_closed()
    for _ in range(600):
        if await stops(conn) == [272]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the stop was lost")


async def test_get_and_head_change_nothing(base: str, http: ClientSession, conn: asyncpg.Connection, path: str) -> None:
    for method in ("GET", "HEAD", "OPTIONS"):
        for _ in range(20):
            async with http.request(method, base + path, headers={"Purpose": "prefetch", "Sec-Purpose": "prefetch"}) as answer:
                assert answer.status == (405 if method == "OPTIONS" else 200)
    assert await conn.fetchval("select count(*) from address") == 0
    await http.post(base + path, data=ONE_CLICK)  # the control: the same link does change something
    assert await conn.fetchval("select count(*) from address") == 1


async def test_one_click_twice_is_one_opt_out(base: str, http: ClientSession, conn: asyncpg.Connection, path: str) -> None:
    answers = await asyncio.gather(*(http.post(base + path, data=ONE_CLICK) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert await rows(conn) == [(272, "link", "stop")]


async def test_a_forged_or_altered_token_is_refused_and_changes_nothing(
    base: str, http: ClientSession, conn: asyncpg.Connection, path: str
) -> None:
    bodies = set()
    altered = [path[:-1] + ("A" if path[-1] != "A" else "Q"), path[:-2], path + "A", "/u/x", "/u/" + "A" * 45, path.lower(), path + "%00"]
    for wrong in altered:
        for method in ("GET", "POST"):
            async with http.request(method, base + wrong, data=ONE_CLICK) as answer:
                assert answer.status == 404, wrong
                bodies.add(await answer.read())
    assert len(bodies) == 1
    assert await rows(conn) == []


async def pressed(http: ClientSession, url: str, stop: str) -> str:
    async with http.get(url) as answer:
        form = re.search(r'name="form" value="([^"]+)"', await answer.text())
    assert form
    async with http.post(url, data={"form": form[1], "stop": stop}) as answer:
        assert answer.status == 200
        return await answer.text()


async def test_a_press_on_the_page_stops_and_says_so(base: str, http: ClientSession, conn: asyncpg.Connection, path: str) -> None:
    page = await pressed(http, base + path, "this")
    assert "These emails are stopped" in page
    assert "Monthly newsletter" in page
    assert await rows(conn) == [(272, "page", "stop")]


async def test_stop_everything_on_the_page_stops_all_marketing(base: str, http: ClientSession, conn: asyncpg.Connection, path: str) -> None:
    assert "All marketing emails are stopped" in await pressed(http, base + path, "all")
    assert await stops(conn) == [257]


async def test_undo_takes_back_the_press_and_nothing_else(base: str, http: ClientSession, conn: asyncpg.Connection, path: str) -> None:
    page = await pressed(http, base + path, "this")
    undo = re.search(r'name="undo" value="([^"]+)"', page)
    assert undo
    async with http.post(base + path, data={"undo": undo[1]}) as answer:
        assert "Your stop is undone" in await answer.text()
    assert await stops(conn) is None
    await http.post(base + path, data=ONE_CLICK)
    async with http.post(base + path, data={"undo": undo[1]}) as answer:
        assert "Stopped" in await answer.text()
    assert await stops(conn) == [272]


async def test_a_form_sent_again_after_its_undo_stops_again(base: str, http: ClientSession, conn: asyncpg.Connection, path: str) -> None:
    async with http.get(base + path) as answer:
        form = re.search(r'name="form" value="([^"]+)"', await answer.text())
    assert form
    fields = {"form": form[1], "stop": "this"}
    async with http.post(base + path, data=fields) as answer:
        undo = re.search(r'name="undo" value="([^"]+)"', await answer.text())
    assert undo
    await http.post(base + path, data={"undo": undo[1]})
    await http.post(base + path, data=fields)
    assert await stops(conn) == [272]


async def test_a_reloaded_result_page_is_no_second_press(base: str, http: ClientSession, conn: asyncpg.Connection, path: str) -> None:
    async with http.get(base + path) as answer:
        form = re.search(r'name="form" value="([^"]+)"', await answer.text())
    assert form
    for _ in range(3):
        await http.post(base + path, data={"form": form[1], "stop": "this"})
    assert len(await rows(conn)) == 1


def way_back(page: str) -> str:
    found = re.search(r'name="undo" value="([^"]+)"', page)
    return found[1] if found else ""


async def undone(http: ClientSession, url: str, value: str) -> str:
    async with http.post(url, data={"undo": value}) as answer:
        assert answer.status == 200
        return await answer.text()


class Clock:
    """The service's clock, which a test sets."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock(app: web.Application) -> Clock:
    """A clock of our own in the service that ``base`` starts."""
    app[HOUSE] = replace(app[HOUSE], clock=Clock())
    clock = app[HOUSE].clock
    assert isinstance(clock, Clock)
    return clock


@pytest.mark.parametrize("set_back", [timedelta(), timedelta(minutes=6), timedelta(minutes=30), timedelta(hours=23)])
async def test_nobody_elses_undo_opens_what_a_later_press_was_told_is_stopped(
    clock: Clock, base: str, http: ClientSession, conn: asyncpg.Connection, path: str, set_back: timedelta
) -> None:
    """Two people hold the link. The first one's undo may still be good, or be good again when the clock is set back."""
    first = way_back(await pressed(http, base + path, "this"))
    clock.ahead += timedelta(minutes=31)
    assert "are stopped" in await pressed(http, base + path, "this")
    clock.ahead -= set_back
    await undone(http, base + path, first)
    assert await stops(conn) == [272]


async def test_an_undo_counts_from_the_press_however_late_its_page_came(
    clock: Clock, base: str, http: ClientSession, conn: asyncpg.Connection, path: str
) -> None:
    value = way_back(await pressed(http, base + path, "this"))
    clock.ahead += timedelta(minutes=31)  # the service's own time; the value itself was signed seconds ago
    assert "The time to undo has ended" in await undone(http, base + path, value)
    assert await stops(conn) == [272]
    clock.ahead -= timedelta(minutes=2)
    assert "Your stop is undone" in await undone(http, base + path, value)
    assert await stops(conn) is None


async def test_a_form_pressed_again_after_its_undo_holds_whatever_else_holds(
    base: str, http: ClientSession, conn: asyncpg.Connection, path: str, addresses: Addresses, now: datetime
) -> None:
    """A hold that ends by itself must not stand in for a press that was answered as done."""
    jane = addresses.read("jane@example.org")
    soon = datetime.now(UTC) + timedelta(seconds=60)
    await ledger.record(conn, [Change(jane, 0, Cause.SOFT, Effect.STOP, Door.PROVIDER, "e1", now, soon, "sendgrid-main")], now=now)
    async with http.get(base + path) as answer:
        form = re.search(r'name="form" value="([^"]+)"', await answer.text())
    assert form
    fields = {"form": form[1], "stop": "this"}
    async with http.post(base + path, data=fields) as answer:
        await undone(http, base + path, way_back(await answer.text()))
    assert await stops(conn) is None
    async with http.post(base + path, data=fields) as answer:
        again = way_back(await answer.text())
    assert await stops(conn) == [272]
    await undone(http, base + path, again)  # and its own way back works
    assert await stops(conn) is None


async def test_an_odd_undo_says_nothing_of_how_things_stand(base: str, http: ClientSession, conn: asyncpg.Connection, path: str) -> None:
    before = await undone(http, base + path, "x")
    await http.post(base + path, data=ONE_CLICK)
    after = await undone(http, base + path, "x")
    form = re.compile(r'value="[^"]+"')
    assert form.sub("", before) == form.sub("", after)
    assert "You get this" not in before + after


async def test_a_link_under_a_leaked_key_takes_back_nothing(
    app: web.Application, base: str, http: ClientSession, conn: asyncpg.Connection, path: str, links: Links, addresses: Addresses,
    shared_catalogue: Catalogue,
) -> None:  # fmt: skip
    """Whoever holds the leaked key can mint a link for anybody, and press and undo in their name."""
    value = way_back(await pressed(http, base + path, "this"))
    house = app[HOUSE]
    newer = house.ring.renewed(date(2026, 11, 22))
    (old,) = [key.id for key in house.ring.keys if key.state is KeyState.MINT]
    assert way_back(await pressed(http, base + path, "all"))  # the control: before it leaked
    object.__setattr__(house, "ring", newer.retired(old, KeyState.COMPROMISED))
    assert "The time to undo has ended" in await undone(http, base + path, value)
    assert not way_back(await pressed(http, base + path, "this"))
    fresh = Links(app[HOUSE].ring, "go.example.com", "u@go.example.com").token(
        addresses.read("jane@example.org").key, shared_catalogue.topic("offers")
    )
    value = way_back(await pressed(http, f"{base}/u/{fresh}", "this"))
    assert "The time to undo has ended" in await undone(http, base + path, value)
    assert await stops(conn) == [257, 272, 273]
    assert "Your stop is undone" in await undone(http, f"{base}/u/{fresh}", value)


async def test_pressing_and_undoing_without_end_adds_so_many_rows_and_no_more(
    base: str, http: ClientSession, conn: asyncpg.Connection, path: str
) -> None:
    offered = 0
    for _ in range(24):
        if value := way_back(await pressed(http, base + path, "this")):
            await undone(http, base + path, value)
            offered += 1
    assert offered == 16
    assert len(await rows(conn)) == 2 * 16 + 1
    assert await stops(conn) == [272]


async def test_an_undo_of_somebody_elses_press_does_nothing(
    base: str, http: ClientSession, conn: asyncpg.Connection, path: str, links: Links, addresses: Addresses, shared_catalogue: Catalogue
) -> None:
    page = await pressed(http, base + path, "this")
    undo = re.search(r'name="undo" value="([^"]+)"', page)
    assert undo
    other = links.token(addresses.read("other@example.org").key, shared_catalogue.topic("newsletter"))
    await http.post(f"{base}/u/{other}", data={"undo": undo[1]})
    assert await stops(conn) == [272]


async def test_every_answer_wears_the_protective_headers(base: str, http: ClientSession, path: str) -> None:
    for method, url in (
        ("GET", path),
        ("POST", path),
        ("GET", "/u/forged"),
        ("GET", "/nowhere"),
        ("TRACE", path),
        ("POST", "/v1/decisions"),
    ):
        async with http.request(method, base + url) as answer:
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-"), url
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert "Server" not in answer.headers


async def test_the_page_has_a_button_and_no_script(base: str, http: ClientSession, path: str) -> None:
    async with http.get(base + path) as answer:
        page = await answer.text()
    assert "<button" in page
    assert not re.search(r"<script|onload|http-equiv|style=|src=|href=\"(?!\?lang=|/p/)", page)
    assert len(page.encode()) < 15_000


async def test_a_sensitive_topic_is_never_named(
    base: str, http: ClientSession, links: Links, addresses: Addresses, shared_catalogue: Catalogue
) -> None:
    token = links.token(addresses.read("jane@example.org").key, shared_catalogue.topic("recovery"))
    async with http.get(f"{base}/u/{token}") as answer:
        assert "A subject of its own" not in await answer.text()


async def test_a_link_to_an_unknown_number_stops_all_marketing(
    base: str, http: ClientSession, conn: asyncpg.Connection, links: Links, addresses: Addresses, shared_catalogue: Catalogue
) -> None:
    for number in (256 + 200, 7 * 256 + 16):  # a topic of ours that nobody knows, a brand that nobody knows
        gone = replace(shared_catalogue.topic("newsletter"), number=number)
        token = links.token(addresses.read(f"p{number}@example.org").key, gone)
        async with http.post(f"{base}/u/{token}", data=ONE_CLICK) as answer:
            assert answer.status == 200
    assert [r["stops"] for r in await conn.fetch("select stops from address")] == [[257], [257]]


async def test_stop_all_on_the_page_stops_the_same_persons_phone_too_and_its_undo_gives_both_back(
    base: str, http: ClientSession, conn: asyncpg.Connection, path: str, addresses: Addresses, now: datetime
) -> None:
    mine = [Entry(addresses.read(text), party="p-1") for text in ("jane@example.org", "+12025550123")]
    await directory.know(conn, [*mine, Entry(addresses.read("other@example.org"), party="p-2")], now=now)
    page = await pressed(http, base + path, "all")
    assert [row["stops"] for row in await conn.fetch("select stops from address order by channel, party")] == [[257], None, [257]]
    undo = re.search(r'name="undo" value="([^"]+)"', page)
    assert undo
    await http.post(base + path, data={"undo": undo[1]})
    assert await conn.fetchval("select count(*) from address where stops is not null") == 0


async def test_a_one_click_stops_the_one_address_it_was_sent_for(
    base: str, http: ClientSession, conn: asyncpg.Connection, path: str, addresses: Addresses, now: datetime
) -> None:
    mine = [Entry(addresses.read(text), party="p-1") for text in ("jane@example.org", "+12025550123")]
    await directory.know(conn, mine, now=now)
    await http.post(base + path, data=ONE_CLICK)
    assert await conn.fetchval("select count(*) from address where stops is not null") == 1


async def test_a_press_under_a_brand_that_nobody_knows_stops_every_brand_and_its_undo_gives_all_back(
    app: web.Application, base: str, http: ClientSession, conn: asyncpg.Connection, shared_catalogue: Catalogue, ring: KeyRing,
    links: Links, addresses: Addresses, now: datetime,
) -> None:  # fmt: skip
    other = shared_catalogue.brand[0].model_copy(update={"name": "second", "number": 2, "topic": ()})
    both = shared_catalogue.model_copy(update={"brand": (*shared_catalogue.brand, other)})
    both = Catalogue.model_validate(both.model_dump(by_alias=True))
    await numbers.introduce(conn, both, ring.fingerprints, {"sendgrid": Channel.EMAIL}, now=now)
    object.__setattr__(app[HOUSE], "catalogue", both)
    gone = replace(shared_catalogue.topic("newsletter"), number=7 * 256 + 16)
    url = f"{base}/u/{links.token(addresses.read('jane@example.org').key, gone)}"
    page = await pressed(http, url, "this")
    assert await stops(conn) == [257, 513]
    await undone(http, url, way_back(page))
    assert await stops(conn) is None


async def test_an_undo_beside_a_one_click_vetoes_nothing(base: str, http: ClientSession, conn: asyncpg.Connection, path: str) -> None:
    value = way_back(await pressed(http, base + path, "this"))
    for body in (b"undo=x&List-Unsubscribe=One-Click", b"List-Unsubscribe=One-Click&undo=" + value.encode()):
        async with http.post(base + path, data=body, headers={"Content-Type": "application/x-www-form-urlencoded"}) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
    assert [door for _, door, _ in await rows(conn)] == ["page", "link"]


async def test_a_flood_of_presses_of_one_page_turns_no_other_away(
    base: str, http: ClientSession, conn: asyncpg.Connection, path: str, links: Links, addresses: Addresses, shared_catalogue: Catalogue
) -> None:
    async with http.get(base + path) as answer:
        form = re.search(r'name="form" value="([^"]+)"', await answer.text())
    assert form

    async def press(url: str, value: str) -> int:
        async with http.post(url, data={"form": value, "stop": "this"}) as answer:
            return answer.status

    other = f"{base}/u/{links.token(addresses.read('other@example.org').key, shared_catalogue.topic('newsletter'))}"
    flood = [press(base + path, form[1] if n % 2 else str(n)) for n in range(600)]
    answers = await asyncio.gather(*flood, press(other, "x"))
    assert set(answers) == {200}
    assert len(await rows(conn)) <= 2 * 17
