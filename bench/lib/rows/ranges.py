"""Row h: small random ranges of content that is in memory."""

from __future__ import annotations

from lib import load
from lib.fetch import warm
from lib.site import Bench, Row, site
from lib.units import KIB, MIB, median, number

SIZE = 256 * MIB
LENGTH = 4 * KIB
CLIENTS = 64
SECONDS = 4


def measure(bench: Bench) -> list[Row]:
    """wrk against the proxy and against nginx with the file in the page cache, by turns."""
    ours: list[load.Load] = []
    theirs: list[load.Load] = []
    with site(bench) as place, place.daemon("512MiB") as daemon:
        name = place.content(SIZE)
        warm(place.namespace, daemon.proxy, place.url(name))
        host = "%s:%d" % place.origin_at
        through_proxy = load.ranges(place.url(name), SIZE, LENGTH, bench.seed)
        straight = load.ranges(f"/{name}", SIZE, LENGTH, bench.seed)
        for _ in range(bench.repeat):
            theirs.append(load.wrk(place.namespace, place.origin_at, host, straight, place.directory, CLIENTS, SECONDS))
            ours.append(load.wrk(place.namespace, daemon.proxy, host, through_proxy, place.directory, CLIENTS, SECONDS))
    ratio = median(our.p99_ms / their.p99_ms for our, their in zip(ours, theirs))
    return [
        Row(
            "h",
            "4 KiB random ranges over content in memory, 64 clients: p99 ÷ nginx",
            f"nginx {_figures(theirs)}",
            "≤ 2",
            f"{number(ratio)} ({_figures(ours)})",
        )
    ]


def _figures(runs: list[load.Load]) -> str:
    return (
        f"p50 {number(median(run.p50_ms for run in runs))} ms, p99 {number(median(run.p99_ms for run in runs))} ms, "
        f"{number(median(run.requests_per_second for run in runs), 0)}/s"
    )
