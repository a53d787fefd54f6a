"""Row e: eight readers ask one node at once for what nobody has yet."""

from __future__ import annotations

from dataclasses import dataclass

from lib.fetch import read_together
from lib.meter import ReaderSpec
from lib.site import CACHE_PORT, Bench, Row, Site, site
from lib.units import MIB, largest, median, number

SIZE = 256 * MIB
CLIENTS = 8


@dataclass(frozen=True)
class _Cold:
    """The slowest of the readers, and what the origin sent for all of them."""

    last: float
    first: float
    origin: float
    requests: int


def measure(bench: Bench) -> list[Row]:
    """Once behind a limited link, where the origin is what limits, and once unshaped, where the processors are."""
    return [_measure(bench, bench.rate), _measure(bench, 0.0)]


def _measure(bench: Bench, rate: float) -> Row:
    straight: list[_Cold] = []
    ours: list[_Cold] = []
    theirs: list[_Cold] = []
    with site(bench, rate) as place, place.daemon("1GiB") as daemon, place.cache():
        name = place.content(SIZE)
        for _ in range(bench.repeat):
            straight.append(_read(place, name, place.origin_at, 1))
            ours.append(_read(place, name, daemon.proxy, CLIENTS))
            theirs.append(_read(place, name, ("127.0.0.1", CACHE_PORT), CLIENTS))
    link = f"origin's link {rate:g} Mbit/s" if rate else "unshaped"
    return Row(
        "e",
        f"eight cold clients of one node, 256 MiB, {link}: "
        "last one ÷ one client straight; first byte (straight); origin ÷ S",
        f"nginx cache lock {_figures(theirs, straight)}",
        "≤ 1.5; ≤ one piece; 1.00",
        _figures(ours, straight),
    )


def _figures(runs: list[_Cold], straight: list[_Cold]) -> str:
    ratio = median(run.last / alone.last for run, alone in zip(runs, straight))
    first = median(run.first for run in runs) or 0.0
    alone = median(run.first for run in straight) or 0.0
    requests = median(run.requests for run in runs) or 0
    return (
        f"{number(ratio)}; {first * 1e3:.1f} ms ({alone * 1e3:.1f}); "
        f"{number(median(run.origin for run in runs))} in {requests:.0f} requests"
    )


def _read(place: Site, name: str, address: tuple[str, int], clients: int) -> _Cold:
    cold = place.alias(name)
    spec = ReaderSpec(
        place.namespace, place.files / name, place.log("reader"), proxy=address, url=place.url(cold)
    )
    outcomes = read_together(spec, clients)
    served = place.origin.served(f"/{cold}")
    return _Cold(
        largest(outcome.last_byte for outcome in outcomes) or 0.0,
        largest(outcome.first_byte for outcome in outcomes) or 0.0,
        served.body_bytes / SIZE,
        served.requests,
    )
