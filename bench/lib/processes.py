"""Starting programs in a namespace, stopping them by pid, and what the kernel says they cost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Callable, Iterator, Mapping, Sequence

from lib.system import BenchError, die_with_parent, inside

_TICKS = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS = 5.0


@dataclass(frozen=True)
class Usage:
    """What a process has cost so far. `peak_rss` is None once its memory is gone."""

    cpu: float
    peak_rss: int | None
    disk_read: int
    disk_written: int

    def since(self, before: "Usage") -> "Usage":
        """The cost since an earlier look; the peak stays the peak of the whole life."""
        return Usage(
            self.cpu - before.cpu,
            self.peak_rss,
            self.disk_read - before.disk_read,
            self.disk_written - before.disk_written,
        )

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


def usage(pid: int) -> Usage:
    """Cost of a live or not yet reaped process. A zombie still has its CPU time and its io counters."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    io = _pairs(f"/proc/{pid}/io")
    return Usage(
        cpu=(int(stat[11]) + int(stat[12])) / _TICKS,
        peak_rss=peak_rss(pid),
        disk_read=int(io["read_bytes"]),
        disk_written=int(io["write_bytes"]),
    )


def peak_rss(pid: int) -> int | None:
    """VmHWM in bytes, or None for a process without memory (a zombie)."""
    try:
        size = _pairs(f"/proc/{pid}/status").get("VmHWM")
    except OSError:
        return None
    return int(size.split()[0]) * 1024 if size else None


def resident(pid: int) -> int:
    """Bytes of a live process that are in memory now."""
    return int(_pairs(f"/proc/{pid}/status")["VmRSS"].split()[0]) * 1024


def tree_usage(pid: int) -> Usage:
    """Cost of a process and its children, for servers with workers (nginx)."""
    members = [pid, *children(pid)]
    parts = [usage(member) for member in members]
    return Usage(
        cpu=sum(part.cpu for part in parts),
        peak_rss=sum(part.peak_rss or 0 for part in parts),
        disk_read=sum(part.disk_read for part in parts),
        disk_written=sum(part.disk_written for part in parts),
    )


def processors() -> tuple[float, float]:
    """Seconds that all processors have worked and have existed since the machine started."""
    user, nice, system, idle, iowait, *rest = (int(word) / _TICKS for word in Path("/proc/stat").read_text().split()[1:9])
    worked = user + nice + system + sum(rest)
    return worked, worked + idle + iowait


def children(pid: int) -> list[int]:
    """The pids of a process's direct children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _pairs(path: str) -> dict[str, str]:
    lines = Path(path).read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def start(
    argv: Sequence[str | Path],
    *,
    namespace: str | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    death_signal: int = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Starts a program in a namespace and in a session of its own (Ctrl-C is the harness's alone).

    Its standard error goes to `log`. It gets `death_signal` when the harness ends without having stopped it.
    """

    def before_exec() -> None:
        os.setsid()
        die_with_parent(death_signal)

    with contextlib.ExitStack() as stack:
        stderr = stack.enter_context(log.open("ab")) if log else subprocess.DEVNULL
        stack.enter_context(inside(namespace))
        return subprocess.Popen(
            [str(word) for word in argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **(env or {})},
            preexec_fn=before_exec,
        )


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ends a program kindly, then by force; returns its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(_STOP_SECONDS)


@contextlib.contextmanager
def running(argv: Sequence[str | Path], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A program that lives as long as the block."""
    process = start(argv, **options)  # type: ignore[arg-type]
    try:
        yield process
    finally:
        stop(process)


def run(argv: Sequence[str | Path], timeout: float = 30.0) -> str:
    """Runs a short command to its end; its output, or an error that shows what it said."""
    words = [str(word) for word in argv]
    result = subprocess.run(words, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        raise BenchError(f"{' '.join(words)}: exit {result.returncode}: {result.stderr.strip()}")
    return result.stdout


def tail(log: Path, lines: int = 8) -> str:
    """The end of a log, for an error message."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def wait_until(
    ready: Callable[[], bool], what: str, timeout: float, process: subprocess.Popen[bytes], log: Path
) -> None:
    """Polls `ready()` until it is true; an early death or the timeout is an error with the program's last words."""
    deadline = time.monotonic() + timeout
    while not ready():
        if process.poll() is not None:
            raise BenchError(f"{what} ended with status {process.returncode}\n{tail(log)}")
        if time.monotonic() > deadline:
            raise BenchError(f"{what} was not ready after {timeout:.0f} s\n{tail(log)}")
        time.sleep(0.02)
