"""The machine: what it is, and how much processor time somebody took of it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import asyncpg

_TICK = os.sysconf("SC_CLK_TCK")  # a second
_PROC = Path("/proc")


def spent(pid: int) -> float:
    """Return the seconds of processor time that a process and those of its children that have ended have taken."""
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICK


def parent(pid: int) -> int:
    return int((_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])


def family(pid: int) -> float:
    """Return the seconds that a process and all its children have taken."""
    found = 0.0
    for path in _PROC.glob("[0-9]*"):
        try:
            if path.name == str(pid) or parent(int(path.name)) == pid:
                found += spent(int(path.name))
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
    return found


async def postmaster(connection: asyncpg.Connection) -> int | None:
    """Return the process that is the server; None where it is on another machine."""
    name = await connection.fetchval("show cluster_name") or ""
    pid = connection.get_server_pid()
    try:
        return parent(pid) if b"postgres" in (_PROC / str(pid) / "cmdline").read_bytes() + name.encode() else None
    except FileNotFoundError:
        return None


def peak(pid: int) -> int:
    """Return the most bytes that a process ever had in memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", (_PROC / str(pid) / "status").read_text())
    return int(found[1]) * 1024 if found else 0


def described(postgres: str) -> str:
    """Return the machine in one line."""
    cpu = re.search(r"model name\s*: (.+)", (_PROC / "cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", (_PROC / "meminfo").read_text())
    size = f"{int(memory[1]) // 2**20} GiB" if memory else "?"
    return f"{os.cpu_count()} × {cpu[1] if cpu else platform.machine()}, {size}, Python {platform.python_version()}, {postgres}"
