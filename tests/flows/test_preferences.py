"""The preference page of a link: what it shows, what it stops, and what it never turns on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from time import perf_counter

import pytest
from prometheus_client import REGISTRY

from mailprefs import ledger
from mailprefs.links import KeyState
from mailprefs.web import bursts
from mailprefs.words import Cause, Change, Door, Effect

from .doors import opened
from .visitor import ELSEWHERE, PRESSED, SCRIPTED, Visitor

NEWSLETTER, OFFERS, MARKETING = 272, 273, 257

PRIVATE = pytest.mark.parametrize("visitor", [{"page": "private"}], indirect=True)


async def test_the_page_says_how_each_topic_stands_over_each_channel(visitor: Visitor) -> None:
    jane, phone = await visitor.known("jane@example.org", "+12025550123", party="p1")
    now = visitor.clock[-1]
    changes = [
        Change(jane, OFFERS, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now),
        Change(phone, NEWSLETTER, Cause.CHOICE, Effect.GRANT, Door.IMPORT, "2", now),
    ]
    await ledger.record(visitor.conn, changes, now=now)
    text = await visitor.get(visitor.link(jane))
    assert visitor.status == 200
    assert visitor.deeds == {"all", "stop.16.email", "stop.16.sms", "ads", "pause.30", "pause.60", "pause.90"}
    assert "Monthly newsletter" in text
    for never in ("A subject of its own", "jane@example.org", "2025550123"):
        assert never not in text, "sensitive, an address"
    assert text.index("Always sent") < text.index("Orders and receipts"), "transactional: named, without a button"


async def test_a_channel_by_which_no_topic_comes_takes_no_room(visitor: Visitor) -> None:
    jane, phone = await visitor.known("jane@example.org", "+12025550123", party="p1")
    alone = (await visitor.get(visitor.link(jane))).count('<div class="cell">')
    agreed = Change(phone, 272, Cause.CHOICE, Effect.GRANT, Door.IMPORT, "1", visitor.clock[-1])
    await ledger.record(visitor.conn, [agreed], now=visitor.clock[-1])
    both = (await visitor.get(visitor.link(jane))).count('<div class="cell">')
    topics = visitor.text.count('<div class="topic">')
    ads = 1 if "Sharing allowed" in visitor.text else 0
    assert (alone - ads, both - ads) == (topics, 2 * topics), "where one comes by text, those that do not leave their place empty"


async def test_sentences_and_their_parts_are_joined_as_each_language_does(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    ended = visitor.managed(jane)
    await visitor.get(f"{visitor.link(jane)}?lang=ar")
    await visitor.post(f"{visitor.link(jane)}?lang=ar", do="pause.30", form=visitor.hidden("form"))
    assert "إيقاف مؤقت" in visitor.text
    said = visitor.text[visitor.text.index("<main>") : visitor.text.index('id="choices"')]
    assert ("2026" in said, ", " in said) == (True, False)
    visitor.clock.append(visitor.clock[-1] + timedelta(hours=2))
    await visitor.get(f"{ended}?lang=zh-Hans")
    assert "。没有任何更改。" in visitor.text
    await visitor.get(f"{ended}?lang=de")
    assert ". Es wurde nichts geändert." in visitor.text


async def test_a_stop_acts_at_once_and_what_is_shown_is_read_back(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(visitor.link(jane))
    await visitor.post(visitor.link(jane), do="stop.17.email")
    assert await visitor.rows(jane) == [(OFFERS, "choice", "stop", "page")]
    assert "stop.17.email" not in visitor.deeds
    assert "stop.16.email" in visitor.deeds
    assert visitor.undo
    before = visitor.text
    await visitor.post(visitor.link(jane), undo=visitor.undo)
    assert [row[2] for row in await visitor.rows(jane)] == ["stop", "withdraw"]
    assert "stop.17.email" in visitor.deeds
    assert before != visitor.text


async def test_a_stop_is_taken_back_for_half_an_hour_and_no_longer(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(visitor.link(jane))
    await visitor.post(visitor.link(jane), do="all")
    undo = visitor.undo
    visitor.clock.append(visitor.clock[-1] + ledger.UNDO + timedelta(seconds=1))
    await visitor.post(visitor.link(jane), undo=undo)
    assert "The time to undo has ended" in visitor.text
    assert [row[2] for row in await visitor.rows(jane)] == ["stop"]


async def test_an_undo_opens_nobody_elses_page_and_takes_back_nothing_else(visitor: Visitor) -> None:
    jane, kim = await visitor.known("jane@example.org", "kim@example.org")
    for one in (jane, kim):
        await visitor.get(visitor.link(one))
        await visitor.post(visitor.link(one), do="all")
    await visitor.post(visitor.link(jane), undo=visitor.undo)
    assert [row[2] for row in await visitor.rows(jane)] == ["stop"]
    assert [row[2] for row in await visitor.rows(kim)] == ["stop"]


async def test_stop_all_marketing_covers_the_mail_and_the_texts_of_one_person(visitor: Visitor) -> None:
    jane, phone = await visitor.known("jane@example.org", "+12025550123", party="p1")
    await visitor.get(visitor.link(jane))
    await visitor.post(visitor.link(jane), do="all")
    assert await visitor.rows(jane) == await visitor.rows(phone) == [(MARKETING, "choice", "stop", "page")]
    assert not {each for each in visitor.deeds if each.startswith("stop")}
    await visitor.post(visitor.link(jane), undo=visitor.undo)
    assert [row[2] for row in await visitor.rows(phone)] == ["stop", "withdraw"]


@pytest.mark.parametrize("days", [30, 60, 90])
async def test_a_pause_ends_by_itself(visitor: Visitor, days: int) -> None:
    (jane,) = await visitor.known("jane@example.org")
    began = visitor.clock[-1]
    await visitor.get(visitor.link(jane))
    await visitor.post(visitor.link(jane), do=f"pause.{days}")
    until = await visitor.conn.fetchval("select until from consent where key = $1", jane.key)
    assert until == began + timedelta(days=days)
    assert "Paused" in visitor.text
    visitor.clock.append(until + timedelta(seconds=1))
    assert "Paused" not in await visitor.get(visitor.link(jane))


async def test_nothing_is_turned_on_from_a_link_and_nothing_stopped_that_is_not_shown(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(visitor.link(jane))
    tried = [
        "on.16.email",
        "resume",
        "ads-on",
        "stop.20.email",
        "stop.32.email",
        "stop.999.email",
        "stop.16.fax",
        "pause.31",
        "",
        "x" * 999,
        "all.",
    ]
    for each in tried:
        await visitor.post(visitor.link(jane), do=each)
        assert visitor.status == 200
    assert await visitor.rows(jane) == []


@pytest.mark.parametrize("headers", [SCRIPTED, ELSEWHERE, PRESSED | {"Sec-Fetch-Site": "same-site"}])
async def test_a_form_that_a_script_or_another_site_sent_is_given_the_page_again(visitor: Visitor, headers: dict[str, str]) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(visitor.link(jane))
    for fields in ({"do": "all"}, {"do": "stop.16.email"}, {"mail": "1"}):
        await visitor.post(visitor.link(jane), headers, **fields)
        assert "Choose what you get" in visitor.text
    assert await visitor.rows(jane) == []
    assert await visitor.conn.fetchval("select count(*) from mail") == 0
    await visitor.post(visitor.link(jane), {}, do="all")
    assert len(await visitor.rows(jane)) == 1, "the control: a browser that says nothing of it is believed"


async def test_a_reload_is_no_second_press_and_a_press_after_an_undo_is_one(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(visitor.link(jane))
    form = visitor.hidden("form")
    for _ in range(2):
        await visitor.post(visitor.link(jane), form=form, do="stop.17.email")
    assert len(await visitor.rows(jane)) == 1
    await visitor.post(visitor.link(jane), form=form, do="stop.16.email")
    await visitor.post(visitor.link(jane), undo=visitor.undo)
    await visitor.post(visitor.link(jane), form=form, do="stop.16.email")
    assert sorted(row[2] for row in await visitor.rows(jane)) == ["stop", "stop", "stop", "withdraw"]
    assert "stop.16.email" not in visitor.deeds


@PRIVATE
async def test_a_press_after_an_undo_can_be_taken_back_on_a_private_brand_too(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(visitor.link(jane))
    form = visitor.hidden("form")
    for _ in range(2):
        await visitor.post(visitor.link(jane), form=form, do="all")
        await visitor.post(visitor.link(jane), undo=visitor.undo)
    assert sorted(row[2] for row in await visitor.rows(jane)) == ["stop", "stop", "withdraw", "withdraw"]


@PRIVATE
async def test_a_private_brand_shows_the_same_bytes_for_everybody(visitor: Visitor) -> None:
    known, stopped = await visitor.known("known@example.org", "stopped@example.org", party="p1")
    await visitor.known("+12025550123", party="p1")
    stop = Change(stopped, MARKETING, Cause.CHOICE, Effect.STOP, Door.LINK, "1", visitor.clock[-1])
    await ledger.record(visitor.conn, [stop], now=visitor.clock[-1])
    looks: set[str] = set()
    presses: set[str] = set()
    for one in (known, stopped, visitor.addresses.read("stranger@example.org")):
        looks.add(unsigned(await visitor.get(visitor.link(one))))
        presses.add(unsigned(await visitor.post(visitor.link(one), do="all")))
        presses.add(unsigned(await visitor.post(visitor.link(one), do="all")))
        await visitor.post(visitor.link(one), do="stop.16.email")
    assert (len(looks), len(presses)) == (1, 1)
    (look,) = looks
    for never in ("newsletter", "Offers", "You get this", "Paused", "stop.16"):
        assert never not in look
    assert {row[0] for row in await visitor.rows(known)} == {MARKETING}


def unsigned(text: str) -> str:
    """Return a page without its signed values, but for how long they are."""
    return re.sub(r'value="([A-Za-z0-9_.-]{40,})"', lambda found: f'value="{len(found[1])}"', text)


@pytest.mark.parametrize("visitor", [{"page": "private"}], indirect=True)
async def test_a_private_brand_says_of_a_stop_of_ads_that_ads_are_stopped(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(visitor.link(jane))
    assert "<strong>Ads</strong> · Sharing stopped" in await visitor.post(visitor.link(jane), do="ads")
    assert "<strong>All marketing emails</strong> · Stopped" in await visitor.post(visitor.link(jane), do="all")


async def test_under_a_key_that_leaked_a_link_stops_and_says_nothing(visitor: Visitor, database: str) -> None:
    (jane,) = await visitor.known("jane@example.org")
    path = visitor.link(jane)
    renewed = visitor.ring.renewed(visitor.clock[-1].date()).retired(1, state=KeyState.COMPROMISED)
    async with opened(database, visitor.catalogue, renewed, clock=lambda: visitor.clock[-1]) as doors:
        visitor.doors = doors
        await visitor.get(path)
        assert visitor.deeds == {"all", "ads"}
        await visitor.post(path, mail="1")
        assert await visitor.conn.fetchval("select count(*) from mail") == 0
        await visitor.post(path, do="all")
        assert not visitor.undo
    assert await visitor.rows(jane) == [(MARKETING, "choice", "stop", "page")]


async def test_the_way_to_turn_on_is_mailed_and_the_page_says_the_same_to_everybody(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    by_link, by_text = set(), set()
    for one in (jane, visitor.addresses.read("stranger@example.org")):
        for _ in range(5):
            await visitor.get(visitor.link(one))
            by_link.add((await visitor.post(visitor.link(one), mail="1"), visitor.status))
    for text in ("jane@example.org", "stranger2@example.org"):
        for _ in range(5):
            await visitor.get("/preferences")
            by_text.add((await visitor.post("/preferences", address=text), visitor.status))
    assert (len(by_link), len(by_text)) == (1, 1), "known, unknown, and over the limit"
    counts = await visitor.conn.fetch("select count(*) from mail group by key")
    assert [row[0] for row in counts] == [3, 3, 3]


def later(these: Sequence[float], those: Sequence[float]) -> float:
    """Return how often one of these took longer than one of those: a half, if they take the same."""
    return sum(one > other for one in these for other in those) / (len(these) * len(those))


async def test_a_typed_address_takes_as_long_whether_or_not_it_is_known(visitor: Visitor) -> None:
    people = 100
    await visitor.known(*(f"known{n}@example.org" for n in range(people)), party="p1")
    took: dict[str, list[float]] = {"known": [], "stranger": []}
    for n in range(people):
        for who in ("known", "stranger") if n % 2 else ("stranger", "known"):
            began = perf_counter()
            await visitor.post("/preferences", address=f"{who}{n}@example.org")
            took[who].append(perf_counter() - began)
            assert "Check your email" in visitor.text
    assert await visitor.conn.fetchval("select count(*) from mail") == 2 * people
    assert 0.3 < later(took["known"], took["stranger"]) < 0.7
    assert later([3 * each for each in took["known"]], took["stranger"]) > 0.7, "the control: thrice the time is noticed"


async def test_what_is_typed_wrong_is_said_and_stays(visitor: Visitor) -> None:
    for wrong in ("jane", "", "+12025550123", 'a"><script>x'):
        await visitor.post("/preferences", address=wrong)
        assert "Enter an email address in full" in visitor.text
        assert 'aria-invalid="true"' in visitor.text
        assert "<script" not in visitor.text
    assert await visitor.conn.fetchval("select count(*) from mail") == 0


@pytest.mark.parametrize("visitor", [{"from": None}], indirect=True)
async def test_no_page_promises_a_mail_that_nobody_can_send(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    assert 'name="mail"' not in await visitor.get(visitor.link(jane))
    await visitor.post(visitor.link(jane), mail="1")
    assert "Check your email" not in visitor.text
    assert 'type="email"' not in await visitor.get("/preferences")
    await visitor.post("/preferences", address="jane@example.org")
    assert "Check your email" not in visitor.text
    assert await visitor.conn.fetchval("select count(*) from mail") == 0


async def test_what_anybody_sends_is_answered_and_never_with_a_500(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    paths = [visitor.link(jane), visitor.managed(jane), "/preferences", "/p/x", "/m/x", "/c/x", "/m/" + "A" * 3000]
    bodies = [
        b"",
        b"\xff\xfe",
        b"do=%00",
        b"do=stop.%D9%A1%D9%A6.email",
        b"undo=.eJw",
        b"session=x&do=all",
        b"a=1&" * 40,
        b"brand=%00&address=%00@x",
    ]
    for path in paths:
        for body in bodies:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            async with visitor.doors.http.post(visitor.doors.base + path, data=body, headers=headers) as answer:
                assert answer.status in (200, 404), (path, body)
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(("door", "act"), [("/p/", {"do": "stop.16.email"}), ("/u/", {"stop": "this"})])
async def test_many_presses_from_one_network_are_flagged_and_none_is_refused(visitor: Visitor, door: str, act: dict[str, str]) -> None:
    before, proxied = alarms("burst_of_presses"), PRESSED | {"X-Forwarded-For": "203.0.114.7"}
    for n in range(bursts.MANY):
        path = visitor.link(visitor.addresses.read(f"p{n}@example.org")).replace("/p/", door)
        await visitor.get(path)
        await visitor.post(path, proxied, **act)
    assert await visitor.conn.fetchval("select count(*) from address where stops = '{272}'") == bursts.MANY
    assert alarms("burst_of_presses") == before + 1


def alarms(name: str) -> float:
    return REGISTRY.get_sample_value("mailprefs_alarms_total", {"alarm": name, "account": ""}) or 0.0
