"""Row g: a thousand slow readers of one daemon, whose memory is far less than a piece for each."""

from __future__ import annotations

import contextlib
import ctypes
import selectors
import socket
import time
from dataclasses import dataclass

from lib import processes
from lib.content import Truth
from lib.fetch import allow_many_files
from lib.site import Bench, Row, Site, site
from lib.system import BenchError, inside
from lib.units import KIB, MIB, median, parse_size

STREAMS = 1000
MEMORY = "512MiB"
SIZE = 16 * MIB
PACE = 64 * KIB  # bytes per second that each reader takes
SECONDS = 20.0
_BLOCK = 16 * KIB
_RECEIVE_BUFFER = 64 * KIB
_STARVED = 10.0  # a reader that gets nothing for so long is starved
_SLACK = 32 * MIB


@dataclass
class _Stream:
    """One reader."""

    connection: socket.socket
    due: float
    head: bytes = b""
    started: bool = False
    position: int = 0
    last: float = 0.0
    gap: float = 0.0
    failed: str = ""


class _Crowd:
    """All the readers, in one loop: each takes a block when its pace allows one, and checks it."""

    def __init__(self, place: Site, proxy: tuple[str, int], urls: list[str], truth: Truth) -> None:
        self._truth = truth
        self._buffer = ctypes.create_string_buffer(_BLOCK)
        self._view = memoryview(self._buffer).cast("B")
        self._selector = selectors.DefaultSelector()
        self._paused: list[_Stream] = []
        self.streams = [self._open(place, proxy, url) for url in urls]

    def _open(self, place: Site, proxy: tuple[str, int], url: str) -> _Stream:
        with inside(place.namespace):
            connection = socket.socket()
        connection.settimeout(30.0)
        # Small, so that what a slow reader has not taken waits in the daemon and not in this side's kernel.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        connection.connect(proxy)
        host = url.split("/")[2]
        connection.sendall(f"GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        connection.setblocking(False)
        stream = _Stream(connection, due=0.0, last=time.monotonic())
        self._selector.register(connection, selectors.EVENT_READ, stream)
        return stream

    def run(self, seconds: float) -> None:
        """Reads for so long, or until all have ended."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end and (self._selector.get_map() or self._paused):
            self._wake(now)
            for key, _ in self._selector.select(0.01):
                self._step(key.data, time.monotonic())
        for stream in self.streams:
            stream.gap = max(stream.gap, 0.0 if stream.position == self._truth.size else end - stream.last)

    def _wake(self, now: float) -> None:
        """Readers whose pace allows the next block listen again."""
        late = []
        for stream in self._paused:
            if stream.due <= now:
                self._selector.register(stream.connection, selectors.EVENT_READ, stream)
            else:
                late.append(stream)
        self._paused = late

    def _step(self, stream: _Stream, now: float) -> None:
        try:
            if not stream.started:
                self._head(stream)
                return
            count = stream.connection.recv_into(self._view)
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(stream, str(error))
            return
        if count == 0:
            self._drop(stream, f"ended after {stream.position} bytes")
        elif not self._truth.same(ctypes.addressof(self._buffer), stream.position, count):
            self._drop(stream, f"wrong bytes from {stream.position} on")
        else:
            self._took(stream, count, now)

    def _head(self, stream: _Stream) -> None:
        """Takes the response's head, which is only looked at so far as to leave the body in the socket."""
        peeked = stream.connection.recv(4 * KIB, socket.MSG_PEEK)
        end = peeked.find(b"\r\n\r\n")
        if peeked and end < 0:
            return
        stream.head = stream.connection.recv(end + 4) if peeked else b""
        stream.started = stream.head.startswith(b"HTTP/1.1 200")
        if not stream.started:
            self._drop(stream, f"answered {stream.head[:40]!r}")

    def _took(self, stream: _Stream, count: int, now: float) -> None:
        # The wait for one's own pace is no gap.
        stream.gap = max(stream.gap, now - max(stream.last, stream.due))
        stream.position += count
        stream.last = now
        stream.due = now + count / PACE
        self._selector.unregister(stream.connection)
        if stream.position < self._truth.size:
            self._paused.append(stream)

    def _drop(self, stream: _Stream, why: str) -> None:
        stream.failed = why
        self._selector.unregister(stream.connection)

    def close(self) -> None:
        """Closes every connection."""
        self._selector.close()
        for stream in self.streams:
            stream.connection.close()


def measure(bench: Bench) -> list[Row]:
    """Once everybody reads something of his own, once all read the same."""
    allow_many_files()
    return [_measure(bench, distinct=True), _measure(bench, distinct=False)]


def _measure(bench: Bench, distinct: bool) -> Row:
    with site(bench) as place, place.daemon(MEMORY) as daemon:
        name = place.content(SIZE)
        names = [place.alias(name) for _ in range(STREAMS)] if distinct else [name] * STREAMS
        crowd = _Crowd(place, daemon.proxy, [place.url(each) for each in names], Truth(place.files / name))
        with contextlib.closing(crowd):
            crowd.run(SECONDS)
            peak = processes.peak_rss(daemon.pid)
    if peak is None:
        raise BenchError(f"dfdaemon died: {processes.tail(place.log('dfdaemon'))}")
    streams = crowd.streams
    failed = [stream.failed for stream in streams if stream.failed]
    starved = sum(1 for stream in streams if stream.gap > _STARVED and not stream.failed)
    progressed = sum(1 for stream in streams if stream.position > 0)
    over = peak - parse_size(MEMORY) * 1.1 - _SLACK
    shares = sorted(stream.position / (PACE * SECONDS) for stream in streams)
    why = f" (first: {failed[0]})" if failed else ""
    return Row(
        "g",
        f"{STREAMS} slow readers of {'distinct' if distinct else 'the same'} content, --memory {MEMORY}",
        f"each takes {PACE // KIB} KiB/s for {SECONDS:.0f} s",
        "1,000, none starved; VmHWM ≤ cap + 10 % + 32 MiB",
        f"{progressed} progress, {starved} starved (no byte for {_STARVED:.0f} s), {len(failed)} failed{why}; "
        f"share of the pace: least {shares[0]:.2f}, median {median(shares) or 0:.2f}; "
        f"longest gap {max(stream.gap for stream in streams):.1f} s; "
        f"VmHWM {peak / MIB:.0f} MiB ({'OVER by' if over > 0 else 'within by'} {abs(over) / MIB:.0f})",
    )
