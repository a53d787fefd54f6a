"""The bytes that are distributed, and a cheap way to check every one of them on arrival."""

from __future__ import annotations

import ctypes
import mmap
import random
from pathlib import Path

from lib.system import libc
from lib.units import MIB

libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def write_random(path: Path, size: int, seed: int) -> None:
    """Fills a file with incompressible bytes, the same ones for the same seed."""
    source = random.Random(seed)
    with path.open("wb") as out:
        for offset in range(0, size, MIB):
            out.write(source.randbytes(min(MIB, size - offset)))


class Truth:
    """The original, mapped, to compare with.

    memcmp against the original costs a twentieth of a SHA-256, so that eight readers can check all they read without
    taking the machine from what is measured; it also tells at once where the first wrong byte is.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as handle:
            # A private writable mapping only because ctypes takes the address of nothing else; it is never written.
            self._map = mmap.mmap(handle.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.size = len(self._map)

    def same(self, address: int, offset: int, count: int) -> bool:
        """Whether `count` bytes at a memory address are those at `offset` of the original."""
        if offset + count > self.size:
            return False
        return libc.memcmp(address, self.address + offset, count) == 0
