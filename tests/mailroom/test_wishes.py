"""What words ask for: to leave, more than that, or something else that a person must read."""

from __future__ import annotations

import pytest

from mailprefs.letters import Letter, opened
from mailprefs.wishes import Wish, is_automatic, read, wish

LEAVES, LEAVES_AND_MORE, MORE = Wish(True, False), Wish(True, True), Wish(False, True)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "unsubscribe",
        "UNSUBSCRIBE ME",
        "Please take me off your mailing list, thanks. Jane",
        "stop",
        "Remove",
        "opt-out",
        "stop sending me e-mails",
        "I no longer want to get your emails",
        "I never subscribed to this. Unsubscribe!",
        "Bitte vom Newsletter abmelden",
        "Désabonnement",
        "Quiero darme de baja",
        "cancelar inscrição",
        "uitschrijven aub",
        "отписаться",
        "退订",
        "配信停止",
        "u+AAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAA@go.example.com",
        "AAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAA",
        "unsubscribe\n\nSent from my phone",
    ],
)
def test_these_leave_and_say_no_more(words: str) -> None:
    assert wish(words) == LEAVES


@pytest.mark.parametrize(
    "words",
    [
        "unsubscribe me and delete all my data",
        "Unsubscribe. Also stop texting me.",
        "Unsubscribe my husband, he died last week",
        "unsubscribe " + "because of this and that " * 20,
    ],
)
def test_these_leave_and_a_person_must_read_them(words: str) -> None:
    assert wish(words) == LEAVES_AND_MORE


@pytest.mark.parametrize(
    "words",
    [
        "stop texting me",
        "Please stop sending me text messages",
        "STOP SMS",
        "subscribe",
        "I would like to join your mailing list",
        "please do not unsubscribe me",
        "Don't unsubscribe me",
        "When do you open on Sundays?",
        "Automatic reply: I am away",
        "change my address to other@example.org",
        "stop " + "and go " * 20,
    ],
)
def test_these_ask_for_something_else(words: str) -> None:
    assert wish(words) == MORE


def read_from(head: str, body: str) -> Wish:
    return read(opened(Letter(f"{head}\n\n{body}\n".encode())))


def test_what_is_quoted_or_signed_asks_nothing() -> None:
    quoted = "> unsubscribe here\n>> delete my data\nOn Sunday, Connective Care <hello@example.com> wrote:\n"
    assert read_from("Subject: Re: news", f"When do you open?\n{quoted}") == MORE
    assert read_from("Subject: unsubscribe", f"\n{quoted}\nunsubscribe\n-- \nJane, call me: text, sms, phone") == LEAVES
    assert read_from("Subject: ", "unsubscribe\n-----Original Message-----\nFrom: us\nSMS and more") == LEAVES
    assert read_from("Subject: ", f"{quoted}\nPlease keep me, don't unsubscribe me") == MORE  # written below the quotation


def test_html_is_read_without_its_markup_and_plain_text_instead_of_it() -> None:
    page = "Content-Type: text/html"
    assert read_from(page, "<style>sms</style><p>unsub&#115;cribe</p><blockquote>delete my data</blockquote>") == LEAVES
    assert read_from(page, "<p>Hello</p>") == MORE
    both = 'Content-Type: multipart/alternative; boundary="b"'
    assert read_from(both, "--b\nContent-Type: text/plain\n\nunsubscribe\n--b\nContent-Type: text/html\n\n<p>sms</p>\n--b--") == LEAVES


def test_a_style_that_is_open_to_the_end_is_for_a_person_to_read() -> None:
    page = "Content-Type: text/html"
    assert read_from(page, "<style>p {}<p>When do you open?</p>") == MORE
    assert read_from(page, "<title>x</title><p>unsubscribe</p><script>sms") == LEAVES_AND_MORE


def test_words_below_a_long_style_are_read() -> None:
    style = "<style>" + "p { color: red } " * 5000 + "</style>"
    assert read_from("Content-Type: text/html", f"{style}<p>When do you open?</p>") == MORE
    assert read_from("Content-Type: text/html", f"{style}<p>unsubscribe</p>") == LEAVES


def test_no_more_is_read_of_many_parts_than_of_one() -> None:
    for kind in ("plain", "html"):
        part = f"--b\nContent-Type: text/{kind}\n\n{'hello ' * 3000}\n"
        head = 'Content-Type: multipart/mixed; boundary="b"'
        assert read_from(head, f"{part}--b\nContent-Type: text/{kind}\n\nunsubscribe\n--b--") == LEAVES_AND_MORE  # the control
        assert read_from(head, f"{part * 4}--b\nContent-Type: text/{kind}\n\nunsubscribe\n--b--") == MORE


def test_an_encoded_subject_is_read() -> None:
    assert read_from("Subject: =?utf-8?b?ZMOpc2Fib25uZXItbW9p?=", "") == LEAVES
    assert read_from("Subject: =?utf-8?q?d=C3=A9sabonner?=", "") == LEAVES
    assert read_from("Subject: =?nonsense?q?hello?=", "") == MORE


@pytest.mark.parametrize(
    ("head", "automatic"),
    [
        ("Auto-Submitted: auto-replied", True),
        ("Auto-Submitted: auto-replied (vacation)", True),
        ("Auto-Submitted: auto-generated", False),  # a mailbox provider that leaves for a person
        ("Auto-Submitted: no", False),
        ("Precedence: auto_reply", True),
        ("Precedence: bulk", False),
        ("X-Autoreply: yes", True),
        ("Subject: hello", False),
    ],
)
def test_an_answering_machine_is_known_by_what_it_says_of_itself(head: str, automatic: bool) -> None:
    assert is_automatic(opened(Letter(f"{head}\n\n".encode()))) is automatic
