"""Parquet files of candidates, by DuckDB: the column of addresses out of them, and what is left of their rows, every column as it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mailprefs import parquet
from mailprefs.errors import Misconfigured, Unreadable
from mailprefs.rows import addressed
from mailprefs.sheets import REASONS

_ONE = r"[^\r\n]{1,1000}"  # what can be an address, with its name: one line, and no book
_PLACE = "file_row_number"  # what DuckDB calls a row's place in its file, from 0
_DENIED = "mailprefs_denied"  # and we, in what is joined to it: no file has a column of that name


@dataclass(frozen=True)
class Table:
    """One Parquet file. Raises Misconfigured where DuckDB is not installed."""

    path: Path
    _library: Any = field(default_factory=parquet.duckdb, repr=False)

    def addresses(self, column: str | None, to: Path) -> str:
        """Write the column of the addresses as CSV with a header, a record for each row, in their order, and return its name.

        None: the one that is obviously meant. Raises Unreadable.
        """
        with self._opened(to.parent) as connection:
            rows = connection.read_parquet(_literal(self.path))
            if not self._named(connection).issuperset(rows.columns):
                raise Unreadable("two columns of it have one name, in capitals or small letters: call one of them otherwise")
            column = column or addressed(rows.columns)
            if column not in rows.columns:
                raise Unreadable(f"no column of it is called '{column}'. --column names another")
            if _PLACE in (each.casefold() for each in rows.columns):
                raise Unreadable(f"a column of it is called '{_PLACE}', as the places of its rows are here: call it otherwise")
            text = self._library.ColumnExpression(column).cast("VARCHAR")
            one = self._library.FunctionExpression("regexp_full_match", text, self._library.ConstantExpression(_ONE))
            nothing = self._library.ConstantExpression("")  # is a line too: rows are known by their places
            whole = self._library.CaseExpression(one, text).otherwise(nothing)
            rows.select(whole.alias(column)).write_csv(str(to), header=True, quoting="ALL")
        return column

    def _named(self, connection: Any) -> set[str]:
        """Return what is named in it: DuckDB calls the second column otherwise where two have one name to whoever passes over case."""
        return {name for (name,) in connection.table_function("parquet_schema", [_literal(self.path)]).select("name").fetchall()}

    def has(self, name: str) -> bool:
        """True where a further column of this name would be the second one, to whoever passes over case. Raises Unreadable."""
        with self._opened(self.path.parent) as connection:
            return name.casefold() in (each.casefold() for each in connection.read_parquet(_literal(self.path)).columns)

    @property
    def height(self) -> int:
        """Return how many rows it has. Raises Unreadable."""
        with self._opened(self.path.parent) as connection:
            return len(connection.read_parquet(_literal(self.path)))

    def split(self, denied: Path, allowed: Path, others: Path) -> None:
        """Write the rows that are not denied, and those that are with one column more, ``reasons``; each in their order.

        ``denied`` is CSV without a header: places from 0, and reasons.
        """
        with self._opened(allowed.parent) as connection:
            rows = connection.read_parquet(_literal(self.path), file_row_number=True).set_alias("rows")
            columns = {_DENIED: "BIGINT", REASONS: "VARCHAR"}
            out = connection.read_csv(_literal(denied), header=False, columns=columns, auto_detect=False).set_alias("out")
            for to, how, hidden in ((allowed, "anti", [_PLACE]), (others, "inner", [_PLACE, _DENIED])):
                found = rows.join(out, f"rows.{_PLACE} = out.{_DENIED}", how=how).order(_PLACE)
                found.select(self._library.StarExpression(exclude=hidden)).write_parquet(str(to), compression="zstd")

    @contextmanager
    def _opened(self, scratch: Path) -> Iterator[Any]:
        config = {"threads": 1, "memory_limit": parquet.MEMORY, "temp_directory": str(scratch)}
        try:
            with self._library.connect(":memory:", config=config) as connection:
                connection.execute("set enable_progress_bar = false")  # else stdout has it after two seconds, among the rows
                yield connection
        except self._library.IOException as error:  # of the disk: what is wrong with the file itself is no such error
            raise Misconfigured(f"a file of rows cannot be read or written: {error}") from None
        except self._library.Error:
            raise Unreadable("the Parquet file cannot be read") from None


def _literal(path: Path) -> str:
    """Return a path as DuckDB takes it for this file alone: it reads every file that a name with ``*``, ``?`` or ``[`` matches."""
    return re.sub(r"[*?[]", r"[\g<0>]", str(path.absolute()))
