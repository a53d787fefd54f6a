"""A naive relay: takes the content from the one before it and hands each block on as it arrives.

No pieces, no checks, no way round a dead neighbour: the bound that a swarm with all of these is measured against.
Few imports, because the interpreter's start counts.

chain_peer.py UPSTREAM-HOST:PORT SIZE LISTEN-HOST:PORT [PATH at the origin] -- an empty LISTEN is the chain's end.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

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


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    return host, int(port)


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


def _ask_origin(connection: socket.socket, host: str, path: str) -> None:
    """Sends the request and takes the response's head off the connection."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)


def main(upstream: str, size: str, listen: str, path: str = "") -> None:
    """Runs one link of the chain."""
    relay = Relay(int(size))
    feeder = None
    if listen:
        server = socket.create_server(_address(listen))
        feeder = threading.Thread(target=lambda: relay.feed(server.accept()[0]), daemon=True)
        feeder.start()
    with _connect(_address(upstream)) as connection:
        if path:
            _ask_origin(connection, upstream, path)
        relay.fill(connection)
    os.close(1)
    if feeder:
        feeder.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
