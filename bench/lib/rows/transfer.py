"""Rows a and b: one peer takes everything from one other peer's memory; how fast, and at what CPU cost."""

from __future__ import annotations

from dataclasses import dataclass

from lib import processes
from lib.fetch import read_together, run_timed, warm
from lib.meter import ReaderSpec
from lib.site import Bench, Row, Site, gigabytes, mib_per_second, site
from lib.system import BenchError
from lib.units import MIB, median, number

SIZE = 512 * MIB
_DFGET_PEER_PORT = 65003


@dataclass(frozen=True)
class _Transfer:
    """One transfer: seconds, and CPU seconds per GB on both sides."""

    seconds: float
    sender: float
    receiver: float


def measure(bench: Bench) -> list[Row]:
    """Interleaves curl from nginx with dfget from a daemon that has the content in memory."""
    ours: list[_Transfer] = []
    theirs: list[_Transfer] = []
    with site(bench) as place, place.daemon("1GiB") as daemon:
        name = place.content(SIZE)
        url = place.url(name)
        warm(place.namespace, daemon.proxy, url)
        dfget = bench.programs.dfget(url, "-", place.supernode_at, place.node_address, "256MiB", port=_DFGET_PEER_PORT)
        read_together(ReaderSpec(place.namespace, place.files / name, place.log("check"), argv=dfget), 1)
        for _ in range(bench.repeat):
            theirs.append(_curl(place, url))
            ours.append(_dfget(place, dfget, daemon.pid))
        served = place.origin.served(f"/{name}")
    again = served.body_bytes - SIZE * (1 + len(theirs))
    ratio = median(theirs_one.seconds / ours_one.seconds for theirs_one, ours_one in zip(theirs, ours))
    fastest = [median(run.seconds for run in runs) or 0.0 for runs in (ours, theirs)]
    return [
        Row(
            "a",
            "unshaped 1 → 1 over loopback, 512 MiB, each byte checked, ÷ curl from nginx",
            f"curl {mib_per_second(SIZE, fastest[1])}",
            "≥ 0.8",
            f"{number(ratio)} ({mib_per_second(SIZE, fastest[0])}; origin touched again for {again / SIZE:.3f} × S)",
        ),
        Row(
            "b",
            "CPU s per GB between two peers, checked: sender, receiver",
            f"nginx {_cost(theirs, 'sender')}, curl {_cost(theirs, 'receiver')}",
            "≤ 0.40, ≤ 0.60",
            f"{_cost(ours, 'sender')}, {_cost(ours, 'receiver')}",
        ),
    ]


def _cost(runs: list[_Transfer], side: str) -> str:
    return number(median(getattr(run, side) for run in runs))


def _curl(place: Site, url: str) -> _Transfer:
    before = place.origin.usage().cpu
    run = run_timed(["curl", "-sS", "-f", "-o", "/dev/null", url], place.namespace, place.log("curl"))
    sender = place.origin.usage().cpu - before
    return _Transfer(run.seconds, sender / gigabytes(SIZE), run.usage.cpu / gigabytes(SIZE))


def _dfget(place: Site, argv: list[str], daemon: int) -> _Transfer:
    before = processes.usage(daemon).cpu
    run = run_timed(argv, place.namespace, place.log("dfget"))
    sender = processes.usage(daemon).cpu - before
    if run.usage.disk_written > MIB:
        raise BenchError(f"dfget -o - wrote {run.usage.disk_written} bytes to a disk")
    return _Transfer(run.seconds, sender / gigabytes(SIZE), run.usage.cpu / gigabytes(SIZE))
