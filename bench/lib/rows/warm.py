"""Row d: objects that are in memory already, through the proxy, beside nginx's proxy_cache from the page cache."""

from __future__ import annotations

from lib import load
from lib.fetch import warm
from lib.site import CACHE_PORT, Bench, Row, site
from lib.units import MIB, median, number

OBJECTS = 64
CLIENTS = 64
SECONDS = 4


def measure(bench: Bench) -> list[Row]:
    """wrk against both by turns, each with everything in memory."""
    ours: list[load.Load] = []
    theirs: list[load.Load] = []
    with site(bench) as place, place.daemon("512MiB") as daemon, place.cache():
        first = place.content(MIB)
        names = [first, *(place.alias(first) for _ in range(OBJECTS - 1))]
        host = "%s:%d" % place.origin_at
        cache = ("127.0.0.1", CACHE_PORT)
        for name in names:
            warm(place.namespace, daemon.proxy, place.url(name))
            warm(place.namespace, cache, place.url(name))
        through_proxy = load.objects(f"http://{host}/", names, bench.seed)
        from_cache = load.objects("/", names, bench.seed)
        before = place.origin.served()
        for _ in range(bench.repeat):
            theirs.append(load.wrk(place.namespace, cache, host, from_cache, place.directory, CLIENTS, SECONDS))
            ours.append(load.wrk(place.namespace, daemon.proxy, host, through_proxy, place.directory, CLIENTS, SECONDS))
        asked = place.origin.served().requests - before.requests
    ratio = median(o.requests_per_second / t.requests_per_second for o, t in zip(ours, theirs))
    speeds = [median(run.bytes_per_second for run in runs) or 0.0 for runs in (theirs, ours)]
    return [
        Row(
            "d",
            "warm hit through the proxy, 1 MiB objects, 64 clients, ÷ nginx proxy_cache",
            f"nginx {speeds[0] / MIB:.0f} MiB/s, p99 {number(median(run.p99_ms for run in theirs), 0)} ms",
            "≥ 1.0",
            f"{number(ratio)} ({speeds[1] / MIB:.0f} MiB/s, p99 {number(median(run.p99_ms for run in ours), 0)} ms; "
            f"origin asked {asked} times)",
        )
    ]
