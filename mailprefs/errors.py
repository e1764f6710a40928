"""One tree of errors. The docstring is the message a person reads unless a better one is given."""

from __future__ import annotations


class MailprefsError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


# Untrusted bytes can raise only these two.


class Forged(MailprefsError):
    """The signature does not hold."""


class Unreadable(MailprefsError):
    """The input cannot be read."""


# What an operator mends before the service starts.


class Misconfigured(MailprefsError):
    """The configuration is wrong."""


class NotInstalled(Misconfigured):
    """This wants an extra that is not installed here."""


class UnknownScope(MailprefsError):
    """No such topic or scope in the catalogue."""


# What a kept export is not, or not any more.


class UnknownExport(MailprefsError):
    """There is no such export."""


class NotMade(MailprefsError):
    """The export is not made yet. Try again."""


class Expired(MailprefsError):
    """The export has expired, and its file is gone. Make a new one."""


class Outdated(MailprefsError):
    """The topic is retired, or asks for more consent than when the export was made. Make a new one."""


class NotOnACluster(MailprefsError):
    """This wants the database on one server: the servers of a cluster have no one order of commits, and somebody would be passed over."""


# What the ledger refuses.


class NotEntitled(MailprefsError):
    """This door may not make this change."""


# What a message or a link lacks.


class NotMintable(MailprefsError):
    """Unsubscribe links exist for marketing alone."""


class Unguarded(MailprefsError):
    """A marketing message lacks its unsubscribe headers or its visible link."""


# Trouble that passes.


class Unavailable(MailprefsError):
    """The database cannot be reached or is not ready. Try again."""


class Unsure(Unavailable):
    """The database was lost while it recorded something: it may have, or not. Try again: a fact that is told twice counts once."""


class Busy(Unavailable):
    """Too much is waiting already. Try again."""
