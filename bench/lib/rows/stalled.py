"""Row i: what others get, and when /healthz answers, beside clients that stop reading."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

from lib import processes
from lib.fetch import allow_many_files
from lib.site import Bench, Row, Site, site
from lib.system import BenchError, inside
from lib.units import GIB, KIB, MIB, largest, median, number, parse_size, percentile

SECONDS = 8.0  # of each half of a pair
OTHER = 16 * MIB  # each content that others read; nobody has it yet
_RECEIVE_BUFFER = 4 * KIB
_HEALTH_PAUSE = 0.02
_TIMEOUT = 60.0
_STILL = 1.0  # clients for whom the kernel has taken next to nothing more in so long have stopped
_STILL_BYTES = MIB
_SLACK = 32 * MIB


@dataclass(frozen=True)
class Case:
    """Clients that stop reading one content, each at a place of its own, and the daemon they ask."""

    clients: int
    memory: str
    size: int
    why: str


CASES = (
    Case(40, "32MiB", 48 * MIB, "pieces of 1 MiB"),
    Case(128, "512MiB", 4 * GIB, "pieces of 4 MiB"),
    # From this memory on there may be 4,096 connections, of which some are left for the others and for /healthz.
    Case(4000, "1GiB", 48 * MIB, "of 4,096 connections"),
)


@dataclass(frozen=True)
class _Half:
    """What the others saw in some seconds."""

    seconds: float
    received: int
    gap: float
    health: list[float]

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.received / self.seconds


class _Others:
    """One reader of content after content on one connection, and one that asks for /healthz over and over."""

    def __init__(self, place: Site, proxy: tuple[str, int], source: str) -> None:
        self._place = place
        self._proxy = proxy
        self._source = source
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._failure: str | None = None
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in (self._read, self._ask)]

    def __enter__(self) -> "_Others":
        self._last = time.monotonic()
        self._begin(self._last)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def take(self) -> _Half:
        """What they have seen since they began, or since this was last asked."""
        with self._lock:
            if self._failure:
                raise BenchError(self._failure)
            now = time.monotonic()
            gap = max(self._gap, now - max(self._last, self._began))
            half = _Half(now - self._began, self._received, gap, self._health)
            self._begin(now)
        return half

    def _begin(self, now: float) -> None:
        self._began = now
        self._received = 0
        self._gap = 0.0
        self._health: list[float] = []

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, http.client.HTTPException, BenchError) as error:
            self._failure = f"others: {error!r}"

    def _read(self) -> None:
        buffer = bytearray(256 * KIB)
        with inside(self._place.namespace):
            connection = http.client.HTTPConnection(*self._proxy, timeout=_TIMEOUT)
            connection.connect()
        with contextlib.closing(connection):
            while not self._stop.is_set():
                url = self._place.url(self._place.alias(self._source))
                connection.request("GET", url)
                answer = connection.getresponse()
                if answer.status != 200:
                    raise BenchError(f"{url}: {answer.status}")
                left = OTHER
                while left and not self._stop.is_set():
                    count = answer.readinto(buffer)
                    if not count:
                        raise BenchError(f"{url}: ended {left} bytes too early")
                    self._took(count)
                    left -= count

    def _took(self, count: int) -> None:
        now = time.monotonic()
        with self._lock:
            self._gap = max(self._gap, now - self._last)
            self._last = now
            self._received += count

    def _ask(self) -> None:
        while not self._stop.wait(_HEALTH_PAUSE):
            with inside(self._place.namespace):
                connection = http.client.HTTPConnection(*self._proxy, timeout=_TIMEOUT)
                began = time.monotonic()
                connection.connect()
            with contextlib.closing(connection):
                connection.request("GET", "/healthz")
                status = connection.getresponse().status
            with self._lock:
                self._health.append(time.monotonic() - began)
            if status != 200:
                raise BenchError(f"/healthz: {status}")


@contextlib.contextmanager
def _stopped(place: Site, proxy: tuple[str, int], url: str, case: Case) -> Iterator[None]:
    """Clients that ask for what follows a place of their own and read nothing of it. The block begins when their
    sockets are full."""
    step = max(1, case.size // case.clients // MIB) * MIB
    host = url.split("/")[2]
    ports = set()
    with contextlib.ExitStack() as stack:
        for index in range(case.clients):
            with inside(place.namespace):
                client = stack.enter_context(socket.socket())
            client.settimeout(_TIMEOUT)
            # So that what the client does not take waits on the daemon's side.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            client.connect(proxy)
            ports.add(client.getsockname()[1])
            first = index * step % case.size
            client.sendall(f"GET {url} HTTP/1.1\r\nHost: {host}\r\nRange: bytes={first}-\r\n\r\n".encode())
        _await_still(place, ports)
        yield


def _await_still(place: Site, ports: set[int]) -> None:
    """Waits until the kernel takes no more for these clients."""
    deadline = time.monotonic() + _TIMEOUT
    queued = -_STILL_BYTES - 1
    while (now_queued := _queued(place, ports)) > queued + _STILL_BYTES:
        if time.monotonic() > deadline:
            raise BenchError(f"{len(ports)} clients had not stopped after {_TIMEOUT:.0f} s")
        queued = now_queued
        time.sleep(_STILL)


def _queued(place: Site, ports: set[int]) -> int:
    """Bytes that the kernel holds on the way to these clients."""
    with inside(place.namespace):
        lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    to_clients = (row for row in rows if int(row[2].rpartition(":")[2], 16) in ports)
    return sum(int(row[4].partition(":")[0], 16) for row in to_clients)


def measure(bench: Bench) -> list[Row]:
    """One row for each case."""
    allow_many_files()
    return [_measure(bench, case) for case in CASES]


def _measure(bench: Bench, case: Case) -> Row:
    alone: list[_Half] = []
    coming: list[_Half] = []
    beside: list[_Half] = []
    peaks: list[int] = []
    with site(bench) as place:
        source = place.content(OTHER)
        # What is in a hole costs nobody memory; nobody reads these bytes.
        stopped = place.sparse(case.size)
        for _ in range(bench.repeat):
            with place.daemon(case.memory) as daemon, _Others(place, daemon.proxy, source) as others:
                time.sleep(SECONDS)
                alone.append(others.take())
                with _stopped(place, daemon.proxy, stopped, case):
                    coming.append(others.take())
                    time.sleep(SECONDS)
                    beside.append(others.take())
                    peaks.append(processes.peak_rss(daemon.pid) or 0)
    ratios = [with_.rate / without.rate for with_, without in zip(beside, alone)]
    over = max(peaks) - parse_size(case.memory) * 1.1 - _SLACK
    return Row(
        "i",
        f"others beside {case.clients:,} clients that have stopped reading ({case.why}), --memory {case.memory}: "
        f"rate ÷ alone, longest gap, /healthz",
        f"alone {_figures(alone)}",
        "≥ 0.9; /healthz ≤ 100 ms",
        f"{number(median(ratios))}, worst {number(min(ratios))} of {len(ratios)} ({_figures(beside)}); while they come and "
        f"fill their sockets, {number(median(half.seconds for half in coming), 1)} s: {_figures(coming)}; "
        f"VmHWM {max(peaks) / MIB:.0f} MiB ({'OVER by' if over > 0 else 'within by'} {abs(over) / MIB:.0f})",
    )


def _figures(halves: list[_Half]) -> str:
    health = [seconds * 1e3 for half in halves for seconds in half.health]
    return (
        f"{number((median(half.rate for half in halves) or 0) / MIB, 0)} MiB/s, "
        f"gap {number((largest(half.gap for half in halves) or 0) * 1e3, 0)} ms, "
        f"/healthz {number(median(health), 1)} ms, p99 {number(percentile(health, 0.99), 1)}, "
        f"worst {number(max(health), 1)}"
    )
