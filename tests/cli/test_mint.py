"""``link``, ``links`` and ``check``: without database or network, one and a million mint the same."""

from __future__ import annotations

import csv
import gzip
import io
import json
from email.message import EmailMessage
from pathlib import Path

from mailprefs import links
from mailprefs.addresses import Addresses
from mailprefs.catalogue import Catalogue

from .shell import MAILPREFS, Shell

PEOPLE = ["jane@example.org", "JANE@Example.org", "jérôme@bücher.example.com", "o'neil@example.org", "a+b@example.org"]


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def test_a_link_and_its_headers_are_one_token(alone: Shell, addresses: Addresses, shared_catalogue: Catalogue) -> None:
    lines = (await alone("link", "Jane@Example.org", "newsletter")).said(0).out.splitlines()
    url, headers = lines[0], dict(line.split(": ", 1) for line in lines[1:])
    token = links.read(alone.ring, links.token_in(url))
    assert (token.address, token.scope) == (addresses.read("jane@example.org").key, shared_catalogue.topic("newsletter").number)
    assert headers == {
        "List-Unsubscribe": f"<{url}>, <mailto:u+{links.token_in(url)}@go.example.com>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "List-Id": "<newsletter.go.example.com>",
    }
    whole = json.loads((await alone("link", "Jane@Example.org", "connective/newsletter", "--json")).said(0).out)
    assert whole == {"url": url, "headers": headers}


async def test_a_stream_mints_what_one_by_one_is_minted(alone: Shell) -> None:
    rows = io.StringIO()
    csv.writer(rows).writerows([["name", "address"], *([f"Name, {n}", each] for n, each in enumerate(PEOPLE))])
    done = (await alone("links", "newsletter", stdin=rows.getvalue().encode())).said(0)
    found = table(done.out)
    assert list(found[0]) == ["name", "address", "url", "list_unsubscribe", "list_unsubscribe_post", "list_id"]
    assert [row["address"] for row in found] == PEOPLE, "the columns come through as they were"
    assert [row["name"] for row in found] == [f"Name, {n}" for n in range(len(PEOPLE))]
    for row in found:
        one = json.loads((await alone("link", row["address"], "newsletter", "--json")).said(0).out)
        assert [row["url"], row["list_unsubscribe"], row["list_unsubscribe_post"], row["list_id"]] == [one["url"], *one["headers"].values()]
    assert found[0]["url"] == found[1]["url"]
    assert not (alone.home / "links.rejects.csv").exists()


async def test_rows_that_cannot_be_minted_are_set_aside_with_their_reasons(alone: Shell) -> None:
    stdin = b"\xef\xbb\xbfaddress,x\r\njane@example.org,1\r\nnot an address,2\r\nshort\r\n\xff@example.org,3\r\nkim@example.org,4\r\n"
    done = (await alone("links", "newsletter", "--rejects", "bad.csv", stdin=stdin)).said(1, "3 rows .* in bad.csv, each with its reason")
    assert [row["address"] for row in table(done.out)] == ["jane@example.org", "kim@example.org"]
    with (alone.home / "bad.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        bad = list(csv.DictReader(file))
    assert [(row["address"], row["row"]) for row in bad] == [("not an address", "2"), ("short", "3"), ("\udcff@example.org", "4")]
    assert all(row["reason"] for row in bad)


async def test_ndjson_and_a_column_of_another_name_are_minted_as_well(alone: Shell) -> None:
    lines = (
        b'{"mail": "Jane@example.org", "plan": 7}\n\nno JSON\n{"mail": "kim@example.org"}\n{"mail": null, "address": "jane@example.org"}\n'
    )
    done = (await alone("links", "newsletter", "--column", "mail", stdin=lines)).said(1, "2 rows .* in links.rejects.ndjson, each with")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["mail"], row.get("plan")) for row in found] == [("Jane@example.org", 7), ("kim@example.org", None)]
    for row in found:
        one = json.loads((await alone("link", row["mail"], "newsletter", "--json")).said(0).out)
        assert [row["url"], row["list_unsubscribe"], row["list_unsubscribe_post"], row["list_id"]] == [one["url"], *one["headers"].values()]
    bad = [json.loads(line) for line in (alone.home / "links.rejects.ndjson").read_text().splitlines()]
    assert [(each.get("line"), each["row"]) for each in bad] == [("no JSON", 3), (None, 5)]
    assert all(each["reason"] for each in bad)
    stdin = gzip.compress(b'E-Mail,mail,note\njane@example.org,kim@example.org,"a, b"\r\n')
    other = (await alone("links", "newsletter", "--column", "mail", stdin=stdin)).said(0)
    plain = (await alone("links", "newsletter", stdin=stdin)).said(0, "the addresses are read from the column 'E-Mail'")
    assert table(other.out)[0]["url"] == found[1]["url"]
    assert table(plain.out)[0]["url"] == found[0]["url"], "the control"
    assert plain.out.startswith(
        'E-Mail,mail,note,url,list_unsubscribe,list_unsubscribe_post,list_id\njane@example.org,kim@example.org,"a, b",https'
    )


async def test_what_can_have_no_link_mints_none(alone: Shell) -> None:
    done = await alone("links", "orders", stdin=b"address\njane@example.org\n")
    assert done.said(2, "Unsubscribe links exist for marketing alone").out == ""
    done = await alone("links", "newsletter", stdin=b"mail\njane@example.org\n")
    assert done.said(1, "the first line must name the columns").out == ""


async def test_no_second_column_stands_beside_one_of_ours(alone: Shell) -> None:
    """A mail tool that takes the first would send a link by which nobody can leave."""
    for name in ("url", "URL", '" List_Id"'):
        done = await alone("links", "newsletter", stdin=f"address,{name}\njane@example.org,https://example.org\n".encode())
        assert done.said(1, "is called '(url|list_id)' already").out == ""
    line = b'{"address": "jane@example.org", "url": "https://example.org"}\n'
    assert json.loads((await alone("links", "newsletter", stdin=line)).said(0).out)["url"].startswith("https://go.")


async def test_a_host_that_is_too_long_is_said_once_and_minted_all_the_same(alone: Shell) -> None:
    catalogue = alone.home / "mailprefs.toml"
    catalogue.write_text(catalogue.read_text().replace('"go.example.com"', '"unsubscribe.news.example.com"'))
    many = b"address\n" + b"jane@example.org\n" * 50
    done = (await alone("links", "newsletter", stdin=many)).said(0, "warning: with the host unsubscribe.news.example.com .* 18 characters")
    assert done.err.count("warning") == 1
    assert len(table(done.out)) == 50


async def letter(alone: Shell) -> EmailMessage:
    minted = json.loads((await alone("link", "jane@example.org", "newsletter", "--json")).said(0).out)
    message = EmailMessage()
    message["From"] = "Connective Care <hello@example.com>"
    message["To"] = "jane@example.org"
    message["Subject"] = "News"
    for name, value in minted["headers"].items():
        message[name] = value
    message.set_content(f"News.\n\nUnsubscribe: {minted['url']}\n\n1 Main Street, Springfield\n")
    return message


async def test_a_message_is_judged_rule_by_rule(alone: Shell) -> None:
    message = await letter(alone)
    (alone.home / "with.eml").write_bytes(message.as_bytes())
    del message["List-Unsubscribe-Post"]
    (alone.home / "without.eml").write_bytes(message.as_bytes())
    judged = {}
    for name in ("with.eml", "without.eml"):
        done = await alone("check", name, "--json")
        assert done.status in (0, 1)
        judged[name] = {finding["rule"]: finding["verdict"] for finding in json.loads(done.out)}
        assert (done.status == 1) is ("fail" in judged[name].values()), "the status is the verdict"
        piped = await alone("check", "-", stdin=(alone.home / name).read_bytes())
        assert piped.status == done.status
        assert len(piped.out.splitlines()) == len(judged[name])
    assert sum(v == "fail" for v in judged["without.eml"].values()) > sum(v == "fail" for v in judged["with.eml"].values())


LOOKING = """
import sys
def look(event, _):
    if event.startswith("socket."):
        with open({seen!r}, "a") as file:
            file.write(event + "\\n")
sys.addaudithook(look)
"""


async def test_minting_asks_nothing_of_the_network(alone: Shell, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    (tmp_path / "sitecustomize.py").write_text(LOOKING.format(seen=str(seen)))  # what is audited, no library can hide
    watched = {"PYTHONPATH": str(tmp_path)}
    (await alone("links", "newsletter", stdin=b"address\njane@example.org\n", env=watched, command=MAILPREFS)).said(0)
    (await alone("link", "jane@example.org", "newsletter", env=watched, command=MAILPREFS)).said(0)
    assert not seen.exists()
    (await alone("why", "jane@example.org", env=watched, command=MAILPREFS)).said(1, "database cannot be reached")
    assert "socket.connect" in seen.read_text(), "the control: who asks is seen"
