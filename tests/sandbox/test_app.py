"""The sandbox does what it is told, and only on loopback."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from mailprefs.sandbox.app import create_app
from mailprefs.sandbox.faults import COURSES

Client = TestClient[web.Request, web.Application]
KEY = {"Authorization": "Bearer SG.sandbox-key-0123456789"}
GROUP = "/sendgrid/v3/asm/groups/12345"
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with TestClient(TestServer(create_app(["sendgrid"]))) as client:
        yield client


async def test_a_group_holds_what_is_added_until_it_is_removed(client: Client) -> None:
    added = await client.post(f"{GROUP}/suppressions", json={"recipient_emails": ["a@example.com", "b@example.com"]}, headers=KEY)
    assert (added.status, await added.json()) == (201, {"recipient_emails": ["a@example.com", "b@example.com"]})
    removed = await client.delete(f"{GROUP}/suppressions/a%40example.com", headers=KEY)
    assert removed.status == 204
    again = await client.delete(f"{GROUP}/suppressions/a%40example.com", headers=KEY)
    assert again.status == 404
    assert await (await client.get(f"{GROUP}/suppressions", headers=KEY)).json() == ["b@example.com"]
    assert (await (await client.get(GROUP, headers=KEY)).json())["unsubscribes"] == 1


async def test_what_is_added_to_a_deleted_group_stops_everything(client: Client) -> None:
    assert (await client.delete(GROUP, headers=KEY)).status == 204
    assert (await client.get(GROUP, headers=KEY)).status == 404
    added = await client.post(f"{GROUP}/suppressions", json={"recipient_emails": ["a@example.com"]}, headers=KEY)
    assert added.status == 201  # nothing in the answer shows it
    state = await (await client.get("/_sandbox/state")).json()
    assert state == {"sendgrid": {"groups": {"12346": []}, "global": ["a@example.com"]}}
    shown = await client.get("/sendgrid/v3/asm/suppressions/global/a%40example.com", headers=KEY)
    assert await shown.json() == {"recipient_email": "a@example.com"}


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"recipient_emails": []}', '{"recipient_emails": ["x"]}', '{"recipient_emails": [1]}'])
async def test_a_request_that_is_none_is_refused_and_spends_no_fault(client: Client, body: str) -> None:
    await client.post("/_sandbox/faults", json={"queue": ["500"]})
    assert (await client.post(f"{GROUP}/suppressions", data=body, headers=KEY)).status == 400
    sound = await client.post(f"{GROUP}/suppressions", json={"recipient_emails": ["a@example.com"]}, headers=KEY)
    assert sound.status == 500


async def test_a_request_without_a_key_is_refused(client: Client) -> None:
    assert (await client.get(GROUP)).status == 401
    assert (await client.get(GROUP, headers={"Authorization": "Bearer "})).status == 401
    assert (await client.get(GROUP, headers=KEY)).status == 200


async def test_each_fault_is_spent_on_one_write_in_order(client: Client) -> None:
    queued = await client.post("/_sandbox/faults", json={"queue": ["500", {"fault": "429-seconds", "seconds": 7}]})
    assert await queued.json() == {"queue": ["500", "429-seconds"]}
    assert (await client.get(GROUP, headers=KEY)).status == 200  # a reading spends none
    added = {"recipient_emails": ["a@example.com"]}
    first, second, third = [await client.post(f"{GROUP}/suppressions", json=added, headers=KEY) for _ in range(3)]
    assert [first.status, second.status, third.status] == [500, 429, 201]
    assert second.headers["Retry-After"] == "7"


@pytest.mark.parametrize(
    "queue", [{}, {"queue": 7}, {"queue": ["no such"]}, {"queue": [{"fault": "slow", "seconds": "x"}]}, [], {"queue": [[]]}]
)
async def test_a_fault_that_is_none_is_refused(client: Client, queue: object) -> None:
    assert (await client.post("/_sandbox/faults", json=queue)).status == 400


async def test_every_fault_says_what_it_does() -> None:
    assert all(course.__doc__ for course in COURSES.values())


async def test_what_was_received_is_shown_without_the_key(client: Client) -> None:
    await client.post(f"{GROUP}/suppressions", json={"recipient_emails": ["a@example.com"]}, headers=KEY)
    shown = await client.get("/_sandbox/requests")
    [request] = await shown.json()
    assert (request["method"], request["path"]) == ("POST", f"{GROUP}/suppressions")
    assert request["body"] == '{"recipient_emails": ["a@example.com"]}'
    assert "SG.sandbox" not in await shown.text()
    assert (await client.delete("/_sandbox/requests")).status == 204
    assert await (await client.get("/_sandbox/requests")).json() == []


async def test_its_state_can_be_set(client: Client) -> None:
    state = {"sendgrid": {"groups": {"7": ["a@example.com"]}, "global": []}}
    assert await (await client.put("/_sandbox/state", json=state)).json() == state
    assert (await client.put("/_sandbox/state", json={"nobody": {}})).status == 400
    assert (await client.put("/_sandbox/state", json={"sendgrid": {}})).status == 400
    assert await (await client.get("/_sandbox/state")).json() == state


def test_a_provider_that_it_does_not_know_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"there are: .*sendgrid"):
        create_app(["nobody"])


def listening_on(port: int) -> list[str]:
    """Return the addresses on which a local port is open, as the kernel lists them."""
    lines = [line.split()[1].split(":") for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [address for address, number in lines if int(number, 16) == port]


async def test_it_prints_the_port_it_took_and_listens_on_loopback_alone() -> None:
    code = "import asyncio; from mailprefs.sandbox.app import serve; asyncio.run(serve(0))"
    sandbox = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        assert sandbox.stdout
        port = int(await asyncio.wait_for(sandbox.stdout.readline(), 20))
        async with ClientSession() as http, http.get(f"http://127.0.0.1:{port}/_sandbox/state") as answer:
            assert answer.status == 200
        assert set(listening_on(port)) == {"0100007F"}  # 127.0.0.1, as the kernel writes it
    finally:
        sandbox.terminate()
        await sandbox.wait()
