"""Fetching through sockets and programs inside a namespace, timed, and all of it read."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Sequence

from lib import processes
from lib.meter import Outcome, ReaderSpec
from lib.readers import lanes
from lib.system import BenchError, inside
from lib.units import KIB

_LEAD = 0.3


@dataclass(frozen=True)
class Finished:
    """A program that has run to its end."""

    seconds: float
    usage: processes.Usage


def run_timed(argv: Sequence[str], namespace: str, log: Path, timeout: float = 120.0) -> Finished:
    """Runs a program with /dev/null as its output, from its start to its exit, and says what it cost."""
    began = time.monotonic()
    program = processes.start(argv, namespace=namespace, log=log)
    try:
        seconds = _await_exit(program, began, timeout)
        ended = processes.usage(program.pid)
        _, status, resources = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
    finally:
        processes.stop(program)
    if program.returncode != 0:
        raise BenchError(f"{argv[0]}: exit status {program.returncode}: {processes.tail(log, 3)}")
    return Finished(seconds, replace(ended, cpu=resources.ru_utime + resources.ru_stime))


def _await_exit(program: subprocess.Popen[bytes], began: float, timeout: float) -> float:
    """Seconds until the program is a zombie, which still has its io counters."""
    while os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() - began > timeout:
            raise BenchError(f"{program.args!r} was not done after {timeout:.0f} s")
        time.sleep(0.001)
    return time.monotonic() - began


def read_together(spec: ReaderSpec, count: int, timeout: float = 120.0) -> list[Outcome]:
    """`count` readers of the same thing that start at the same instant; each one checks every byte."""
    readers = [reader for _ in range(count) for reader in lanes([spec], 1)]
    try:
        start = time.monotonic() + _LEAD
        for reader in readers:
            reader.start(start, start + timeout)
        waiting = {reader.pipe: reader for reader in readers}
        while waiting:
            ready = wait(list(waiting), max(0.0, start + timeout + _LEAD - time.monotonic()))
            if not ready:
                raise BenchError(f"{len(waiting)} of {count} readers were not done after {timeout:.0f} s")
            for pipe in ready:
                reader = waiting[pipe]  # type: ignore[index]
                reader.receive()
                if reader.done:
                    del waiting[pipe]  # type: ignore[arg-type]
        outcomes = [reader.outcomes.get(0, Outcome(error="the reader process died")) for reader in readers]
    finally:
        for reader in readers:
            reader.close()
    for outcome in outcomes:
        if not outcome.complete:
            wrong = f"wrong byte from {outcome.wrong_at} on" if outcome.wrong_at is not None else outcome.error
            raise BenchError(f"{spec.url}: {wrong}")
    return outcomes


def first_byte(namespace: str, address: tuple[str, int], url: str, timeout: float = 60.0) -> float:
    """Seconds from connect to the first byte of the body; the rest is read as well, and must be whole."""
    host = url.split("/")[2]
    request = f"GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    buffer = bytearray(256 * KIB)
    with inside(namespace):
        connection = socket.socket()
    with connection:
        connection.settimeout(timeout)
        began = time.monotonic()
        connection.connect(address)
        connection.sendall(request)
        head = b""
        while b"\r\n\r\n" not in head or head.endswith(b"\r\n\r\n"):
            block = connection.recv(64 * KIB)
            if not block:
                raise BenchError(f"{url}: ended before the body: {head[:60]!r}")
            head += block
        seconds = time.monotonic() - began
        text, _, body = head.partition(b"\r\n\r\n")
        received = len(body)
        while count := connection.recv_into(buffer):
            received += count
    if not text.startswith(b"HTTP/1.1 200"):
        raise BenchError(f"{url}: {text.splitlines()[0]!r}")
    if f"content-length: {received}".encode() not in text.lower():
        raise BenchError(f"{url}: {received} bytes, which is not the length it was announced with")
    return seconds


class KeptConnection:
    """A connection that is kept, on which one URL after the other is asked for: the least a client can do."""

    def __init__(self, namespace: str, address: tuple[str, int], timeout: float = 60.0) -> None:
        with inside(namespace):
            self._connection = socket.socket()
        self._connection.settimeout(timeout)
        self._connection.connect(address)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, url: str) -> int:
        """Reads an answer to its end; the bytes of its body."""
        host = url.split("/")[2]
        self._connection.sendall(f"GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = self._connection.recv(64 * KIB)
        while b"\r\n\r\n" not in answer:
            answer += self._more(url)
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        lengths = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
        if not head.startswith(b"HTTP/1.1 200") or not lengths:
            raise BenchError(f"{url}: {head[:80]!r}")
        received = len(body)
        while received < lengths[0]:
            received += len(self._more(url))
        return received

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _more(self, url: str) -> bytes:
        block = self._connection.recv(64 * KIB)
        if not block:
            raise BenchError(f"{url}: the answer ended too early")
        return block


def warm(namespace: str, proxy: tuple[str, int], url: str) -> None:
    """Fetches a URL through a proxy once and throws it away."""
    first_byte(namespace, proxy, url)


def allow_many_files() -> None:
    """Raises the soft limit of open files to the hard one, for thousands of connections here and in what is started."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
