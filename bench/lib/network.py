"""Hosts in network namespaces, joined by bridges, each link limited both ways with tc tbf.

The bridges live in a namespace of their own and the machine's own namespace has no route to any of the hosts, so
nothing that a measured program sends can leave the lab.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from lib import processes, scratch
from lib.processes import run
from lib.system import BenchError, inside
from lib.units import payload_of_frames

_FAR = Path(__file__).with_name("far.py")
_counter = 0


@dataclass(frozen=True)
class Host:
    """One machine of the lab."""

    name: str
    namespace: str
    address: str
    port: str
    rate: float
    labels: tuple[str, ...] = ()


class Network:
    """One switch, or two joined by a limited link, with hosts on them. Use as a context manager."""

    def __init__(self) -> None:
        global _counter
        _counter += 1
        self._prefix = f"{scratch.prefix()}{_counter}"
        self._switch = f"{self._prefix}-switch"
        self._namespaces: list[str] = []
        self._bridges: list[str] = []
        self._relays: list[subprocess.Popen[bytes]] = []
        self._labelled = True

    def __enter__(self) -> "Network":
        try:
            self._add_namespace(self._switch)
            self._add_bridge()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes every namespace, and with them the links and bridges."""
        while self._relays:
            processes.stop(self._relays.pop())
        while self._namespaces:
            name = self._namespaces.pop()
            if Path(f"/run/netns/{name}").exists():
                run(["ip", "netns", "del", name])

    def add_host(self, name: str, address: str, rate: float, zone: int = 0) -> Host:
        """A host with one link of `rate` Mbit/s each way (0: not limited) to the bridge of its zone."""
        namespace = f"{self._prefix}-{name}"
        port = f"p-{name}"[:15]
        self._add_namespace(namespace)
        switch = ["ip", "-n", self._switch, "link"]
        run([*switch, "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace])
        run([*switch, "set", port, "master", self._bridges[zone], "up"])
        run(["ip", "-n", namespace, "addr", "add", f"{address}/16", "dev", "eth0"])
        run(["ip", "-n", namespace, "link", "set", "eth0", "up"])
        labels = (f"zone={zone}",) if len(self._bridges) > 1 and self._labelled else ()
        host = Host(name, namespace, address, port, rate, labels)
        if rate > 0:
            limit(namespace, "eth0", rate)
            limit(self._switch, port, rate)
        return host

    def add_zone(self, rate: float, way: float = 0.0) -> None:
        """A second bridge, behind a link of `rate` Mbit/s each way to the first.

        With `way` each way takes so many milliseconds, and hosts do not know which zone they are in.
        """
        self._add_bridge()
        switch = ["ip", "-n", self._switch, "link"]
        if way:
            relay = [sys.executable, "-I", "-S", _FAR, "cross0", "cross1", str(way)]
            self._relays.append(processes.start(relay, namespace=self._switch, stdout=subprocess.PIPE))
            ready = self._relays[-1].stdout
            if ready is None or ready.readline().strip() != b"ready":
                raise BenchError("the way between the zones cannot be made: is there /dev/net/tun?")
            self._labelled = False
        else:
            run([*switch, "add", "cross0", "type", "veth", "peer", "name", "cross1"])
        for side in (0, 1):
            run([*switch, "set", f"cross{side}", "master", self._bridges[side], "up"])
            limit(self._switch, f"cross{side}", rate)

    def crossed(self) -> tuple[float, float]:
        """Payload bytes that crossed the link between the zones: into the second zone, and back."""
        return sent_payload(self._switch, "cross0"), sent_payload(self._switch, "cross1")

    def _add_namespace(self, name: str) -> None:
        self._namespaces.append(name)
        run(["ip", "netns", "add", name])
        run(["ip", "-n", name, "link", "set", "lo", "up"])

    def _add_bridge(self) -> None:
        bridge = f"br{len(self._bridges)}"
        run(["ip", "-n", self._switch, "link", "add", bridge, "type", "bridge"])
        run(["ip", "-n", self._switch, "link", "set", bridge, "up"])
        self._bridges.append(bridge)


def limit(namespace: str, device: str, rate: float) -> None:
    """Limits what a device sends."""
    shape = ["rate", f"{rate}mbit", "burst", "256kb", "latency", "50ms"]
    run(["tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", "tbf", *shape])


def sent_payload(namespace: str, device: str) -> float:
    """TCP payload that a device sent, as near as its counters tell.

    tbf counts every frame with its headers. Without tbf the device's own counter has to do; it counts the headers of
    a large segment once, so it is payload and a little.
    """
    [shaper] = json.loads(run(["tc", "-s", "-j", "-n", namespace, "qdisc", "show", "dev", device]))[:1] or [{}]
    if shaper.get("kind") == "tbf":
        return payload_of_frames(shaper["bytes"])
    return device_sent(namespace, device)


def device_sent(namespace: str, device: str) -> float:
    """Bytes by the device's own counter: the headers of a large segment count once. Cheap to read."""
    with inside(namespace):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    counters = next(line for line in lines if line.strip().startswith(f"{device}:"))
    return float(counters.partition(":")[2].split()[8])


@contextlib.contextmanager
def loopback() -> Iterator[str]:
    """A namespace with nothing but a loopback: every port is free, nothing can leave."""
    global _counter
    _counter += 1
    name = f"{scratch.prefix()}{_counter}-lo"
    run(["ip", "netns", "add", name])
    try:
        run(["ip", "-n", name, "link", "set", "lo", "up"])
        yield name
    finally:
        run(["ip", "netns", "del", name])
