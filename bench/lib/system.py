"""What the harness asks of the machine: root, programs, network namespaces, signals."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Iterator, NoReturn

libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNET = 0x40000000

# Which Debian package brings which program.
PACKAGES = {
    "ip": "iproute2",
    "tc": "iproute2",
    "nginx": "nginx-light",
    "curl": "curl",
    "aria2c": "aria2",
    "wrk": "wrk",
    "cc": "gcc",
    "npm": "npm",
}

REPOSITORY = Path(__file__).resolve().parents[2]


class BenchError(Exception):
    """Something the person at the keyboard can mend; printed without a traceback."""


def fail(message: str) -> NoReturn:
    """Ends the command with a message and no traceback."""
    sys.exit(f"{Path(sys.argv[0]).name}: {message}")


def need_root() -> None:
    """Namespaces, tc and other processes' /proc/PID/io are root's."""
    if os.geteuid() != 0:
        raise BenchError("network namespaces and /proc/PID/io need root; run it with sudo")


def need_programs(*names: str) -> None:
    """Refuses, naming the packages to install, unless every program is on the PATH."""
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES.get(name, name) for name in missing}))
        raise BenchError(f"{', '.join(missing)} not found; apt install --no-install-recommends {packages}")


def need_libtorrent() -> None:
    """Refuses unless the Python that runs the harness can import libtorrent."""
    try:
        import libtorrent  # noqa: F401
    except ImportError:
        raise BenchError(
            f"{sys.executable} has no libtorrent; apt install --no-install-recommends python3-libtorrent"
            " and run the command with Debian's own /usr/bin/python3"
        ) from None


def need_program_or_path(program: str, hint: str) -> None:
    """Refuses unless a program that no Debian package brings is on the PATH, or at the path that was given for it."""
    if shutil.which(program) is None:
        raise BenchError(f"{program} not found; {hint}")


def need_binary(directory: Path, name: str) -> Path:
    """The path of one of Pantala's programs, or a hint how to build it."""
    path = directory / name
    if not os.access(path, os.X_OK):
        raise BenchError(f"{path} is not there; cargo build --release, or name its directory with --bin")
    return path


def die_with_parent(death_signal: int = signal.SIGKILL) -> None:
    """Asks the kernel to end this process when its parent ends, so that nothing survives a killed harness."""
    libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)


def enter_namespace(name: str) -> None:
    """Moves the calling thread, and what it starts, into a named network namespace."""
    with open(f"/run/netns/{name}") as handle:
        _set_namespace(handle.fileno())


@contextlib.contextmanager
def inside(name: str | None) -> Iterator[None]:
    """Runs a block in a named network namespace; sockets and children made there stay there."""
    if name is None:
        yield
        return
    with open("/proc/thread-self/ns/net") as home:
        enter_namespace(name)
        try:
            yield
        finally:
            _set_namespace(home.fileno())


def _set_namespace(descriptor: int) -> None:
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


def end_on_signals() -> None:
    """Turns SIGTERM and SIGHUP into SystemExit, so that they clean up just as Ctrl-C does."""

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)
