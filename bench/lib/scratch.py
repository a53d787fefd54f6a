"""Temporary directories and namespaces carry the pid of their run, so that what a killed run left can be swept away."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Iterator

from lib.processes import run

SHARED_MEMORY = Path("/dev/shm")

_NAMESPACES = Path("/run/netns")
_OWNED = re.compile(r"pantala-(\d+)-")


def prefix() -> str:
    """How the names of this run's directories and namespaces begin."""
    return f"pantala-{os.getpid()}-"


def in_memory(size: int) -> Path | None:
    """A parent for content of that size that no disk is part of; None where there is no room."""
    if not SHARED_MEMORY.is_dir():
        return None
    room = os.statvfs(SHARED_MEMORY)
    return SHARED_MEMORY if room.f_bavail * room.f_frsize > 2 * size else None


@contextlib.contextmanager
def directory(parent: Path | None = None) -> Iterator[Path]:
    """A directory that is gone after the block."""
    with tempfile.TemporaryDirectory(prefix=prefix(), dir=parent) as path:
        yield Path(path)


def sweep() -> None:
    """Removes what runs left that could not clean up (SIGKILL): theirs is whatever has a dead process's pid."""
    for name in _orphans(_NAMESPACES):
        run(["ip", "netns", "del", name])
    for parent in (SHARED_MEMORY, Path(tempfile.gettempdir())):
        for name in _orphans(parent):
            shutil.rmtree(parent / name, ignore_errors=True)


def _orphans(parent: Path) -> list[str]:
    names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    owned = [(name, match[1]) for name in names if (match := _OWNED.match(name))]
    return [name for name, pid in owned if not Path("/proc", pid).exists()]
