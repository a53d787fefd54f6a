"""Daemons and a supernode that can be killed, frozen and started anew at the same place."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib import pantala, processes
from lib.pantala import Programs
from lib.soak.origin import Times
from lib.units import KIB

_READY_SECONDS = 30.0

# The kernel ends a program when the thread that started it ends, so that nothing survives a killed harness: one thread
# that stays starts them all.
_STARTER = ThreadPoolExecutor(max_workers=1)


def free_port() -> int:
    """A port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Host:
    """One program at one place. `away` are the times in which it was dead, frozen or starting."""

    def __init__(self, name: str, argv: list[str], port: int, log: Path) -> None:
        self.name, self.port = name, port
        self._argv, self._log = argv, log
        self._process: subprocess.Popen[bytes] | None = None
        self.away = Times()
        self.kills = self.freezes = 0
        self.peak = 0  # resident bytes, of all its processes
        self.died: str | None = None  # what it said when it ended though nobody had killed it
        # What befalls it is done by one thread at a time.
        self.trouble = threading.Lock()
        self.start()

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it and waits until it serves."""
        self._process = _STARTER.submit(processes.start, self._argv, log=self._log).result()
        ready = lambda: pantala.healthy("127.0.0.1", self.port)  # noqa: E731
        processes.wait_until(ready, self.name, _READY_SECONDS, self._process, self._log)

    def kill(self) -> None:
        """Ends it without a word."""
        assert self._process is not None
        self.kills += 1
        self.away.begin()
        self.look()
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Starts another one in the place of one that was killed."""
        self.start()
        self.away.end()

    def freeze(self) -> None:
        """Stops it in the middle of whatever it does."""
        self.freezes += 1
        self.away.begin()
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        os.kill(self.pid, signal.SIGCONT)
        self.away.end()

    def stop(self) -> None:
        """Ends it kindly."""
        if self._process is not None:
            processes.stop(self._process)

    def look(self) -> None:
        """Takes its peak of memory down, and whether it has ended by itself."""
        assert self._process is not None
        if (status := self._process.poll()) is not None and self.died is None:
            self.died = f"ended with status {status}: {processes.tail(self._log, 3)}"
        self.peak = max(self.peak, processes.peak_rss(self.pid) or 0)

    def metrics(self) -> dict[str, float]:
        """Its figures, labels summed."""
        return pantala.metrics("127.0.0.1", self.port)

    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident(self) -> int:
        """Bytes of its memory that are in RAM now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * KIB


def supernode(programs: Programs, directory: Path) -> Host:
    """A supernode at a port of its own."""
    port = free_port()
    argv = programs.argv("supernode", "--listen", f"127.0.0.1:{port}")
    return Host("supernode", argv, port, directory / "supernode.log")


def daemon(programs: Programs, number: int, supernode_port: int, memory: str, directory: Path) -> Host:
    """A dfdaemon at ports of its own."""
    port, peer = free_port(), f"127.0.0.1:{free_port()}"
    argv = programs.argv(
        "dfdaemon", "--listen", f"127.0.0.1:{port}", "--peer-listen", peer, "--advertise", peer,
        "--supernode", f"127.0.0.1:{supernode_port}", "--memory", memory,
    )  # fmt: skip
    return Host(f"dfdaemon {number}", argv, port, directory / f"dfdaemon-{number}.log")
