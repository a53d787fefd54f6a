"""Readers: small processes that take contents in order, time them and check each byte.

A host that reads K contents at once has K reader processes, its lanes, with one list: each takes the next content that
no other has begun. A process is forked early, waits for its start instant, starts its program (or connects to its
daemon) then, and reports over a pipe: its programs' pids, an Outcome a content, that it is done, and, when asked to
finish, what its programs cost.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from ctypes import c_int
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import Iterator, Sequence

from lib import processes, sources
from lib.content import Truth
from lib.meter import Meter, Outcome, ReaderSpec
from lib.system import die_with_parent, enter_namespace

_CONTEXT = multiprocessing.get_context("fork")


def lanes(specs: Sequence[ReaderSpec], count: int) -> list["Reader"]:
    """The reader processes of one host: at most `count`, which share out the contents."""
    turn = _CONTEXT.Value(c_int, 0)
    return [Reader(specs, turn) for _ in range(min(count, len(specs)))]


def _reader_main(pipe: Connection, specs: Sequence[ReaderSpec], turn: Synchronized[int]) -> None:
    """Life of a reader process."""
    os.setsid()
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if namespace := specs[0].namespace:
        enter_namespace(namespace)
    start_at, deadline = pipe.recv()
    _give_up_at(deadline)
    time.sleep(max(0.0, start_at - time.monotonic()))
    began, used = start_at, []
    with contextlib.suppress(TimeoutError):
        for index in _turns(turn, len(specs)):
            meter = Meter(Truth(specs[index].truth), began)
            meter.outcome.begun = began - start_at
            try:
                used.append(sources.read(specs[index], meter, pipe.send))
            except Exception as error:  # reported as this content's outcome, whatever it was
                meter.outcome.error = f"{type(error).__name__}: {error} after {meter.outcome.received} bytes"
            pipe.send((index, meter.outcome))
            # A host that was killed, or whose time is over, begins nothing more.
            if meter.outcome.error:
                break
            began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0)
    pipe.send(None)
    pipe.recv()
    pipe.send([source.finish() for source in used])


def _turns(turn: Synchronized[int], count: int) -> Iterator[int]:
    """The contents that fall to this lane."""
    while True:
        with turn.get_lock():
            mine = turn.value
            turn.value += 1
        if mine >= count:
            return
        yield mine


def _give_up_at(deadline: float) -> None:
    """Breaks off whatever the reader waits for at that instant, so that it can still say how far it came."""

    def give_up(_number: int, _frame: object) -> None:
        raise TimeoutError("hangs: given up")

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, deadline - time.monotonic()))


class Reader:
    """The harness's handle on one reader process."""

    def __init__(self, specs: Sequence[ReaderSpec], turn: Synchronized[int]) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_reader_main, args=(theirs, specs, turn), daemon=True)
        self._process.start()
        theirs.close()
        self._turn = turn  # shared memory: it lasts as long as the harness holds it
        self.started: float | None = None
        self.program: int | None = None
        self.outcomes: dict[int, Outcome] = {}  # by the content's place in the list
        self.done = False
        self.usages: list[processes.Usage] = []

    def start(self, at: float, deadline: float) -> None:
        """Starts it at an instant of time.monotonic(); at another it gives up."""
        self.started = at
        self.pipe.send((at, deadline))

    def receive(self) -> None:
        """Takes one message from the process."""
        try:
            message = self.pipe.recv()
        except EOFError:
            message = None
        if isinstance(message, int):
            self.program = message
        elif message is None:
            self.done = True
        else:
            index, outcome = message
            self.outcomes[index] = outcome

    def finish(self, timeout: float = 10.0) -> None:
        """Stops its programs, if they still run, and takes their cost."""
        try:
            self.pipe.send("finish")
            if self.pipe.poll(timeout):
                self.usages = [usage for usage in self.pipe.recv() if usage]
        except (BrokenPipeError, EOFError):
            pass
        if not self.usages and self.program is not None:
            with contextlib.suppress(OSError):
                self.usages = [processes.usage(self.program)]

    def close(self) -> None:
        """Kills the process; its programs die with it."""
        self._process.kill()
        self._process.join()
        self.pipe.close()
