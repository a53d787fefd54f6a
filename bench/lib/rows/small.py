"""Rows j and k: what contents of 100 bytes cost a daemon that has seen none, thousands, a hundred thousand of them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Callable, Iterator

from lib import processes
from lib.fetch import KeptConnection
from lib.site import CACHE_PORT, Bench, Row, Site, site
from lib.system import BenchError
from lib.units import MIB, parse_size, percentile

SIZE = 100
WINDOW = 500  # requests that a figure is made of
KNOWN = (0, 3_000, 100_000)  # contents that were asked for before
PATIENCE = 90.0  # seconds; what is not reached in that time is said
KEPT = 9_000
KEPT_MEMORY = "32MiB"
MEMORY = "256MiB"
_SLACK = 32 * MIB


@dataclass
class _Window:
    """What a request cost, as a mean over some."""

    known: int
    proxy: float = 0.0  # CPU seconds of what answers
    supernode: float = 0.0
    times: list[float] = field(default_factory=list)


@dataclass
class _Run:
    """How far it came, and the figures of the windows on the way; the last one is the end's."""

    asked: int
    seconds: float
    windows: list[_Window]


def measure(bench: Bench) -> list[Row]:
    """One daemon for each row, asked for one new URL after the other on one connection. What is measured goes on for so
    long that there are no turns."""
    with site(bench) as place:
        name = place.content(SIZE)
        with place.cache() as cache:
            cost = lambda: cache.usage().cpu  # noqa: E731
            theirs = _ask(place, name, ("127.0.0.1", CACHE_PORT), KNOWN[1] + WINDOW, cost)
        with place.daemon(MEMORY) as daemon:
            cost = lambda: processes.usage(daemon.pid).cpu  # noqa: E731
            ours = _ask(place, name, daemon.proxy, KNOWN[-1] + WINDOW, cost)
            size = processes.resident(daemon.pid)
    with site(bench) as place:
        name = place.content(SIZE)
        with place.daemon(KEPT_MEMORY) as daemon:
            cost = lambda: processes.usage(daemon.pid).cpu  # noqa: E731
            kept = _ask(place, name, daemon.proxy, KEPT, cost)
            now, peak = processes.resident(daemon.pid), processes.peak_rss(daemon.pid) or 0
    over = peak - parse_size(KEPT_MEMORY) * 1.1 - _SLACK
    return [
        Row(
            "j",
            f"a request for {SIZE} bytes that nobody has, after so many others: CPU of the daemon, of the supernode; p50, p99",
            f"nginx proxy_cache {_figures(theirs, KNOWN[:2])}",
            "≤ 0.3 ms, flat to 100,000",
            f"{_figures(ours, KNOWN)}; VmRSS {size / MIB:.0f} MiB",
        ),
        Row(
            "k",
            f"{KEPT:,} contents of {SIZE} bytes, --memory {KEPT_MEMORY}: memory",
            "",
            "≤ 32 MiB + 10 % + 32 MiB",
            f"VmHWM {peak / MIB:.0f} MiB, {'OVER by' if over > 0 else 'within by'} {abs(over) / MIB:.0f}; VmRSS "
            f"{now / MIB:.0f} MiB{'' if kept.asked >= KEPT else f' **after {kept.asked:,} in {kept.seconds:.0f} s**'}",
        ),
    ]


def _figures(run: _Run, marks: tuple[int, ...]) -> str:
    parts = []
    for mark in marks:
        window = next((window for window in run.windows if window.known == mark), None)
        if window is None:
            last = run.windows[-1]
            parts.append(
                f"{mark:,}: **not reached**, {run.asked:,} contents in {run.seconds:.0f} s, the last {_figure(last)}"
            )
            break
        parts.append(f"{mark:,}: {_figure(window)}")
    return "; ".join(parts)


def _figure(window: _Window) -> str:
    times = sorted(seconds * 1e3 for seconds in window.times)
    supernode = f" + {window.supernode * 1e3:.2f}" if window.supernode else ""
    return f"{window.proxy * 1e3:.2f}{supernode} ms ({percentile(times, 0.5):.1f}, {percentile(times, 0.99):.1f} ms)"


def _ask(place: Site, name: str, address: tuple[str, int], count: int, cost: Callable[[], float]) -> _Run:
    """Asks for that many URLs, one after the other; stops when the time is over."""
    run = _Run(0, 0.0, [])
    began = time.monotonic()
    with _connection(place, address) as connection:
        while run.asked < count and time.monotonic() - began < PATIENCE:
            window = _Window(run.asked)
            before = (cost(), processes.usage(place.supernode).cpu)
            for _ in range(WINDOW):
                url = place.url(place.alias(name))
                asked = time.monotonic()
                if connection.get(url) != SIZE:
                    raise BenchError(f"{url} has not {SIZE} bytes")
                window.times.append(time.monotonic() - asked)
            after = (cost(), processes.usage(place.supernode).cpu)
            window.proxy, window.supernode = ((then - now) / WINDOW for then, now in zip(after, before))
            run.asked += WINDOW
            run.windows.append(window)
    run.seconds = time.monotonic() - began
    return run


@contextlib.contextmanager
def _connection(place: Site, address: tuple[str, int]) -> Iterator[KeptConnection]:
    with contextlib.closing(KeptConnection(place.namespace, address)) as connection:
        yield connection
