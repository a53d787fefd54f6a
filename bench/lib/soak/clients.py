"""Readers that check every byte and how long they waited for it, and clients that stop reading."""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field

from lib.soak.hosts import Host
from lib.soak.origin import Content, Origin
from lib.units import KIB

_READ = 256 * KIB
_TICK = 0.25
_STALLED_BUFFER = 16 * KIB


@dataclass
class Account:
    """What all readers saw."""

    grace: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    reads: int = 0
    bytes: int = 0
    excused: int = 0  # reads that failed with their own daemon, or with the origin
    longest: float = 0.0  # seconds without a byte that neither daemon nor origin explains
    violations: list[str] = field(default_factory=list)

    def violation(self, text: str) -> None:
        """Something that must not be."""
        with self.lock:
            self.violations.append(text)


class Broken(Exception):
    """A read that did not come to its end, and why."""


class Reader(threading.Thread):
    """Reads through one daemon, one file after the other, wholes and parts, until it is told to stop."""

    def __init__(self, host: Host, origin: Origin, files: list[Content], account: Account, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._host, self._origin, self._files = host, origin, files
        self._account, self._dice, self._over = account, random.Random(seed), stop

    def run(self) -> None:
        while not self._over.is_set():
            # A few are popular, so that readers meet.
            content = self._files[int(len(self._files) * self._dice.random() ** 2)]
            start, end = 0, content.size
            if self._dice.random() < 0.3:
                start = self._dice.randrange(content.size)
                end = start + 1 + self._dice.randrange(content.size - start)
            self._read(content, start, end)

    def _read(self, content: Content, start: int, end: int) -> None:
        account, begun = self._account, time.monotonic()
        what = f"{self._host.name}: {content.path} {start}-{end}"
        progress = _Progress(begun)
        try:
            with socket.create_connection(("127.0.0.1", self._host.port), timeout=5.0) as connection:
                connection.settimeout(_TICK)
                _ask(connection, self._origin.url(content), start, end)
                self._take(connection, content.bytes[start:end], progress, what)
        except (OSError, Broken) as error:
            self._judge_failure(what, begun, error)
        with account.lock:
            account.reads += 1
            account.bytes += progress.taken

    def _take(self, connection: socket.socket, truth: memoryview, progress: "_Progress", what: str) -> None:
        buffer = bytearray(_READ)
        view = memoryview(buffer)
        head = b""
        while progress.taken < len(truth):
            try:
                count = connection.recv_into(view)
            except TimeoutError:
                self._judge_silence(what, progress, over=False)
                continue
            self._judge_silence(what, progress, over=True)
            progress.last = time.monotonic()
            if count == 0:
                raise Broken(f"ended after {progress.taken} of {len(truth)} bytes {head[:200]!r}")
            got = view[:count]
            if not progress.headed:
                head += bytes(got)
                if b"\r\n\r\n" not in head:
                    continue
                first, _, rest = head.partition(b"\r\n\r\n")
                if first.split(b" ", 2)[1] not in (b"200", b"206"):
                    raise Broken(f"answered {head[:300]!r}")
                progress.headed, got = True, memoryview(rest)
            at = progress.taken
            if got != truth[at : at + len(got)]:
                self._account.violation(f"{what}: WRONG BYTES within {len(got)} from {at} on")
                raise Broken("wrong bytes")
            progress.taken += len(got)

    def _judge_silence(self, what: str, progress: "_Progress", *, over: bool) -> None:
        """How long it waited beyond what its own daemon and the origin were away."""
        now = time.monotonic()
        silent = now - progress.last
        if silent < self._account.grace / 4:
            return
        silent -= self._host.away.within(progress.last, now) + self._origin.bad.within(progress.last, now)
        with self._account.lock:
            self._account.longest = max(self._account.longest, silent)
        if silent > self._account.grace and (over or silent > 6 * self._account.grace):
            self._account.violation(f"{what}: no byte for {silent:.1f} s at {progress.taken}")
            if not over:
                raise Broken("given up")

    def _judge_failure(self, what: str, begun: float, error: Exception) -> None:
        """A read may fail with its own daemon, and with the origin."""
        if str(error) in ("wrong bytes", "given up"):
            return
        now = time.monotonic()
        # An answer that was decided while the origin was away may take its time.
        since = min(begun, now - self._account.grace)
        if self._host.away.within(since, now) > 0 or self._origin.bad.within(since, now) > 0:
            with self._account.lock:
                self._account.excused += 1
            time.sleep(0.2)
            return
        self._account.violation(f"{what}: {error}")


@dataclass
class _Progress:
    last: float
    taken: int = 0
    headed: bool = False


def stall(host: Host, url: str, seconds: float) -> None:
    """A client that takes the first bytes of an answer and no more, and goes away after a while."""
    try:
        with closing(socket.socket()) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _STALLED_BUFFER)
            connection.settimeout(5.0)
            connection.connect(("127.0.0.1", host.port))
            _ask(connection, url, 0, None)
            connection.recv(_STALLED_BUFFER)
            time.sleep(seconds)
    except OSError:
        pass  # Its daemon was killed, or lost patience with it.


def _ask(connection: socket.socket, url: str, start: int, end: int | None) -> None:
    part = f"Range: bytes={start}-{end - 1}\r\n" if end is not None else ""
    host = url.split("/")[2]
    connection.sendall(f"GET {url} HTTP/1.1\r\nHost: {host}\r\n{part}Connection: close\r\n\r\n".encode())
