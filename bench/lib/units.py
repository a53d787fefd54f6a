"""Sizes, rates and the few formulas that every table uses."""

from __future__ import annotations

import re
import statistics
from typing import Iterable

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

# tc tbf counts Ethernet frames: 1448 bytes of TCP payload (timestamps on) travel in a frame of 1514.
MSS = 1448
FRAME = 1514

_SUFFIXES = {"": 1, "b": 1, "k": KIB, "kib": KIB, "m": MIB, "mib": MIB, "g": GIB, "gib": GIB}


def parse_size(text: str) -> int:
    """Bytes in a size such as `512MiB`, `64M` or `1048576`; suffixes are powers of 1024."""
    match = re.fullmatch(r"(\d+)\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in _SUFFIXES:
        raise ValueError(f"{text!r} is not a size: write a number and KiB, MiB or GiB")
    return int(match[1]) * _SUFFIXES[match[2]]


def wire_seconds(payload: int, mbit: float) -> float:
    """S/B: seconds that `payload` bytes take over TCP on a link of `mbit` Mbit/s, headers included."""
    return payload * FRAME / MSS * 8 / (mbit * 1e6)


def payload_of_frames(frame_bytes: int) -> float:
    """The TCP payload inside that many bytes of full Ethernet frames."""
    return frame_bytes * MSS / FRAME


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A table cell: the figure, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}{unit}"


def mebibytes(value: float | None) -> str:
    """Bytes as MiB with one decimal for a table cell."""
    return "–" if value is None else f"{value / MIB:.1f}"


def median(values: Iterable[float | None]) -> float | None:
    """The median of the figures that are there."""
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def percentile(values: list[float], share: float) -> float:
    """Nearest-rank percentile; `share` between 0 and 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def largest(values: Iterable[float | None]) -> float | None:
    """The largest of the figures that are there."""
    return max((value for value in values if value is not None), default=None)
