"""How long one request of ours may take with all its tries: connections that are made, and answers that are read, within that time."""

from __future__ import annotations

import io
import random
import socket
import time
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import Any

from mailprefs.errors import Unavailable

_PAUSE = 0.1  # seconds before the second try; twice as long before each one after it

_JITTER = random.SystemRandom()


@dataclass
class Tries:
    """The time that a request has, and what of it is left between its tries."""

    seconds: float
    count: int = 0
    until: float = field(init=False)

    def __post_init__(self) -> None:
        self.until = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    @property
    def socket(self) -> float:
        """What is left, for a socket, which takes 0 for something else."""
        return max(self.left, 0.001)

    def pause(self, trouble: Exception, *, again: bool) -> float:
        """Return how long to wait before the next try. Raises Unavailable where no time is left for it.

        Without ``again`` there is none: it would be another deed.
        """
        if not again:
            raise Unavailable("no answer: it may have been taken")
        self.count += 1
        after = getattr(trouble, "after", None) or 0.0
        pause: float = max(after, _PAUSE * 2 ** (self.count - 1) * _JITTER.uniform(0.5, 1.5))
        if pause >= self.left:
            raise Unavailable(f"no answer in time{f' ({type(trouble).__name__})' if isinstance(trouble, OSError) else ''}")
        return pause


def connected(host: str, port: int, tries: Tries) -> socket.socket:
    """Return a connection to the first address of a host that answers, each within its share of the time. Raises OSError.

    The usual function gives each the whole, so that one of them that is dead leaves nothing for the next.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    trouble = OSError("the name has no address")
    for left, (family, kind, protocol, _, where) in zip(range(len(found), 0, -1), found, strict=True):
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(tries.socket / left)
            made.connect(where)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.settimeout(tries.socket)
            return made
        except OSError as error:
            made.close()
            trouble = error
    raise trouble


class Timed(HTTPResponse):
    """An answer that is read while its request has time, headers and all: a socket's own patience begins anew with each byte."""

    def __init__(self, tries: Tries, sock: socket.socket, *more: Any, **named: Any) -> None:
        super().__init__(sock, *more, **named)
        self.fp = io.BufferedReader(_Coming(sock, self.fp.detach(), tries))


class _Coming(io.RawIOBase):
    def __init__(self, sock: socket.socket, raw: io.RawIOBase, tries: Tries) -> None:
        self._sock, self._raw, self._tries = sock, raw, tries

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._tries.left <= 0:
            raise TimeoutError
        self._sock.settimeout(self._tries.socket)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
