"""Whole columns of a file at once, by DataFusion and Arrow where they are installed: outside of Python, in a third of the time.

Nothing here decides what an address is: a row that is not plain in every way is left to `sheets` and `addresses`.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

DIGEST = 32  # bytes of one
_FIELD = r'[^,"\r\n]*'
_ROWS, _ODD, _DIGEST = "rows", "odd", "digest"  # what our tables and columns are called


@dataclass(frozen=True, slots=True)
class Plain:
    """Which rows of a file are plain: fields without quotes between commas, one of them an address. Patterns of small ASCII letters."""

    like: str  # the address, which comes in capitals too
    unlike: str  # how no field of such a row ends
    longest: int  # octets of the address
    at: int  # the field of the address, from 0
    wide: int  # how many fields a row has

    @property
    def row(self) -> str:
        """Return what the whole of a plain row matches. Only what is an address passes over case: in Unicode a k has three."""
        return rf"^(?:{_FIELD},){{{self.at}}}(?i-u:{self.like})(?:,{_FIELD}){{{self.wide - self.at - 1}}}\r?$"

    @property
    def no_row(self) -> str:
        """Return what is nowhere in one."""
        return rf"(?i-u)(?:{self.unlike})(?:[,\r]|$)"


@cache
def installed() -> bool:
    """True where both libraries are: the extra ``speedups``."""
    try:
        import_module("datafusion")
        import_module("pyarrow")
    except ImportError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Found:
    """The digests of rows, 32 bytes each, and the places of those that are not plain, whose digests mean nothing."""

    digests: bytes = field(repr=False)
    odd: Sequence[int]


class Columns:
    """Keys the plain rows of a file by HMAC-SHA256 (RFC 2104 §2), whose two halves are begun with ``inner`` and ``outer``."""

    def __init__(self, plain: Plain, inner: bytes, outer: bytes) -> None:
        from datafusion import SessionConfig, SessionContext, col, functions, lit

        text = functions.btrim(functions.split_part(col(_ROWS), lit(","), lit(plain.at + 1)), lit("\r"))
        is_plain = functions.regexp_like(col(_ROWS), lit(plain.row)) & (functions.octet_length(text) <= lit(plain.longest))
        within = functions.sha256(functions.concat(_literal(inner), _binary(functions.lower(text))))
        self._wanted = (
            (~(is_plain & ~functions.regexp_like(col(_ROWS), lit(plain.no_row)))).alias(_ODD),
            functions.sha256(functions.concat(_literal(outer), within)).alias(_DIGEST),
        )
        self._context = SessionContext(SessionConfig().with_target_partitions(1))

    def keyed(self, rows: bytes) -> Found | None:
        """Return what is found of rows, a line each; None where there are quotes among them, since not every comma parts fields then."""
        if b'"' in rows:
            return None
        import pyarrow
        from pyarrow import compute

        column = compute.split_pattern(pyarrow.array([rows.decode("utf-8", "replace")]), "\n").values
        found = pyarrow.Table.from_batches(self._asked(pyarrow.record_batch([column], [_ROWS])))
        digests = found[_DIGEST].combine_chunks().cast(pyarrow.binary(DIGEST))
        return Found(digests.buffers()[1].to_pybytes(), compute.indices_nonzero(found[_ODD]).to_pylist())

    def _asked(self, batch: Any) -> Any:
        try:
            return self._context.from_arrow(batch, _ROWS).select(*self._wanted).collect()
        finally:
            self._context.deregister_table(_ROWS)


def _literal(value: bytes) -> Any:
    import pyarrow
    from datafusion import lit

    return lit(pyarrow.scalar(value, pyarrow.binary()))


def _binary(expression: Any) -> Any:
    import pyarrow

    return expression.cast(pyarrow.binary())


def caught(digests: bytes, slots: array[int], latest: array[int], before: array[int], keys: bytearray) -> set[int]:
    """Return which of many digests begin with a key of a hash table. Wants the libraries.

    ``keys`` are 16 bytes each, from place 1 on. ``slots``: where to look for each digest. ``latest`` has, by slot, the place of the latest
    key there, and ``before``, by place, that of the one before it in its slot; 0 is none.
    """
    from pyarrow import compute

    place = compute.take(_column(latest), _column(slots))
    asked = compute.indices_nonzero(place)
    place, found = place.take(asked), set[int]()
    while len(asked):
        same = compute.and_(*(compute.equal(_words(digests, asked, 4, half), _words(keys, place, 2, half)) for half in (0, 1)))
        found.update(asked.filter(same).to_pylist())
        place = compute.take(_column(before), place)
        more = compute.and_not(compute.not_equal(place, 0), same)
        asked, place = asked.filter(more), place.filter(more)
    return found


def _column(values: array[int]) -> Any:
    """Return an array as it lies in memory, as Arrow sees it."""
    import pyarrow

    return pyarrow.Array.from_buffers(pyarrow.uint32(), len(values), [None, pyarrow.py_buffer(values)])


def _words(values: bytes | bytearray, places: Any, wide: int, nth: int) -> Any:
    """Return the nth word, of 8 bytes, of each of the values at some places; a value is so many words wide."""
    import pyarrow
    from pyarrow import compute

    whole = pyarrow.Array.from_buffers(pyarrow.uint64(), len(values) // 8, [None, pyarrow.py_buffer(values)])
    return whole.take(compute.add(compute.multiply(places.cast(pyarrow.int64()), wide), nth))
