"""What a reader is to read, what it saw of that, and the meter between the two."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from pathlib import Path

from lib.content import Truth
from lib.units import KIB, MIB

READ = 256 * KIB
_PROGRESS_TICK = 0.02


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
    """What a reader saw of one content. Seconds count from the instant at which it began with that."""

    begun: float = 0.0  # seconds after its host's start
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


class Meter:
    """Follows the in-order position: times, stalls and the first wrong byte."""

    def __init__(self, truth: Truth, started: float) -> None:
        self._truth = truth
        self._started = started
        self._buffer = ctypes.create_string_buffer(READ)
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
