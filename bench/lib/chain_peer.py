"""A naive relay: takes the content from the one before it and hands each block on as it arrives.

No pieces, no checks, no way round a dead neighbour: the bound that a swarm with all of these is measured against.
"""

from __future__ import annotations

import argparse
import os
import socket
import threading
import time
from urllib.parse import urlsplit

BLOCK = 256 * 1024
CONNECT_SECONDS = 10.0


class Relay:
    """The bytes so far, and the word that there are more."""

    def __init__(self, size: int) -> None:
        self._bytes = bytearray(size)
        self._length = 0
        self._more = threading.Condition()

    def fill(self, upstream: socket.socket) -> None:
        """Takes everything from the one before, and gives it to this host's reader as well."""
        view = memoryview(self._bytes)
        while self._length < len(view):
            count = upstream.recv_into(view[self._length : self._length + BLOCK])
            if count == 0:
                raise ConnectionError(f"the one before ended after {self._length} bytes")
            with self._more:
                start, self._length = self._length, self._length + count
                self._more.notify_all()
            _write_all(view[start : self._length])

    def feed(self, child: socket.socket) -> None:
        """Sends everything to the next one, as it comes."""
        view, sent = memoryview(self._bytes), 0
        while sent < len(view):
            with self._more:
                self._more.wait_for(lambda: self._length > sent)
                end = self._length
            child.sendall(view[sent:end])
            sent = end


def _write_all(block: memoryview) -> None:
    while block:
        block = block[os.write(1, block) :]


def _connect(address: tuple[str, int]) -> socket.socket:
    """Connects to the one before, which may not listen yet."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return socket.create_connection(address, timeout=CONNECT_SECONDS)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _ask_origin(url: str) -> socket.socket:
    """A connection to the origin with the response's head taken off."""
    parts = urlsplit(url)
    connection = _connect((parts.hostname or "", parts.port or 80))
    connection.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    return connection


def main() -> None:
    """Runs one link of the chain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("upstream", help="URL of the origin, or HOST:PORT of the one before")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--listen", required=True, help="HOST:PORT for the next one")
    parser.add_argument("--last", action="store_true", help="there is no next one")
    args = parser.parse_args()
    relay = Relay(args.size)
    host, _, port = args.listen.partition(":")
    feeder = None
    if not args.last:
        server = socket.create_server((host, int(port)))
        feeder = threading.Thread(target=lambda: relay.feed(server.accept()[0]), daemon=True)
        feeder.start()
    if args.upstream.startswith("http://"):
        upstream = _ask_origin(args.upstream)
    else:
        before, _, its_port = args.upstream.partition(":")
        upstream = _connect((before, int(its_port)))
    with upstream:
        relay.fill(upstream)
    os.close(1)
    if feeder:
        feeder.join()


if __name__ == "__main__":
    main()
