"""The load program (`crates/supernode/examples/control`): it does a phase when it is told to, and says how it went."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

from lib import processes
from lib.system import BenchError

_GRACE = 10.0  # seconds that a phase may be late to say that its time is over


class Silent(BenchError):
    """The load program said nothing for longer than its phase may take."""


@dataclass(frozen=True)
class Times:
    """How long something took, in seconds."""

    mean: float
    p50: float
    p99: float
    worst: float


@dataclass
class Phase:
    """What came of a phase. `seconds` is what all of it took; the brain alone is timed without the making of messages."""

    name: str
    done: int
    wanted: int
    seconds: float
    times: Times | None  # of an answer
    announces: Times | None  # of an announcement, in process
    rss: int  # of the load program
    said: dict[str, object]  # all that it said
    cpu: float | None = None  # of the supernode
    supernode_rss: int | None = None
    allowed: float = 0.0
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all was done in its time."""
        return self.done >= self.wanted

    @property
    def lost(self) -> int:
        """Sessions that the supernode ended."""
        return int(self.said.get("lost") or 0)  # type: ignore[call-overload]

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        own = {"allowed": self.allowed, "cpu": self.cpu, "supernode_rss": self.supernode_rss}
        return {**self.said, **own, **self.extra}


def program(directory: Path) -> Path:
    """The load program, which cargo builds with the examples."""
    path = directory / "examples" / "control"
    if not os.access(path, os.X_OK):
        raise BenchError(f"{path} is not there; cargo build --release --bins --examples, or name the directory with --bin")
    return path


class Load:
    """A running load program."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self._ready = selectors.DefaultSelector()
        assert process.stdout
        self._ready.register(process.stdout, selectors.EVENT_READ)

    def phase(self, name: str, allowed: float, late: float = _GRACE) -> Phase:
        """Does the next phase; `late` is how much longer than `allowed` it may take to say that it was broken off."""
        self.begin(allowed)
        return self.end(name, allowed, late)

    def begin(self, allowed: float) -> None:
        """Lets the next phase begin."""
        assert self._process.stdin
        self._process.stdin.write(f"{allowed}\n".encode())
        self._process.stdin.flush()

    def end(self, name: str, allowed: float, late: float = _GRACE) -> Phase:
        """Waits for what came of it."""
        assert self._process.stdout
        deadline = time.monotonic() + allowed + late
        if not self._ready.select(max(0.0, deadline - time.monotonic())):
            raise Silent(f"{name}: not a word for {allowed + late:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise BenchError(f"the load program ended with status {status}\n{processes.tail(self._log)}")
        said = json.loads(line)
        if said["phase"] != name:
            raise BenchError(f"the load program did {said['phase']} for {name}")
        if said.get("error"):
            raise BenchError(f"{name}: {said['error']}")
        return Phase(
            name,
            said["done"],
            said.get("wanted", said["done"]),
            said.get("seconds", 0.0),
            _times(said.get("times")),
            _times(said.get("announces")),
            said["rss"],
            said,
            allowed=allowed,
        )


def _times(said: dict[str, float] | None) -> Times | None:
    return Times(*(said[f"{name}_us"] / 1e6 for name in ("mean", "p50", "p99", "worst"))) if said else None


@contextlib.contextmanager
def running(argv: list[str], log: Path, namespace: str | None = None) -> Iterator[Load]:
    """A load program that lives as long as the block."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with processes.running(argv, namespace=namespace, log=log, **pipes) as process:
        load = Load(process, log)
        try:
            yield load
        finally:
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
