"""Hosts in network namespaces, joined by switches, each link limited both ways with tc tbf.

The switches live in a namespace of their own and the machine's own namespace has no route to any of the hosts, so
nothing that a measured program sends can leave the lab. A switch is a bridge of the kernel; where ways are long it is
one of ours (lib/ways.py), unless the kernel's netem makes them long at the bridge's ports.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

from lib import scratch, ways
from lib.processes import run
from lib.system import BenchError, inside
from lib.units import payload_of_frames

_CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
_AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
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


@dataclass
class _Zone:
    """One switch: a bridge's name, or the devices that one of ours joins once all of them are there."""

    bridge: str
    devices: list[str] = field(default_factory=list)


class Network:
    """One switch, or two joined by a limited link, with hosts on them. Use as a context manager: add_zone, add_host,
    then connect."""

    def __init__(self, way: ways.Way = ways.Way(), congestion: str | None = None, seed: int = 1) -> None:
        global _counter
        _counter += 1
        self._way, self._congestion, self._seed = way, congestion, seed
        self._prefix = f"{scratch.prefix()}{_counter}"
        self._switch = f"{self._prefix}-switch"
        self._namespaces: list[str] = []
        self._zones: list[_Zone] = []
        self._switches: list[ways.Switch] = []
        self._between: ways.Way | None = None

    def __enter__(self) -> "Network":
        try:
            self._add_namespace(self._switch)
            self._add_switch()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes every namespace, and with them the links and bridges."""
        while self._switches:
            self._switches.pop().stop()
        while self._namespaces:
            name = self._namespaces.pop()
            if Path(f"/run/netns/{name}").exists():
                run(["ip", "netns", "del", name])

    def add_host(self, name: str, address: str, rate: float, zone: int = 0) -> Host:
        """A host with one link of `rate` Mbit/s each way (0: not limited) to the switch of its zone."""
        namespace = f"{self._prefix}-{name}"
        port = f"p-{name}"[:15]
        self._add_namespace(namespace)
        if self._congestion:
            with inside(namespace):
                _CONGESTION.write_text(self._congestion)
        run(["ip", "-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace])
        self._join(port, zone)
        run(["ip", "-n", namespace, "addr", "add", f"{address}/16", "dev", "eth0"])
        run(["ip", "-n", namespace, "link", "set", "eth0", "up"])
        labels = (f"zone={zone}",) if len(self._zones) > 1 and self._between is None else ()
        limit(namespace, "eth0", rate)
        self._shape(port, rate, self._way)
        if self._way.loss and self._by_kernel(self._way):
            ways.send_packets(namespace, "eth0")
        return Host(name, namespace, address, port, rate, labels)

    def add_zone(self, rate: float, delay: float = 0.0) -> None:
        """A second switch, behind a link of `rate` Mbit/s each way to the first.

        With `delay` each way takes so many milliseconds, and hosts do not know which zone they are in.
        """
        self._add_switch()
        way = ways.Way(delay=delay)
        add = ["ip", "-n", self._switch, "link", "add"]
        if way.near or self._by_kernel(way):
            run([*add, "cross0", "type", "veth", "peer", "name", "cross1"])
        else:
            for side in (0, 1):
                run([*add, f"cross{side}", "type", "veth", "peer", "name", f"wire{side}"])
                run(["ip", "-n", self._switch, "link", "set", f"wire{side}", "up"])
        if not way.near:
            self._between = way
        for side in (0, 1):
            self._join(f"cross{side}", side)
            self._shape(f"cross{side}", rate, way)

    def connect(self) -> None:
        """Starts the switches that are programs; without long ways there are none."""
        if self._between and not self._by_kernel(self._between):
            self._switches.append(ways.Switch(self._switch, ["wire0", "wire1"], self._between, self._seed))
        for zone in self._zones:
            if not zone.bridge:
                self._switches.append(ways.Switch(self._switch, zone.devices, self._way, self._seed))

    def crossed(self) -> tuple[float, float]:
        """Payload bytes that crossed the link between the zones: into the second zone, and back."""
        return sent_payload(self._switch, "cross0"), sent_payload(self._switch, "cross1")

    def received(self, host: Host) -> float:
        """Payload bytes that a host's link brought to it."""
        return sent_payload(self._switch, host.port)

    def carried(self) -> list[ways.Carried]:
        """What the switches that are programs have done."""
        return [switch.carried() for switch in self._switches]

    def _add_namespace(self, name: str) -> None:
        self._namespaces.append(name)
        run(["ip", "netns", "add", name])
        run(["ip", "-n", name, "link", "set", "lo", "up"])

    def _add_switch(self) -> None:
        if self._way.near or self._by_kernel(self._way):
            bridge = f"br{len(self._zones)}"
            run(["ip", "-n", self._switch, "link", "add", bridge, "type", "bridge"])
            run(["ip", "-n", self._switch, "link", "set", bridge, "up"])
        else:
            bridge = ""
        self._zones.append(_Zone(bridge))

    def _join(self, device: str, zone: int) -> None:
        master = self._zones[zone].bridge
        self._zones[zone].devices.append(device)
        run(["ip", "-n", self._switch, "link", "set", device, *(["master", master] if master else []), "up"])

    def _shape(self, port: str, rate: float, way: ways.Way) -> None:
        """Limits what a switch's port sends, and makes its way long where the kernel does that."""
        if way.near or not self._by_kernel(way):
            limit(self._switch, port, rate)
        else:
            ways.netem(self._switch, port, way)
            limit(self._switch, port, rate, parent="1:1")

    def _by_kernel(self, way: ways.Way) -> bool:
        return ways.kernel_can(self._switch, way)


def limit(namespace: str, device: str, rate: float, parent: str = "root") -> None:
    """Limits what a device sends to so many Mbit/s; 0: not at all."""
    if rate <= 0:
        return
    place = [parent] if parent == "root" else ["parent", parent]
    shape = ["rate", f"{rate}mbit", "burst", "256kb", "latency", "50ms"]
    run(["tc", "-n", namespace, "qdisc", "replace", "dev", device, *place, "tbf", *shape])


@contextlib.contextmanager
def congestion_allowed(name: str | None) -> Iterator[None]:
    """Lets namespaces choose a congestion control for the time of the block; which ones may is one list for all."""
    before = _ALLOWED.read_text()
    if name is None or name in before.split():
        yield
        return
    if name not in _AVAILABLE.read_text().split():
        with contextlib.suppress(BenchError):
            run(["modprobe", f"tcp_{name}"])
    if name not in _AVAILABLE.read_text().split():
        raise BenchError(f"this kernel has no congestion control {name!r}: it has {_AVAILABLE.read_text().strip()}")
    _ALLOWED.write_text(f"{before.strip()} {name}")
    try:
        yield
    finally:
        _ALLOWED.write_text(before)


def sent_payload(namespace: str, device: str) -> float:
    """TCP payload that a device sent, as near as its counters tell.

    tbf counts every frame with its headers. Without tbf the device's own counter has to do; it counts the headers of
    a large segment once, so it is payload and a little.
    """
    for shaper in json.loads(run(["tc", "-s", "-j", "-n", namespace, "qdisc", "show", "dev", device])):
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
