"""What our own PostgreSQL may take of a machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from mailprefs import tuning


@pytest.mark.parametrize(("bound", "found"), [("max", None), (str(2 << 30), "512MB"), ("1000", "128MB"), (str(1 << 50), None)])
def test_a_quarter_of_the_memory_is_for_pages(tmp_path: Path, bound: str, found: str | None) -> None:
    """A container's bound counts where it is less than the machine has."""
    (tmp_path / "memory.max").write_text(bound)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    machines = f"{min(max(whole >> 22, 128), 8192)}MB"
    assert tuning.buffers(tmp_path / "memory.max") == (found or machines)
    assert tuning.buffers(tmp_path / "none") == machines


@pytest.mark.parametrize(("free", "found"), [(1 << 20, "1024MB"), (32 << 30, "8192MB"), (1 << 50, "16384MB")])
def test_a_quarter_of_the_free_disk_is_for_the_log(tmp_path: Path, free: int, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never less than PostgreSQL takes by itself."""
    monkeypatch.setattr(shutil, "disk_usage", lambda where: SimpleNamespace(free=free))
    assert tuning.wal_size(tmp_path) == found
