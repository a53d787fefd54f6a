"""One case, in process or over sockets: the phases one after the other, and what they cost the supernode."""

from __future__ import annotations

import contextlib
import math
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator

from lib import pantala, processes, scratch
from lib.control import load
from lib.control.load import Phase
from lib.network import loopback
from lib.system import BenchError

REFERENCE = (10, 100)
SESSIONS_MAX = 16  # that a supernode takes on one connection
_CONNECTIONS = 8000  # more than that, and sessions share them
_ADDRESS = "127.0.0.1"
_REST = 3.0  # seconds for which all are connected and nobody says anything
_LEAST = 5.0  # seconds that any phase may take
_LATE = 15.0  # seconds for the brain to come back from what it is at, or for the load program to say that it does not


@dataclass(frozen=True)
class Options:
    """What the command line says of all cases."""

    programs: pantala.Programs
    messages: int
    burst: int
    speakers: int
    sessions: int | None
    patience: float
    timeout: float


@dataclass
class Case:
    """What came of one shape in one mode. The phases that were not reached are missing."""

    mode: str
    tasks: int
    members: int
    connections: int = 0
    sessions: int = 0
    phases: dict[str, Phase] = field(default_factory=dict)
    broken: str | None = None  # why it ended before its last phase

    @property
    def memberships(self) -> int:
        """Peers of each task, summed."""
        return self.tasks * self.members

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        own = {name: value for name, value in vars(self).items() if name != "phases"}
        return {**own, "phases": {name: phase.as_dict() for name, phase in self.phases.items()}}


class Bounds:
    """How long a phase may take: so many times what as many messages took in the reference case of the same mode."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._each: dict[str, float] = {}

    def learn(self, case: Case) -> None:
        """The case that others are measured against."""
        for phase in case.phases.values():
            if phase.done and phase.seconds:
                self._each[phase.name] = phase.seconds / phase.done

    def of(self, phase: str, count: int) -> float:
        """Seconds for so many messages, or peers."""
        each = self._each.get(phase)
        derived = math.inf if each is None else each * count * self._options.patience
        return min(max(derived, _LEAST), self._options.timeout)


def measure(options: Options, mode: str, tasks: int, members: int, bounds: Bounds) -> Case:
    """Runs one case; what goes wrong is said in it and keeps no other from being run."""
    case = Case(mode, tasks, members)
    try:
        with scratch.directory() as directory:
            {"process": _in_process, "sockets": _over_sockets}[mode](options, case, bounds, directory)
    except BenchError as error:
        case.broken = str(error)
    return case


def _argv(options: Options, case: Case, *more: object) -> list[str]:
    shape = (case.mode, case.tasks, case.members, options.messages, options.burst, *more)
    return [str(load.program(options.programs.directory)), *(str(word) for word in shape)]


def _in_process(options: Options, case: Case, bounds: Bounds, directory: Path) -> None:
    with load.running(_argv(options, case), directory / "load.log") as brain:
        for name, count in _phases(options, case, "still"):
            # Who did not come in time comes with the brain's clock standing still.
            late = 2 * options.timeout if name == "come" else _LATE
            allowed = bounds.of(name, count)
            phase = case.phases[name] = brain.phase(name, allowed, late)
            if phase.said.get("stuck"):
                raise BenchError(f"{name}: the brain did not come back from one burst for {phase.seconds - allowed:.0f} s")


def _phases(options: Options, case: Case, *more: str) -> Iterator[tuple[str, int]]:
    """Their names and how much there is to do in each."""
    yield "open", case.members
    yield "come", case.memberships
    for name in more:
        yield name, options.messages
    yield "announce", options.messages
    yield "resume", case.memberships


def _over_sockets(options: Options, case: Case, bounds: Bounds, directory: Path) -> None:
    case.sessions = options.sessions or min(SESSIONS_MAX, math.ceil(case.members / _CONNECTIONS))
    address = f"{_ADDRESS}:{pantala.SUPERNODE_PORT}"
    argv = _argv(options, case, address, case.sessions, options.speakers)
    log = directory / "supernode.log"
    with contextlib.ExitStack() as stack:
        space = stack.enter_context(loopback())
        supernode = stack.enter_context(pantala.supernode(options.programs, _ADDRESS, log, space))
        before = processes.resident(supernode.pid)
        peers = stack.enter_context(load.running(argv, directory / "load.log", space))
        for name, count in _phases(options, case):
            allowed = bounds.of(name, count)
            begin = lambda: None  # noqa: E731
            if name == "resume":
                # The one that is killed is stopped again when the block ends, which it does not mind.
                began = time.monotonic()
                peers.begin(allowed)
                supernode.kill()
                supernode.wait()
                supernode = stack.enter_context(_started(options, log, space))
                phase, cpu = peers.end(name, allowed), processes.usage(supernode.pid).cpu
                phase.seconds = time.monotonic() - began
            else:
                phase, cpu = _costed(supernode, lambda: peers.phase(name, allowed))
            case.phases[name] = phase
            phase.cpu, phase.supernode_rss = cpu, processes.resident(supernode.pid)
            if name == "open":
                case.connections = int(phase.said["connections"])  # type: ignore[call-overload]
                phase.extra = {"before": before, "at_rest": _costed(supernode, lambda: time.sleep(_REST))[1] / _REST}
            if phase.lost:
                raise BenchError(f"{name}: the supernode ended {phase.lost:,} sessions")
            if not phase.complete and name != "announce":
                raise BenchError(f"{name}: {phase.done:,} of {phase.wanted:,} in {phase.seconds:.0f} s, and so no more")
            if phase.complete:
                _check(case, name, space)


def _costed(supernode: subprocess.Popen[bytes], act: Callable[[], object]) -> tuple[object, float]:
    """What the act gives, and what it cost the supernode."""
    before = processes.usage(supernode.pid).cpu
    given = act()
    return given, processes.usage(supernode.pid).cpu - before


def _started(options: Options, log: Path, space: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """A supernode at the same place, for which nobody waits."""
    listen = f"{_ADDRESS}:{pantala.SUPERNODE_PORT}"
    return processes.running(options.programs.argv("supernode", "--listen", listen), namespace=space, log=log)


def _check(case: Case, name: str, space: str) -> None:
    """The supernode must know as many members as were told that it does."""
    if name == "open":
        return
    known = pantala.metrics(_ADDRESS, pantala.SUPERNODE_PORT, space).get("pantala_supernode_members")
    if known != case.memberships:
        raise BenchError(f"{name}: the supernode knows {known} of {case.memberships} members")
