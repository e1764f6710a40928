"""What an operator asks of a running service, and what nobody else is shown."""

from __future__ import annotations

import pytest
from aiohttp import ClientSession, web

from mailprefs.catalogue import Catalogue
from mailprefs.errors import Misconfigured
from mailprefs.links import KeyRing
from mailprefs.settings import Settings
from mailprefs.web import admin, wire
from mailprefs.web import app as service

TOKEN = "metrics-" + "x" * 24


async def test_it_is_alive_and_ready(base: str, http: ClientSession) -> None:
    for path in ("/healthz", "/readyz"):
        async with http.get(base + path) as answer:
            assert answer.status == 200


async def test_the_counters_are_shown_to_nobody_unless_that_is_asked_for(base: str, http: ClientSession, bearer: dict[str, str]) -> None:
    for headers in ({}, bearer, {"Authorization": "Bearer "}, {"Authorization": "Bearer None"}):
        async with http.get(f"{base}/metrics", headers=headers) as answer:
            assert answer.status == 404
            said = await answer.text()
        assert "mailprefs_" not in said
        assert admin.TOKEN in said


async def test_the_counters_are_shown_to_who_bears_the_token(
    settings: Settings, shared_catalogue: Catalogue, ring: KeyRing, database: str, http: ClientSession
) -> None:
    lent = settings.lending({admin.TOKEN: TOKEN})
    runner = wire.runner(service.create_app(lent, shared_catalogue, ring, database_url=database))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
        for given in (None, "", TOKEN, f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"bearer {TOKEN.upper()}", "Bearer \udcff"):
            async with http.get(url, headers={"Authorization": given} if given is not None else {}) as answer:
                assert (answer.status, answer.headers.get("WWW-Authenticate")) == (401, "Bearer")
                assert "mailprefs_" not in await answer.text()
        async with http.get(url, headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
            assert answer.status == 200
            assert "# TYPE python_info gauge" in await answer.text()
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("wrong", ["short", "x" * 15, "with a space in it, and long", "ünprintable-in-a-header"])
def test_a_token_that_could_be_guessed_or_never_be_sent_is_said_at_start(
    settings: Settings, shared_catalogue: Catalogue, ring: KeyRing, wrong: str
) -> None:
    with pytest.raises(Misconfigured, match=admin.TOKEN) as said:
        service.create_app(settings.lending({admin.TOKEN: wrong}), shared_catalogue, ring, database_url="unused")
    assert wrong not in str(said.value)
