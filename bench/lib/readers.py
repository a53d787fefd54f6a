"""Readers: one small process per peer, which takes the content in order, times it and checks each byte.

A reader process is forked early, waits for its start instant, starts its program (or connects to its daemon) then, and
reports over a pipe: the program's pid, an Outcome, and, when asked to finish, what the program cost.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Callable, Iterator

from lib import processes
from lib.content import Truth
from lib.system import die_with_parent, enter_namespace
from lib.units import KIB, MIB

_READ = 256 * KIB
_PACED_READ = 16 * KIB
_FILE_TICK = 0.01
_RSS_TICK = 0.05
_PROGRESS_TICK = 0.02
_EXIT_SECONDS = 30.0


@dataclass(frozen=True)
class ReaderSpec:
    """What one reader does. Exactly one of the four sources:

    `argv` alone: a program that writes the content to its standard output;
    `argv` and `file`: a program that fills a file, in any order, and goes on serving it;
    `argv` and `url`: a program with an HTTP server of its own, which hands the content out at `url`;
    `proxy`: a daemon, asked for `url` as an HTTP proxy.
    """

    namespace: str | None
    truth: Path
    log: Path
    argv: list[str] = field(default_factory=list)
    file: Path | None = None
    proxy: tuple[str, int] | None = None
    url: str = ""
    pace: float = 0.0  # bytes per second that the reader takes at most; 0: all it can get


@dataclass
class Outcome:
    """What a reader saw. Seconds count from its own start instant."""

    received: int = 0
    first_byte: float | None = None
    first_mib: float | None = None
    last_byte: float | None = None
    longest_stall: float = 0.0
    wrong_at: int | None = None
    error: str | None = None
    progress: list[tuple[float, int]] = field(default_factory=list)  # every so often: when, and bytes by then

    @property
    def complete(self) -> bool:
        """Whether the whole content came, and nothing but it."""
        return self.last_byte is not None and self.wrong_at is None and self.error is None


class _Meter:
    """Follows the in-order position: times, stalls and the first wrong byte."""

    def __init__(self, truth: Truth, started: float) -> None:
        self._truth = truth
        self._started = started
        self._buffer = ctypes.create_string_buffer(_READ)
        self._address = ctypes.addressof(self._buffer)
        self.view = memoryview(self._buffer).cast("B")
        self.outcome = Outcome()

    def take(self, count: int, waited: float, now: float) -> None:
        """The next `count` bytes are in the buffer; the reader was ready for them for `waited` seconds."""
        outcome = self.outcome
        if outcome.wrong_at is None and not self._truth.same(self._address, outcome.received, count):
            outcome.wrong_at = outcome.received
        if outcome.first_byte is None:
            outcome.first_byte = now - self._started
        else:
            outcome.longest_stall = max(outcome.longest_stall, waited)
        outcome.received += count
        if not outcome.progress or now - self._started - outcome.progress[-1][0] >= _PROGRESS_TICK:
            outcome.progress.append((now - self._started, outcome.received))
        if outcome.first_mib is None and outcome.received >= min(MIB, self._truth.size):
            outcome.first_mib = now - self._started

    def end(self, now: float) -> None:
        """No more will come."""
        self.outcome.progress.append((now - self._started, self.outcome.received))
        if self.outcome.received == self._truth.size:
            self.outcome.last_byte = now - self._started
        elif self.outcome.error is None:
            self.outcome.error = f"ended after {self.outcome.received} of {self._truth.size} bytes"

    def holds_original(self, count: int) -> bool:
        """Whether the buffer's first bytes are the next ones of the original."""
        return self._truth.same(self._address, self.outcome.received, count)

    @property
    def missing(self) -> int:
        """Bytes still to come."""
        return self._truth.size - self.outcome.received


def _drain(descriptor: int, meter: _Meter, pace: float, limit: int | None, tick: Callable[[float], None]) -> None:
    """Reads to the end of the stream, or `limit` bytes, at most at `pace`."""
    began = time.monotonic()
    block = _PACED_READ if pace else _READ
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

    def __init__(self, spec: ReaderSpec, meter: _Meter, tell: Callable[[object], None]) -> None:
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

    def __init__(self, spec: ReaderSpec, meter: _Meter, tell: Callable[[object], None]) -> None:
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

    def __init__(self, spec: ReaderSpec, meter: _Meter, tell: Callable[[object], None]) -> None:
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

    def _follow(self, descriptor: int, meter: _Meter, log: Path) -> None:
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

    def __init__(self, spec: ReaderSpec, meter: _Meter, tell: Callable[[object], None]) -> None:
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


def _kind(spec: ReaderSpec) -> type:
    if not spec.argv:
        return _ProxyReader
    if spec.file:
        return _FileReader
    return _ServerReader if spec.url else _ProgramReader


def _reader_main(pipe: Connection, spec: ReaderSpec) -> None:
    """Life of a reader process."""
    os.setsid()
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if spec.namespace:
        enter_namespace(spec.namespace)
    kind = _kind(spec)
    truth = Truth(spec.truth)
    start_at, deadline = pipe.recv()
    _give_up_at(deadline)
    meter = _Meter(truth, start_at)
    source = None
    time.sleep(max(0.0, start_at - time.monotonic()))
    try:
        source = kind(spec, meter, pipe.send)
    except Exception as error:  # reported as this reader's outcome, whatever it was
        meter.outcome.error = f"{type(error).__name__}: {error} after {meter.outcome.received} bytes"
    signal.setitimer(signal.ITIMER_REAL, 0)
    pipe.send(meter.outcome)
    pipe.recv()
    pipe.send(source.finish() if source else None)


def _give_up_at(deadline: float) -> None:
    """Breaks off whatever the reader waits for at that instant, so that it can still say how far it came."""

    def give_up(_number: int, _frame: object) -> None:
        raise TimeoutError("hangs: given up")

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, deadline - time.monotonic()))


class Reader:
    """The harness's handle on one reader process."""

    def __init__(self, spec: ReaderSpec) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_reader_main, args=(theirs, spec), daemon=True)
        self._process.start()
        theirs.close()
        self.started: float | None = None
        self.program: int | None = None
        self.outcome: Outcome | None = None
        self.usage: processes.Usage | None = None

    def start(self, at: float, deadline: float) -> None:
        """Starts it at an instant of time.monotonic(); at another it gives up."""
        self.started = at
        self.pipe.send((at, deadline))

    def receive(self) -> None:
        """Takes one message from the process."""
        try:
            message = self.pipe.recv()
        except EOFError:
            message = Outcome(error="the reader process died")
        if isinstance(message, int):
            self.program = message
        elif isinstance(message, Outcome):
            self.outcome = message

    def finish(self, timeout: float = 10.0) -> None:
        """Stops its program, if that still runs, and takes its cost."""
        try:
            self.pipe.send("finish")
            if self.pipe.poll(timeout):
                self.usage = self.pipe.recv()
        except (BrokenPipeError, EOFError):
            pass
        if self.usage is None and self.program is not None:
            with contextlib.suppress(OSError):
                self.usage = processes.usage(self.program)

    def close(self) -> None:
        """Kills the process; its program dies with it."""
        self._process.kill()
        self._process.join()
        self.pipe.close()
