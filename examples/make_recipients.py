"""Writes recipients.csv: 1,000 rows for the demo, the same bytes every time and on every Python.

    python3 examples/make_recipients.py > examples/recipients.csv

No row is a person: addresses are made of colours and birds at domains that are reserved for examples (RFC 2606), telephone
numbers come from ranges kept free for fiction. One in eight addresses is awkward, and every one of them is valid.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from hashlib import sha256

SEED = "recipients 1"
EMAILS, PHONE_EVERY = 960, 24  # 960 addresses and 40 telephone numbers are 1,000 rows

COLOURS = ("amber", "azure", "coral", "ebony", "green", "hazel", "ivory", "khaki", "lilac", "ochre", "olive", "pearl", "silver", "teal")
BIRDS = ("avocet", "bittern", "crane", "dunlin", "egret", "finch", "grebe", "heron", "ibis", "jay", "kite", "lark", "merlin", "wren")
DOMAINS = ("example.com", "example.org", "example.net", "mail.example.com", "post.example.org", "clinic.example.net")
PLACES = (
    *(("en", "US-CA"), ("en", "US-TX"), ("en", "US-NY"), ("es", "US-CA"), ("es", "US-TX"), ("en", "US-WA")),
    *(("en", "CA-ON"), ("fr", "CA-QC"), ("en", "GB"), ("de", "DE"), ("es", "MX"), ("ar", "EG"), ("zh", "SG")),
)


def awkward(n: int, name: str) -> str:
    """Return a valid address that trips careless code, a different kind for each n."""
    return (
        f"{name}+news@example.com",
        f"{name.upper()}@EXAMPLE.ORG",
        f"O'{name.title()}@Example.Net",
        f"{name}@bücher.example.com",  # a domain in its own script
        f"{name}@xn--bcher-kva.example.org",  # the same word as an A-label
        f"grün.{n}@example.com",
        f"пример.{n}@example.org",
        f"用户{n}@例子.example.net",
        f"مثال{n}@example.com",
        f"{name}.straße@straße.example.org",
        f"=1+{n}@example.net",  # a spreadsheet takes it for a formula
        f"+{n}@example.com",  # and this one for a number
        f"-{name}@example.org",
        f"{n}@example.net",
        f"!#$%&'*/=?^_`{{|}}~{n}@example.com",
        f"{name}.{'of-the-long-winding-river' * 2}"[:64].rstrip(".-") + "@example.org",
        f"{name}@a-very-long-name-for-a-department.and-a-longer-one-for-its-branch.example.net",
        f"_{name}_@a.b.c.d.example.com",
        f"{name}@1.example.org",
        f"Παράδειγμα.{n}@example.net",
    )[n // 8 % 20]


def draw(n: int, what: str, choices: int) -> int:
    """Return a number below ``choices``: the same for the same row and purpose, on any machine."""
    return int.from_bytes(sha256(f"{SEED}/{n}/{what}".encode()).digest()[:8], "big") % choices


def email(n: int) -> str:
    colour, bird = COLOURS[draw(n, "colour", len(COLOURS))], BIRDS[draw(n, "bird", len(BIRDS))]
    if n % 8 == 3:
        return awkward(n, f"{bird}{n}")
    return f"{colour}.{bird}{n}@{DOMAINS[draw(n, 'domain', len(DOMAINS))]}"


def phone(n: int) -> str:
    """Return a number nobody has: 555-0100 to 0199 in North America, 07700 900000 to 900999 in the United Kingdom."""
    turn = n // PHONE_EVERY
    if turn % 4 == 3:
        return f"+44 7700 900{100 + turn}"
    area = ("212", "415", "713")[turn % 4]
    return (f"+1 {area} 555 01{turn:02}", f"+1 ({area}) 555-01{turn:02}", f"+1{area}55501{turn:02}")[turn % 3]


def rows() -> Iterator[tuple[str, str, str, str, str]]:
    for n in range(1, EMAILS + 1):
        locale, region = PLACES[draw(n, "place", len(PLACES))]
        party = f"p-{n:04}"
        joined = f"20{20 + draw(n, 'year', 6)}-{1 + draw(n, 'month', 12):02}-{1 + draw(n, 'day', 28):02}"
        yield email(n), locale, region, party, joined
        if n % PHONE_EVERY == 0:
            yield phone(n), locale, region, party, joined  # the same party: one person, reached in two ways


def main() -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("address", "locale", "region", "party", "joined"))  # joined means nothing to mailprefs: it is kept through
    writer.writerows(rows())
    sys.stdout.buffer.write(out.getvalue().encode("utf-8"))


if __name__ == "__main__":
    main()
