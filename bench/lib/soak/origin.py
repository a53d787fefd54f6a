"""An origin that is slow, cuts its answers short or is away, as told, and remembers when."""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from contextlib import closing
from dataclasses import dataclass

from lib.units import KIB, MIB

_POOL = 48 * MIB
_BLOCK = 64 * KIB
_HEAD = 16 * KIB
_RANGE = re.compile(rb"^range:\s*bytes=(\d+)-(\d*)\s*$", re.IGNORECASE | re.MULTILINE)
_TAG = re.compile(rb'^if-none-match:\s*(".*?")\s*$', re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Content:
    """A file of the origin. Its bytes are a part of one pool, so that hundreds of them cost no memory."""

    path: str
    size: int
    bytes: memoryview

    @property
    def tag(self) -> str:
        """Its strong entity tag."""
        return f'"{self.path[1:]}"'


def contents(count: int, seed: int) -> list[Content]:
    """Files of 200 KiB to 24 MiB, the same for the same seed."""
    dice = random.Random(seed)
    pool = memoryview(dice.randbytes(_POOL))
    files = []
    for number in range(count):
        size = int(200 * KIB * (24 * MIB / (200 * KIB)) ** dice.random())
        start = dice.randrange(_POOL - size)
        files.append(Content(f"/{number}.bin", size, pool[start : start + size]))
    return files


class Times:
    """Stretches of time in which something was so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stretches: list[tuple[float, float | None]] = []

    def begin(self) -> None:
        """From now on."""
        with self._lock:
            self._stretches.append((time.monotonic(), None))

    def end(self) -> None:
        """Until now."""
        with self._lock:
            begun, _ = self._stretches.pop()
            self._stretches.append((begun, time.monotonic()))

    def within(self, since: float, until: float) -> float:
        """Seconds of a stretch of time in which it was so."""
        with self._lock:
            return sum(
                max(0.0, min(until, end if end is not None else until) - max(since, begun))
                for begun, end in self._stretches
            )


class Origin:
    """Serves files on loopback: whole, in ranges, and 304 to who has them."""

    def __init__(self, files: list[Content]) -> None:
        self._files = {content.path: content for content in files}
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._dice = random.Random()
        self.rate: float | None = None  # bytes a second and connection
        self.cuts = False  # ends each answer somewhere in the middle
        self.bad = Times()  # when it was away, or cut its answers short
        self.sent = 0
        self.requests = 0
        self._listener = _listen(0)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def url(self, content: Content) -> str:
        """Where a file is."""
        return f"http://127.0.0.1:{self.port}{content.path}"

    def go_away(self) -> None:
        """Nobody answers at its port any more."""
        self.bad.begin()
        # Closing alone would leave the accepting thread in its system call.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _end(connection)

    def come_back(self) -> None:
        """Serves again."""
        self._listener = _listen(self.port)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        self.bad.end()

    def flap(self, on: bool) -> None:
        """Cuts all answers short, or no longer."""
        self.cuts = on
        self.bad.begin() if on else self.bad.end()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
        with closing(connection):
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while self._answer(connection):
                    pass
            except OSError:
                pass  # The other side has gone, or this origin has.
        with self._lock:
            self._open.discard(connection)

    def _answer(self, connection: socket.socket) -> bool:
        """Answers one request; whether the connection can take another."""
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(_HEAD)
            if not more:
                return False
            head += more
        method, target, _ = head.split(b" ", 2)
        with self._lock:
            self.requests += 1
        content = self._files.get(target.decode())
        if content is None:
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return True
        tag = _TAG.search(head)
        common = f"ETag: {content.tag}\r\nCache-Control: max-age=20\r\nAccept-Ranges: bytes\r\n"
        if tag and tag[1].decode() == content.tag:
            connection.sendall(f"HTTP/1.1 304 Not Modified\r\n{common}\r\n".encode())
            return True
        wanted = _RANGE.search(head)
        start, end, line = 0, content.size, "200 OK"
        if wanted:
            start = int(wanted[1])
            end = min(end, int(wanted[2]) + 1) if wanted[2] else end
            line = "206 Partial Content"
            common += f"Content-Range: bytes {start}-{end - 1}/{content.size}\r\n"
        connection.sendall(f"HTTP/1.1 {line}\r\n{common}Content-Length: {end - start}\r\n\r\n".encode())
        return method == b"HEAD" or self._send(connection, content.bytes[start:end])

    def _send(self, connection: socket.socket, body: memoryview) -> bool:
        stop = len(body)
        if self.cuts:
            stop = self._dice.randrange(min(stop, 2 * MIB) + 1)
        at = 0
        while at < stop:
            block = body[at : min(at + _BLOCK, stop)]
            connection.sendall(block)
            at += len(block)
            with self._lock:
                self.sent += len(block)
            if self.rate:
                time.sleep(len(block) / self.rate)
        return stop == len(body)


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(256)
    return listener


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # It has ended already.
