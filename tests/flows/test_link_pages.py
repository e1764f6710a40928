"""The pages of an unsubscribe link: what will stop, what stopped, what still comes, and what no page gives away."""

from __future__ import annotations

import html
import re
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from mailprefs import directory, ledger, passes, receipts, seals
from mailprefs.directory import Entry
from mailprefs.links import Links
from mailprefs.words import Cause, Change, Door, Effect

from .visitor import PRESSED, SCRIPTED, Visitor

NEWSLETTER, OFFERS, MARKETING, ADS = 272, 273, 257, 259
PRIVATE = pytest.mark.parametrize("visitor", [{"page": "private"}], indirect=True)


def leave(visitor: Visitor, text: str = "jane@example.org", topic: str = "newsletter") -> str:
    """Return the path of somebody's unsubscribe link."""
    return visitor.link(visitor.addresses.read(text), topic).replace("/p/", "/u/")


def words(page: str) -> str:
    """Return what a page says, as it is read."""
    shown = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown))


async def test_a_the_page_says_what_will_stop_for_whom_how_often_it_comes_and_what_continues(visitor: Visitor) -> None:
    await visitor.known("jane@example.org")
    page = await visitor.get(leave(visitor))
    said = words(page)
    for each in (
        "Stop these emails?",
        "Nothing changes until you press a button.",
        "Monthly newsletter",
        "j•••@e•••.org",
        "Messages about an order or an account you have with us.",
    ):
        assert each in said
    assert "starts with j, at a domain that starts with e and ends in .org" in said, "read out where the bullets are hidden"
    assert "jane@example.org" not in page
    assert re.findall(r'<button[^>]*value="(this|all)"', page) == ["this", "all"]
    assert page.count('class="first"') == 1
    assert visitor.link(visitor.addresses.read("jane@example.org")) in page, "the way to choose topic by topic"


async def test_b_a_link_to_what_is_not_there_any_more_stops_all_marketing_with_one_button(visitor: Visitor) -> None:
    gone = replace(visitor.catalogue.topic("newsletter"), number=256 + 200)
    path = "/u/" + Links(visitor.ring, "go.example.com", "u@go.example.com").token(visitor.addresses.read("jane@example.org").key, gone)
    page = await visitor.get(path)
    assert "Stop all marketing emails?" in words(page)
    assert "All news, offers and surveys from Connective Care." in words(page)
    assert re.findall(r'<button[^>]*value="(this|all)"', page) == ["all"]
    assert "All marketing emails are stopped" in words(await visitor.post(path, stop="all"))


async def test_d_what_is_stopped_already_is_said_with_its_day_and_offers_all_marketing(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    day = visitor.clock[-1] - timedelta(days=20)
    await ledger.record(visitor.conn, [Change(jane, NEWSLETTER, Cause.CHOICE, Effect.STOP, Door.LINK, "1", day)], now=day)
    said = words(await visitor.get(leave(visitor)))
    for each in ("These emails are already stopped", "You do not need to do anything.", "Monthly newsletter", "November 2, 2026"):
        assert each in said
    assert re.findall(r'<button[^>]*value="(this|all)"', visitor.text) == ["all"]
    assert "Stop these emails?" in words(await visitor.get(leave(visitor, topic="offers"))), "the control: another topic goes on"


@pytest.mark.parametrize("cause", [Cause.STAFF, Cause.MINOR])
async def test_what_staff_hold_is_no_stop_of_the_person_s_own(visitor: Visitor, cause: Cause) -> None:
    """Once staff lift it, a stop that was wished for meanwhile must be there."""
    (jane,) = await visitor.known("jane@example.org")
    now = visitor.clock[-1]
    held = Change(jane, MARKETING, cause, Effect.STOP, Door.STAFF, "1", now)
    await ledger.record(visitor.conn, [held], now=now)
    assert "Stop these emails?" in words(await visitor.get(leave(visitor)))
    await visitor.post(leave(visitor), stop="this")
    await ledger.record(visitor.conn, [replace(held, effect=Effect.GO, id="2", happened_at=now + timedelta(minutes=1))], now=now)
    assert "These emails are already stopped" in words(await visitor.get(leave(visitor)))
    assert "Stop these emails?" in words(await visitor.get(leave(visitor, topic="offers"))), "the control: another topic is not stopped"


async def test_d_a_break_that_ends_is_no_stop(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    now = visitor.clock[-1]
    pause = Change(jane, MARKETING, Cause.PAUSE, Effect.STOP, Door.MANAGE, "1", now, now + timedelta(days=90))
    await ledger.record(visitor.conn, [pause], now=now)
    assert "Stop these emails?" in words(await visitor.get(leave(visitor)))


def alike(page: str) -> str:
    """Return a page without its signed values, but for how long they are, and without the numbers of its receipt."""
    page = re.sub(r'value="([A-Za-z0-9_.-]{40,})"', lambda found: f'value="{len(found[1])}"', page)
    page = re.sub(r"/p/[A-Za-z0-9_.-]{45}", "/p/TOKEN", page)
    page = re.sub(r"<bdi>[A-Z2-7]{4}-[A-Z2-7]{4}-[A-Z2-7]{4}</bdi>", "NUMBER", page)
    return re.sub(r"<pre.*?</pre>", lambda found: str(len(found[0])), page, flags=re.DOTALL)


@PRIVATE
async def test_c_g_and_h_a_private_brand_has_the_same_pages_for_known_stopped_tied_and_unknown_people(visitor: Visitor) -> None:
    (known,) = await visitor.known("known@example.org")
    _, phone = await visitor.known("tied@example.org", "+12025550123", party="p1")
    stopped, long_ago = await visitor.known("stopped@example.org", "long@example.org")
    now = visitor.clock[-1]
    before = now - timedelta(days=20)
    await ledger.record(visitor.conn, [Change(stopped, MARKETING, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)], now=now)
    page = [Change(long_ago, scope, Cause.CHOICE, Effect.STOP, Door.PAGE, f"{scope}", before) for scope in (MARKETING, NEWSLETTER)]
    await ledger.record(visitor.conn, page, now=before)
    people = ("stranger", "known", "tied", "stopped", "long")
    for pressed in ("this", "all"):
        said: dict[str, set[str]] = {"C": set(), "G": set(), "H": set()}
        for who in people:
            path = leave(visitor, f"{who}@example.org")
            said["C"].add(alike(await visitor.get(path)))
            said["G"].add(alike(await visitor.post(path, stop=pressed)))
            said["H"].add(alike(await visitor.post(path, undo=visitor.undo)))
        assert {name: len(pages) for name, pages in said.items()} == {"C": 1, "G": 1, "H": 1}, pressed
        text = words(" ".join(page for pages in said.values() for page in pages))
        for never in ("Monthly newsletter", "Offers", "example.org", "You get this", "Already", "Since"):
            assert never not in text
        assert "The kind of email this link came in" in text
    assert [row[2] for row in await visitor.rows(phone)] == ["stop", "withdraw"], "the control: what was tied was stopped as well"
    assert await visitor.rows(known)


@PRIVATE
async def test_the_pages_under_a_private_brand_are_as_long_for_everybody(visitor: Visitor) -> None:
    await visitor.known("known@example.org")
    lengths = {len(await visitor.get(leave(visitor, f"{who}@example.org"))) for who in ("stranger", "known")}
    assert len(lengths) == 1


@pytest.mark.parametrize("visitor", [{"page": "private", "least": 0.3}], indirect=True)
async def test_a_private_brand_takes_no_less_than_its_time_for_whoever_it_is(visitor: Visitor) -> None:
    await visitor.known("tied@example.org", *(f"+1202555012{n}" for n in range(5)), party="p1")

    async def took(answer: Awaitable[str]) -> float:
        started = time.monotonic()
        await answer
        return time.monotonic() - started

    for who in ("tied", "stranger"):
        for path in (leave(visitor, f"{who}@example.org"), visitor.link(visitor.addresses.read(f"{who}@example.org"))):
            assert await took(visitor.get(path, {"Sec-GPC": "1"})) >= 0.3
            assert await took(visitor.post(path, stop="all", do="all")) >= 0.3
            assert visitor.undo
    assert await took(visitor.post(path, undo=visitor.undo)) >= 0.3
    clicks = [visitor.post(leave(visitor, "stranger@example.org"), {}, **{"List-Unsubscribe": "One-Click"}) for _ in range(5)]
    assert min([await took(each) for each in clicks]) < 0.3, "the control: a mailbox provider does not wait"


async def test_e_the_result_says_what_stopped_when_what_still_comes_and_why_with_a_receipt(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(leave(visitor))
    said = words(await visitor.post(leave(visitor), stop="this"))
    assert await visitor.rows(jane) == [(NEWSLETTER, "choice", "stop", "page")]
    assert "<title>Stopped · Connective Care</title>" in visitor.text
    for each in (
        "These emails are stopped",
        "Monthly newsletter",
        "j•••@e•••.org",
        "may still arrive in the next 2 days",
        "You can undo this for 30 minutes",
        "Offers and discounts You have not stopped these",
        "You need these, so they are always sent.",
        "Your receipt",
        "22 November 2026 · 12:00 UTC" if "22 November" in said else "November 22, 2026 · 12:00 UTC",
    ):
        assert each in said
    for never in ("News from partners", "A subject of its own", "Orders and receipts"):
        assert never not in said, "what wants a consent that nobody gave, sensitive, transactional"
    proof = re.search(r"<pre[^>]*>(.*?)</pre>", visitor.text, re.DOTALL)
    assert proof
    told = receipts.read(seals.public(visitor.ring), html.unescape(proof[1]))
    assert (told["stopped"], told["of"]) == ([NEWSLETTER], jane.key.hex)
    assert str(told["number"]) in said


async def test_e_a_second_press_of_a_stop_that_holds_shows_no_way_back(visitor: Visitor) -> None:
    await visitor.known("jane@example.org")
    await visitor.get(leave(visitor))
    form = visitor.hidden("form")
    first = await visitor.post(leave(visitor), form=form, stop="this")
    assert visitor.undo
    again = await visitor.post(leave(visitor), form=form, stop="this")
    assert "These emails are stopped" in words(first)
    assert "These emails are stopped" in words(again)
    assert not visitor.undo, "the undo of the earlier press stands alone"


async def test_f_all_marketing_covers_what_is_added_later(visitor: Visitor) -> None:
    await visitor.known("jane@example.org")
    await visitor.get(leave(visitor))
    said = words(await visitor.post(leave(visitor), stop="all"))
    assert "All marketing emails are stopped" in said
    assert "This also covers topics we add later." in said
    assert "You have not stopped these" not in said
    assert 'value="all"' not in visitor.text


async def test_h_an_undo_is_read_back_and_says_what_else_holds_since_when(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(leave(visitor))
    await visitor.post(leave(visitor), stop="this")
    said = words(await visitor.post(leave(visitor), undo=visitor.undo))
    assert "Your stop is undone" in said
    assert "You get this" in said
    await visitor.get(leave(visitor))
    await visitor.post(leave(visitor), stop="this")
    undo, now = visitor.undo, visitor.clock[-1]
    await ledger.record(visitor.conn, [Change(jane, MARKETING, Cause.CHOICE, Effect.STOP, Door.LINK, "1", now)], now=now)
    said = words(await visitor.post(leave(visitor), undo=undo))
    assert "Your stop is undone" in said
    assert "You get this" not in said
    assert "Stopped Since November 22, 2026" in said


async def test_i_after_half_an_hour_the_way_back_is_a_link_by_mail(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(leave(visitor))
    await visitor.post(leave(visitor), stop="this")
    undo = visitor.undo
    visitor.clock.append(visitor.clock[-1] + ledger.UNDO + timedelta(seconds=1))
    said = words(await visitor.post(leave(visitor), undo=undo))
    assert "The time to undo has ended" in said
    assert 'name="mail"' in visitor.text
    assert len(await visitor.rows(jane)) == 1


async def test_a_press_by_a_script_stops_nobody_and_a_press_of_any_other_kind_does(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(leave(visitor))
    said = words(await visitor.post(leave(visitor), SCRIPTED, stop="this"))
    assert "Stop these emails?" in said
    assert await visitor.rows(jane) == []
    for n, headers in enumerate(({"Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1"}, {}, {"Sec-Fetch-Mode": "cors"})):
        (one,) = await visitor.known(f"p{n}@example.org")
        await visitor.get(leave(visitor, f"p{n}@example.org"))
        await visitor.post(leave(visitor, f"p{n}@example.org"), headers, stop="this")
        assert len(await visitor.rows(one)) == 1, headers
    one_click = {"List-Unsubscribe": "One-Click"}
    async with visitor.doors.http.post(visitor.doors.base + leave(visitor), data=one_click, headers=SCRIPTED) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    assert await visitor.rows(jane) == [(NEWSLETTER, "choice", "stop", "link")], "a mailbox provider's press is one, whatever it says"


async def test_q_every_link_that_is_none_gets_the_same_page_with_a_field_for_the_address(visitor: Visitor) -> None:
    path = leave(visitor)
    pages = set()
    for wrong in (path[:-1] + ("A" if path[-1] != "A" else "Q"), path[:-3], "/u/x", "/u/" + path[3:].upper()):
        pages.add(await visitor.get(wrong))
        assert visitor.status == 404
        pages.add(await visitor.post(wrong, stop="this"))
    for cut in ("/", "/u", "/u/", "/p/", "/m", "/c/"):
        pages.add(await visitor.get(cut))
        assert visitor.status == 404
    (page,) = pages
    assert "This link does not work" in words(page)
    assert 'action="/preferences' in page
    assert 'type="email"' in page
    assert "E\u2011Mail" in await visitor.get("/u/x?lang=de"), "and the way to it in each language"
    assert 'href="?lang=de"' in page


async def test_s_the_privacy_signal_stops_ads_says_so_and_changes_no_choice_about_mail(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    for n in range(3):
        page = words(await visitor.get(leave(visitor), {"Sec-GPC": "1"} if n else {"DNT": "1", "Sec-GPC": "0"}))
        assert ("Opt-out request honored" in page) is bool(n)
    assert await visitor.rows(jane) == [(ADS, "choice", "stop", "page")]
    assert "Stop these emails?" in page


async def test_s_the_privacy_signal_is_heard_on_a_press_as_well(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    signal = {"Sec-GPC": "1", **PRESSED}
    await visitor.get(leave(visitor))
    assert "Opt-out request honored" not in await visitor.post(leave(visitor), stop="this"), "the control: it sends none"
    undo, stopped = visitor.undo, await visitor.rows(jane)
    assert "Opt-out request honored" in await visitor.post(leave(visitor), signal, form=visitor.hidden("form"), stop="this")
    assert "Opt-out request honored" in await visitor.post(leave(visitor), signal, undo=undo)
    assert (ADS, "choice", "stop", "page") in await visitor.rows(jane)
    assert (ADS, "choice", "stop", "page") not in stopped
    (kim,) = await visitor.known("kim@example.org")
    one = "/c/" + passes.write(visitor.ring, passes.fresh(passes.Purpose.CONFIRM, kim.key, NEWSLETTER, visitor.clock[-1]))
    await visitor.get(one)
    assert "Opt-out request honored" in await visitor.post(one, signal, answer="no")
    assert (ADS, "choice", "stop", "page") in await visitor.rows(kim)


async def test_a_mailbox_provider_sends_no_signal_of_its_person_s(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    body = {"List-Unsubscribe": "One-Click"}
    async with visitor.doors.http.post(visitor.doors.base + leave(visitor), data=body, headers={"Sec-GPC": "1"}) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    assert await visitor.rows(jane) == [(NEWSLETTER, "choice", "stop", "link")]


def receipt(page: str) -> str:
    found = re.search(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)
    assert found
    return html.unescape(found[1])


@pytest.mark.parametrize("visitor", [{"page": "open"}, {"page": "private"}], indirect=True)
async def test_a_press_has_one_receipt_however_often_its_form_is_pressed(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    for pressed in ("this", "all"):
        await visitor.get(leave(visitor))
        form = visitor.hidden("form")
        first = receipt(await visitor.post(leave(visitor), form=form, stop=pressed))
        visitor.clock.append(visitor.clock[-1] + timedelta(minutes=10))
        assert receipt(await visitor.post(leave(visitor), form=form, stop=pressed)) == first
        told = receipts.read(seals.public(visitor.ring), first)
        scope = NEWSLETTER if pressed == "this" else MARKETING
        at = await visitor.conn.fetchval("select at from consent where key = $1 and scope = $2", jane.key, scope)
        assert told["at"] == at.isoformat(timespec="seconds"), "the opt-out's own time"
        await visitor.get(leave(visitor))
        assert receipt(await visitor.post(leave(visitor), form="a form of another page", stop="all")) != first, "the control"


async def test_t_a_form_that_lay_open_for_long_still_stops(visitor: Visitor) -> None:
    """There is no page that says "too old": an old press counts, as an old link does."""
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(leave(visitor))
    form = visitor.hidden("form")
    visitor.clock.append(visitor.clock[-1] + timedelta(days=400))
    await visitor.post(leave(visitor), form=form, stop="this")
    assert len(await visitor.rows(jane)) == 1


async def test_what_a_press_came_to_is_shown_in_another_language_with_its_way_back_and_records_nothing(visitor: Visitor) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(leave(visitor))
    await visitor.post(leave(visitor), stop="this")
    undo = visitor.undo
    for code, title in (("de", "abbestellt"), ("ar", "إيقاف"), ("en", "These emails are stopped")):
        page = await visitor.post(f"{leave(visitor)}?lang={code}", again=undo)
        assert f'<html lang="{code}" dir="{"rtl" if code == "ar" else "ltr"}">' in page
        assert title in page
        assert visitor.undo == undo
    assert len(await visitor.rows(jane)) == 1
    await visitor.post(leave(visitor), undo=undo)
    assert [row[2] for row in await visitor.rows(jane)] == ["stop", "withdraw"]


async def test_the_language_is_the_pressed_one_else_the_recipients_else_the_browsers(visitor: Visitor) -> None:
    spanish = visitor.addresses.read("es@example.org")
    await directory.know(visitor.conn, [Entry(spanish, locale="es-MX")], now=visitor.clock[-1])
    german, own = {"Accept-Language": "de-CH,de;q=0.9"}, leave(visitor, "es@example.org")
    for path, code in ((leave(visitor), "de"), (own, "es"), (f"{own}?lang=fr", "fr")):
        assert f'<html lang="{code}" dir="ltr">' in await visitor.get(path, german)
    assert "Boletín mensual" in await visitor.get(own)
    assert '<html lang="en"' in await visitor.get(leave(visitor) + "?lang=<script>")
    assert "<script" not in visitor.text


@asynccontextmanager
async def cut_off(visitor: Visitor, server: str, pools: str) -> AsyncIterator[None]:
    """Take the database away from some of the service's pools, and let nobody else in."""
    name = await visitor.conn.fetchval("select current_database()")
    above = await asyncpg.connect(server)
    await above.execute(f'alter database "{name}" with allow_connections false')
    ended = "select pg_terminate_backend(pid, 1000) from pg_stat_activity where datname = $1 and application_name ~ $2"
    assert await above.fetch(ended, name, pools)
    try:
        yield
    finally:
        await above.execute(f'alter database "{name}" with allow_connections true')
        await above.close()


async def test_r_without_a_database_the_page_still_shows_and_a_press_says_that_it_was_not_saved(visitor: Visitor, server: str) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(leave(visitor))
    async with cut_off(visitor, server, "^mailprefs"):
        assert "Your request was not saved" in words(await visitor.post(leave(visitor), stop="this"))
        assert visitor.status == 503
        assert "Retry-After" in visitor.headers
        assert "style-src 'sha256-" in visitor.headers["Content-Security-Policy"]
        assert "Nicht gespeichert" in words(await visitor.post(f"{leave(visitor)}?lang=de", stop="this")).replace("\u2011", "-")
        assert "Stop these emails?" in words(await visitor.get(leave(visitor)))
        assert visitor.status == 200, "what the link says wants no database"
        await visitor.get(visitor.link(jane))
        assert (visitor.status, "This page is not working right now" in words(visitor.text)) == (503, True)
    assert await visitor.rows(jane) == []
    await visitor.get(leave(visitor))
    await visitor.post(leave(visitor), stop="this")
    assert len(await visitor.rows(jane)) == 1, "the control: with a database it is saved"


async def test_r_who_tries_again_stays_in_the_session_and_in_the_language(visitor: Visitor, server: str) -> None:
    (jane,) = await visitor.known("jane@example.org")
    path = visitor.managed(jane)
    await visitor.post(path, open="1")
    session = visitor.hidden("session")
    async with cut_off(visitor, server, "^mailprefs"):
        await visitor.post(f"{path}?lang=de", session=session, do="all")
        assert (visitor.status, visitor.hidden("session"), 'action="?lang=de"' in visitor.text) == (503, session, True)
        assert '<a href="?lang=' not in visitor.text, "a link would leave the session"
        assert 'formaction="?lang=fr"' in visitor.text
        await visitor.post(f"{path}?lang=fr", session=visitor.hidden("session"), again=visitor.hidden("again"))
        assert (visitor.status, visitor.hidden("session"), '<html lang="fr"' in visitor.text) == (503, session, True)
        await visitor.post(path, session='"><b>', do="all")
        assert '"><b>' not in visitor.text, "what is no session of ours is not repeated"
        await visitor.post(f"{leave(visitor)}?lang=de", stop="this")
        assert (visitor.status, visitor.hidden("lang"), visitor.hidden("session")) == (503, "de", "")
    await visitor.post(f"{path}?lang=fr", session=session, again="-")
    assert ('<html lang="fr"' in visitor.text, visitor.hidden("session") != "", 'name="close"' in visitor.text) == (True, True, True)
    assert await visitor.rows(jane) == []


async def test_r_what_is_saved_is_said_to_be_even_if_the_rest_cannot_be_read(visitor: Visitor, server: str) -> None:
    (jane,) = await visitor.known("jane@example.org")
    await visitor.get(leave(visitor))
    form = visitor.hidden("form")
    async with cut_off(visitor, server, "^mailprefs web"):
        said = words(await visitor.post(leave(visitor), stop="this"))
    assert visitor.status == 200
    assert "These emails are stopped Your request is saved. We could not load the rest of this page." in said
    number = said.partition("Receipt number ")[2].split(" ")[0]
    assert number in await visitor.post(leave(visitor), stop="this", form=form), (
        "the same press has the same receipt, once the page can be shown"
    )
    assert await visitor.rows(jane) == [(NEWSLETTER, "choice", "stop", "page")]
