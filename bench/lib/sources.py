"""The four kinds of sources that a reader reads a content from: a program's output, a proxy, a file that fills, a
program's own HTTP server."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import time
from pathlib import Path
from typing import Callable, Iterator, Protocol

from lib import processes
from lib.meter import READ, Meter, ReaderSpec
from lib.units import KIB

_PACED_READ = 16 * KIB
_FILE_TICK = 0.01
_RSS_TICK = 0.05
_EXIT_SECONDS = 30.0


def _drain(descriptor: int, meter: Meter, pace: float, limit: int | None, tick: Callable[[float], None]) -> None:
    """Reads to the end of the stream, or `limit` bytes, at most at `pace`."""
    began = time.monotonic()
    block = _PACED_READ if pace else READ
    taken = 0
    while limit is None or taken < limit:
        before = time.monotonic()
        count = os.readv(descriptor, [meter.view[: block if limit is None else min(block, limit - taken)]])
        now = time.monotonic()
        if count == 0:
            break
        meter.take(count, now - before, now)
        taken += count
        tick(now)
        if pace:
            time.sleep(max(0.0, began + taken / pace - time.monotonic()))
    meter.end(time.monotonic())


class _ProgramReader:
    """Reads a program's standard output."""

    def __init__(self, spec: ReaderSpec, meter: Meter, tell: Callable[[object], None]) -> None:
        own_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        program = processes.start(spec.argv, stdout=subprocess.PIPE, log=spec.log)
        tell(program.pid)
        assert program.stdout is not None
        self._peak = _PeakSampler(program.pid)
        _drain(program.stdout.fileno(), meter, spec.pace, None, self._peak.tick)
        self._usage = self._reap(program, own_peak)
        if program.returncode != 0 and meter.outcome.error is None:
            meter.outcome.error = f"exit status {program.returncode}: {processes.tail(spec.log, 3)}"

    def _reap(self, program: subprocess.Popen[bytes], own_peak: int) -> processes.Usage:
        """Cost of the ended program. Its io counters are read from the zombie, so that none of it is missed."""
        deadline = time.monotonic() + _EXIT_SECONDS
        while os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if time.monotonic() > deadline:
                program.kill()
            time.sleep(0.002)
        ended = processes.usage(program.pid)
        _, status, resources = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
        # A fork starts with the forker's resident size as its peak, so ru_maxrss says something only above that.
        exact = resources.ru_maxrss * KIB if resources.ru_maxrss > own_peak else None
        cpu = resources.ru_utime + resources.ru_stime
        return processes.Usage(cpu, exact or self._peak.seen, ended.disk_read, ended.disk_written)

    def finish(self) -> processes.Usage:
        return self._usage


class _PeakSampler:
    """Looks at VmHWM now and then: it is gone once the process is a zombie."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._next = 0.0
        self.seen: int | None = None

    def tick(self, now: float) -> None:
        if now >= self._next:
            self._next = now + _RSS_TICK
            self.seen = processes.peak_rss(self._pid) or self.seen


class _ProxyReader:
    """Reads from a daemon by asking its proxy; the daemon's cost is its owner's to measure."""

    def __init__(self, spec: ReaderSpec, meter: Meter, tell: Callable[[object], None]) -> None:
        assert spec.proxy is not None
        try:
            with socket.create_connection(spec.proxy, timeout=10.0) as connection:
                connection.settimeout(None)  # a true blocking socket for readv; the harness has a deadline of its own
                limit = _content_length(_ask(connection, spec.url, spec.url.split("/")[2]))
                _drain(connection.fileno(), meter, spec.pace, limit, lambda _now: None)
        except (OSError, ValueError) as error:
            meter.outcome.error = str(error)

    def finish(self) -> None:
        return None


def _ask(connection: socket.socket, target: str, host: str) -> bytes:
    """Sends a GET and takes the response's head off the connection."""
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    return _read_head(connection)


def _read_head(connection: socket.socket) -> bytes:
    """A response's head, read byte by byte so that none of the body is lost; at most 16 KiB."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte or len(head) > 16 * KIB:
            raise ValueError(f"no HTTP response head: {head[:80]!r}")
        head += byte
    return head


def _content_length(head: bytes) -> int:
    status, *lines = head.decode("latin-1").split("\r\n")
    if status.split()[1] != "200":
        raise ValueError(f"the answer was {status!r}")
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-length":
            return int(value)
    raise ValueError("the answer has no Content-Length, though the content's length is known")


class _FileReader:
    """Follows a file that a program fills in any order: what counts is how far it is right from its beginning.

    The content is random, so a hole never passes for it.
    """

    def __init__(self, spec: ReaderSpec, meter: Meter, tell: Callable[[object], None]) -> None:
        assert spec.file is not None
        self._program = processes.start(spec.argv, log=spec.log)
        tell(self._program.pid)
        descriptor = self._open(spec)
        try:
            self._follow(descriptor, meter, spec.log)
        finally:
            os.close(descriptor)

    def _open(self, spec: ReaderSpec) -> int:
        while True:
            try:
                return os.open(str(spec.file), os.O_RDONLY)
            except FileNotFoundError:
                if self._program.poll() is not None:
                    raise RuntimeError(f"exit status {self._program.returncode}: {processes.tail(spec.log, 3)}")
                time.sleep(_FILE_TICK)

    def _follow(self, descriptor: int, meter: Meter, log: Path) -> None:
        advanced = time.monotonic()
        while meter.missing:
            want = min(64 * KIB, meter.missing)
            count = os.preadv(descriptor, [meter.view[:want]], meter.outcome.received)
            now = time.monotonic()
            if count == want and meter.holds_original(count):
                meter.take(count, now - advanced, now)
                advanced = now
            elif self._program.poll() is not None:
                meter.outcome.error = f"exit status {self._program.returncode}: {processes.tail(log, 3)}"
                break
            else:
                time.sleep(_FILE_TICK)
        meter.end(time.monotonic())

    def finish(self) -> processes.Usage | None:
        """Stops the program, which has served its copy until now."""
        return _end(self._program)


class _ServerReader:
    """Reads from a program's own HTTP server, as soon as that answers."""

    def __init__(self, spec: ReaderSpec, meter: Meter, tell: Callable[[object], None]) -> None:
        self._program = processes.start(spec.argv, log=spec.log)
        tell(self._program.pid)
        try:
            with self._connect(spec) as (connection, limit):
                _drain(connection.fileno(), meter, spec.pace, limit, lambda _now: None)
        except OSError as error:
            meter.outcome.error = str(error)

    @contextlib.contextmanager
    def _connect(self, spec: ReaderSpec) -> Iterator[tuple[socket.socket, int]]:
        """The connection, behind the response's head, and the length of what follows."""
        _, _, host, path = spec.url.split("/", 3)
        address, _, port = host.partition(":")
        while True:
            with contextlib.ExitStack() as stack, contextlib.suppress(ConnectionError, ValueError):
                connection = stack.enter_context(socket.create_connection((address, int(port)), timeout=10.0))
                connection.settimeout(None)
                limit = _content_length(_ask(connection, f"/{path}", host))
                stack.pop_all()
                break
            if self._program.poll() is not None:
                raise RuntimeError(f"exit status {self._program.returncode}: {processes.tail(spec.log, 3)}")
            time.sleep(_FILE_TICK)
        with connection:
            yield connection, limit

    def finish(self) -> processes.Usage | None:
        """Stops the program, which has served its copy until now."""
        return _end(self._program)


def _end(program: subprocess.Popen[bytes]) -> processes.Usage | None:
    """Kills a program that goes on; what it cost."""
    if program.poll() is not None:
        return None
    cost = processes.usage(program.pid)
    program.kill()
    program.wait()
    return cost


class Source(Protocol):
    """What a content was read from, which may go on when all of it has come."""

    def finish(self) -> processes.Usage | None:
        """Ends it; what it cost, where that is not for somebody else to say."""


def read(spec: ReaderSpec, meter: Meter, tell: Callable[[object], None]) -> Source:
    """Reads a content to its end, and tells the pid of the program that brings it as soon as there is one."""
    return _kind(spec)(spec, meter, tell)


def _kind(spec: ReaderSpec) -> Callable[[ReaderSpec, Meter, Callable[[object], None]], Source]:
    if not spec.argv:
        return _ProxyReader
    if spec.file:
        return _FileReader
    return _ServerReader if spec.url else _ProgramReader
