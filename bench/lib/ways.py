"""Long ways between hosts: delay, jitter and loss, by the kernel's netem where it has that, else by a switch of our own."""

from __future__ import annotations

import functools
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lib import processes, scratch
from lib.processes import run
from lib.system import BenchError, need_programs

_SOURCE = Path(__file__).with_name("switch.c")
# Packets that netem holds on one link at once: 400 Mbit/s for two seconds.
_NETEM_LIMIT = "70000"


@dataclass(frozen=True)
class Way:
    """What each packet meets between any two hosts."""

    delay: float = 0.0  # milliseconds, one way
    jitter: float = 0.0  # milliseconds that it may come sooner or later; the order stays
    loss: float = 0.0  # per cent of the packets

    @property
    def near(self) -> bool:
        """Whether there is nothing to imitate."""
        return not (self.delay or self.jitter or self.loss)

    def __str__(self) -> str:
        jitter = f" ± {self.jitter:g}" if self.jitter else ""
        return f"{self.delay:g}{jitter} ms one way, {self.loss:g} % loss"


@dataclass(frozen=True)
class Carried:
    """What the switches did; netem and bridges keep no such accounts."""

    cpu: float
    packets: int
    lost: int
    crowded: int  # lost for want of room in the switch, which should not happen

    def since(self, before: "Carried") -> "Carried":
        """What was done since an earlier look."""
        return Carried(*(getattr(self, name) - getattr(before, name) for name in ("cpu", "packets", "lost", "crowded")))


class Switch:
    """A running switch.c that joins devices of one namespace."""

    def __init__(self, namespace: str, devices: list[str], way: Way, seed: int = 1) -> None:
        figures = [str(figure) for figure in (way.delay, way.jitter, way.loss, seed)]
        self._process = processes.start([_program(), *figures, *devices], namespace=namespace, stdout=subprocess.PIPE)
        if self._line() != "ready":
            raise BenchError(f"the switch of {namespace} did not start: packet sockets need root")

    def carried(self) -> Carried:
        """What it has done so far."""
        self._process.send_signal(signal.SIGUSR1)
        packets, lost, crowded = (int(word) for word in self._line().split())
        return Carried(processes.usage(self._process.pid).cpu, packets, lost, crowded)

    def stop(self) -> None:
        """Ends it; the devices stay."""
        processes.stop(self._process)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()


def _program() -> Path:
    """switch.c, compiled."""
    return Path(_compiled().name, "switch")


@functools.cache
def _compiled() -> tempfile.TemporaryDirectory[str]:
    """A directory with the compiled switch, which is gone when the command ends."""
    need_programs("cc")
    directory = tempfile.TemporaryDirectory(prefix=scratch.prefix())
    run(["cc", "-O2", "-o", Path(directory.name, "switch"), _SOURCE, "-lm"])
    return directory


@functools.cache
def kernel_can(namespace: str, way: Way) -> bool:
    """Whether netem is there and can do that. Its jitter lets packets overtake each other, which ours must not."""
    if way.jitter:
        return False
    try:
        run(["tc", "-n", namespace, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"])
    except BenchError:
        return False
    run(["tc", "-n", namespace, "qdisc", "del", "dev", "lo", "root"])
    return True


def netem(namespace: str, device: str, way: Way) -> None:
    """Makes what a device sends late and lossy; a limit of its rate goes below it, as its child 1:1.

    netem loses whole frames as TCP hands them down, so a lossy way needs hosts that `send_packets`.
    """
    figures = ["delay", f"{way.delay}ms", "loss", f"{way.loss}%", "limit", _NETEM_LIMIT]
    run(["tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "handle", "1:", "netem", *figures])


def send_packets(namespace: str, device: str) -> None:
    """Has a device send packets as they are on a wire, no large TCP frames."""
    run(["ip", "-n", namespace, "link", "set", device, "gso_max_segs", "1"])
