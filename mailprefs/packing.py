"""Bytes packed on their way out, gzip or Zstandard, chunk by chunk: the same bytes in give the same bytes out."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any, BinaryIO, Protocol, cast

from backports import zstd

Sink = Callable[[bytes], Coroutine[Any, Any, None]]

LARGE = 16_384  # bytes; more than that is packed beside the loop
_GZIP = 31  # zlib's word for the format of gzip, which then says no time and no name


class Packing(StrEnum):
    """How a file is packed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def suffix(self) -> str:
        """The end of a file's name that says so."""
        return {"gzip": ".gz", "zstd": ".zst"}.get(self.value, "")


class _Compressor(Protocol):
    def compress(self, chunk: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Packer:
    """A sink that packs what it is given for another one. Nothing is whole before ``finish``."""

    def __init__(self, sink: Sink, packing: Packing) -> None:
        self._sink = sink
        self._compressor = _compressor(packing)

    async def __call__(self, chunk: bytes) -> None:
        if self._compressor is None:
            await self._sink(chunk)
            return
        # zlib and zstd let go of the interpreter while they work
        packed = await asyncio.to_thread(self._compressor.compress, chunk) if len(chunk) > LARGE else self._compressor.compress(chunk)
        if packed:
            await self._sink(packed)

    async def finish(self) -> None:
        """Give on what is left, and the end."""
        if self._compressor is not None:
            await self._sink(self._compressor.flush())


def packed(file: BinaryIO, packing: Packing) -> BinaryIO:
    """Return a file that packs what is written to it for another one: whole when it is closed, while the other one stays open."""
    if packing is Packing.GZIP:
        return cast(BinaryIO, gzip.GzipFile(filename="", mode="wb", compresslevel=4, fileobj=file, mtime=0))
    return cast(BinaryIO, zstd.open(file, "wb"))


def _compressor(packing: Packing) -> _Compressor | None:
    if packing is Packing.GZIP:
        return zlib.compressobj(4, zlib.DEFLATED, _GZIP)
    return zstd.ZstdCompressor(3) if packing is Packing.ZSTD else None
