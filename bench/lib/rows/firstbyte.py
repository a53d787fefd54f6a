"""Row f: how much later the first byte comes when the proxy has to fetch it."""

from __future__ import annotations

from lib.fetch import first_byte
from lib.site import CACHE_PORT, Bench, Row, Site, site
from lib.units import KIB, MIB, median, wire_seconds

SMALL, SMALL_COUNT = 4 * KIB, 100
LARGE, LARGE_COUNT = 64 * MIB, 5
_PIECE = MIB


def measure(bench: Bench) -> list[Row]:
    """Distinct URLs, so that each one is cold, asked straight, through the proxy and through nginx by turns."""
    rows = []
    with site(bench, bench.rate) as place, place.daemon("1GiB") as daemon, place.cache():
        piece = wire_seconds(_PIECE, bench.rate) * 1e3 if bench.rate else None
        for size, count, label in ((SMALL, SMALL_COUNT, "4 KiB"), (LARGE, LARGE_COUNT, "64 MiB")):
            ours, theirs, straight = _by_turns(place, daemon.proxy, size, count)
            whole = f"; a piece takes {piece:.1f} ms on this link" if piece and size > _PIECE else ""
            rows.append(
                Row(
                    "f",
                    f"cold first byte through the proxy − from the origin, {count} × {label}",
                    f"nginx cache {theirs - straight:+.2f} ms (origin itself {straight:.2f} ms)",
                    f"one round trip to the supernode + one piece{whole}",
                    f"{ours - straight:+.2f} ms",
                )
            )
    return rows


def _by_turns(place: Site, proxy: tuple[str, int], size: int, count: int) -> tuple[float, float, float]:
    """Median milliseconds: through the proxy, through nginx's cache, straight."""
    name = place.content(size)
    first_byte(place.namespace, proxy, place.url(place.alias(name)))  # a connection to the supernode may be new
    milliseconds: list[list[float]] = [[], [], []]
    for _ in range(count):
        for taken, address in zip(milliseconds, (proxy, ("127.0.0.1", CACHE_PORT), place.origin_at)):
            taken.append(first_byte(place.namespace, address, place.url(place.alias(name))) * 1e3)
    ours, theirs, straight = (median(taken) or 0.0 for taken in milliseconds)
    return ours, theirs, straight
