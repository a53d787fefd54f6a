"""Row h: small random ranges of content that is in memory."""

from __future__ import annotations

from lib import load
from lib.fetch import warm
from lib.pantala import Daemon
from lib.site import Bench, Row, Site, site
from lib.units import KIB, MIB, median, number

SIZE = 1024 * MIB
LENGTHS = (4 * KIB, 64 * KIB, MIB)
CLIENTS = 64
SECONDS = 4


def measure(bench: Bench) -> list[Row]:
    """wrk against the proxy and against nginx with the file in the page cache, by turns."""
    with site(bench) as place, place.daemon("1536MiB") as daemon:
        name = place.content(SIZE)
        warm(place.namespace, daemon.proxy, place.url(name))
        return [_measure(bench, place, daemon, name, length) for length in LENGTHS]


def _measure(bench: Bench, place: Site, daemon: Daemon, name: str, length: int) -> Row:
    ours: list[load.Load] = []
    theirs: list[load.Load] = []
    host = "%s:%d" % place.origin_at
    through_proxy = load.ranges(place.url(name), SIZE, length, bench.seed)
    straight = load.ranges(f"/{name}", SIZE, length, bench.seed)
    for _ in range(bench.repeat):
        theirs.append(load.wrk(place.namespace, place.origin_at, host, straight, place.directory, CLIENTS, SECONDS))
        ours.append(load.wrk(place.namespace, daemon.proxy, host, through_proxy, place.directory, CLIENTS, SECONDS))
    ratio = median(our.p99_ms / their.p99_ms for our, their in zip(ours, theirs))
    rate = median(our.requests_per_second / their.requests_per_second for our, their in zip(ours, theirs))
    return Row(
        "h",
        f"{length // KIB} KiB random ranges over 1 GiB in memory, 64 clients: p99 ÷ nginx, requests/s ÷ nginx",
        f"nginx {_figures(theirs)}",
        "≤ 2 (4 KiB)" if length == LENGTHS[0] else "",
        f"{number(ratio)}, {number(rate)} ({_figures(ours)})",
    )


def _figures(runs: list[load.Load]) -> str:
    return (
        f"p50 {number(median(run.p50_ms for run in runs))} ms, p99 {number(median(run.p99_ms for run in runs))} ms, "
        f"{number(median(run.requests_per_second for run in runs), 0)}/s"
    )
