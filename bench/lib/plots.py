"""What a run looked like over time, as SVG: the readers' progress, the origin's bytes, the daemons' windows."""

from __future__ import annotations

import bisect
import http.client
import math
import statistics
import time
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

from lib.network import Host, device_sent
from lib.pantala import Daemon
from lib.units import MIB, percentile

if TYPE_CHECKING:
    from lib.result import Result

# Between two looks at the origin's counter and the daemons' windows.
PAUSE = 0.05

_WIDTH, _HEIGHT = 760.0, 380.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 70.0, 20.0, 36.0, 46.0
# Distinguishable without colour vision (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

Points = list[tuple[float, float]]


@dataclass
class Series:
    """What was seen over time. Seconds count from the common start instant."""

    origin: Points = field(default_factory=list)
    """Bytes that the origin's link had sent."""
    windows: list[tuple[float, list[int]]] = field(default_factory=list)
    """The sizes of all readers' windows, in pieces."""


class Sampler:
    """Looks every so often while a run goes on."""

    def __init__(self, origin: Host, daemons: list[Daemon], start: float) -> None:
        self._origin, self._daemons, self._start = origin, daemons, start
        self._before = self._sent()
        self._looked = start
        self.due = start
        self.series = Series()

    def look(self) -> None:
        """Takes one look."""
        now = time.monotonic()
        self.due = now + PAUSE
        self.series.origin.append((now - self._start, self._sent() - self._before))
        # Asking eight daemons costs more than reading a counter.
        if self._daemons and now - self._looked >= 2 * PAUSE:
            self._looked = now
            self.series.windows.append((now - self._start, [size for it in self._daemons for size in _windows(it)]))

    def _sent(self) -> float:
        return device_sent(self._origin.namespace, "eth0")


def _windows(daemon: Daemon) -> Iterator[int]:
    """The sizes of a daemon's windows now; a killed daemon has none."""
    try:
        streams = daemon.streams()
    except (OSError, http.client.HTTPException, ValueError):
        return
    for stream in streams:
        yield from (window["size"] for window in stream["windows"])  # type: ignore[attr-defined]


def write(result: "Result", directory: Path) -> None:
    """completion.svg, origin.svg and, where there are daemons, windows.svg."""
    directory.mkdir(parents=True, exist_ok=True)
    end = _end(result)
    setup, size = result.setup, result.setup.size / MIB
    title = f"{setup.mode}, {setup.peers} peers, {setup.rate:g} Mbit/s, {size:g} MiB, {setup.scenario.text}"
    completion = svg(f"{title}: what the readers have", "seconds", "MiB in order", _completion(result, end))
    (directory / "completion.svg").write_text(completion)
    origin = [(at, sent / MIB) for at, sent in result.series.origin if at <= end]
    content = [(0.0, size), (origin[-1][0] if origin else 0.0, size)]
    lines = {"sent": origin, "content": content}
    (directory / "origin.svg").write_text(svg(f"{title}: bytes from the origin", "seconds", "MiB", lines))
    if windows := [(at, sizes) for at, sizes in result.series.windows if sizes and at <= end]:
        lines = {
            "median": [(at, float(statistics.median(sizes))) for at, sizes in windows],
            "95 %": [(at, float(percentile([float(size) for size in sizes], 0.95))) for at, sizes in windows],
        }
        (directory / "windows.svg").write_text(svg(f"{title}: windows", "seconds", "pieces", lines))


def _end(result: "Result") -> float:
    """Until when it is worth looking: a tenth longer than the others take, from whoever comes last on. A peer whose own
    link is slow goes on for a minute."""
    lines = [(peer.start, peer.progress()) for peer in result.peers if not peer.odd]
    others = [start + line[-1][0] for start, line in lines if line]
    marked = [peer.start for peer in result.peers if peer.odd]
    return 1.1 * (max(others, default=math.inf) + max(marked, default=0.0))


def _completion(result: "Result", end: float) -> dict[str, Points]:
    """How much the first, the median and the last of the readers have at each time, and who is marked."""
    def of(odd: bool) -> list[Points]:
        return [
            [(peer.start, 0.0)]
            + [(peer.start + at, got / MIB) for at, got in peer.progress() if peer.start + at <= end]
            for peer in result.peers
            if peer.odd == odd
        ]

    readers = of(odd=False)
    times = sorted({at for reader in readers for at, _ in reader})
    columns = [sorted(_value(reader, at) for reader in readers) for at in times]
    lines = {
        "first": [(at, column[-1]) for at, column in zip(times, columns)],
        "median": [(at, statistics.median(column)) for at, column in zip(times, columns)],
        "last": [(at, column[0]) for at, column in zip(times, columns)],
    }
    for number, reader in enumerate(of(odd=True)):
        lines["the scenario's" if number == 0 else f"the scenario's {number + 1}"] = reader
    return lines


def _value(points: Points, at: float) -> float:
    """The last value at or before a time."""
    index = bisect.bisect_right(points, (at, math.inf))
    return points[index - 1][1] if index else 0.0


def svg(title: str, x_name: str, y_name: str, lines: dict[str, Points]) -> str:
    """A plot of lines over common axes, both from 0 on."""
    every = [point for points in lines.values() for point in points]
    x_most = max((x for x, _ in every), default=0.0) or 1.0
    y_most = (max((y for _, y in every), default=0.0) or 1.0) * 1.05
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    x = lambda value: _LEFT + value / x_most * across  # noqa: E731
    y = lambda value: _HEIGHT - _BOTTOM - value / y_most * down  # noqa: E731
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT:g}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for at in _ticks(x_most):
        parts.append(f'<text x="{x(at):.1f}" y="{_HEIGHT - _BOTTOM + 18:.1f}" text-anchor="middle">{at:g}</text>')
    for at in _ticks(y_most):
        parts.append(
            f'<path d="M{_LEFT:g} {y(at):.1f}H{_WIDTH - _RIGHT:.1f}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 6:.1f}" y="{y(at) + 4:.1f}" text-anchor="end">{at:g}</text>'
        )
    parts.append(
        f'<text x="{_LEFT + across / 2:.1f}" y="{_HEIGHT - 10:.1f}" text-anchor="middle">{escape(x_name)}</text>'
        f'<text transform="translate(16 {_TOP + down / 2:.1f}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>'
    )
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        drawn = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        # The names stand where there is no line: progress leaves the lower right corner free.
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.8" points="{drawn}"/>'
            f'<text x="{_WIDTH - _RIGHT - 6:.1f}" y="{_HEIGHT - _BOTTOM - 8 - 14 * (len(lines) - 1 - number):.1f}" '
            f'text-anchor="end" fill="{colour}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 on, about five of them."""
    rough = most / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= rough)
    return [number * step for number in range(int(most / step) + 1)]
