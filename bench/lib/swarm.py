"""One measured run of a swarm: the lab goes up, everybody starts, the lab comes down, and a Result remains."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import time
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Iterator

from lib import modes, nginx, plots, processes, scratch
from lib.content import write_random
from lib.meter import Outcome
from lib.network import Host, Network, congestion_allowed, sent_payload
from lib.readers import Reader, lanes
from lib.result import PeerResult, Result
from lib.setup import Setup
from lib.system import BenchError

_NET = "10.201"
_GRACE = 2.0  # seconds for readers that gave up to say how far they came
_LEAD = 0.3  # seconds between "all readers are up" and the start instant


@contextlib.contextmanager
def contents(setup: Setup) -> Iterator[list[Path]]:
    """The contents, in memory where the machine has /dev/shm, so that no disk is part of the measurement."""
    with scratch.directory(scratch.in_memory(setup.size)) as directory:
        paths = [directory / f"content-{number}.bin" for number in range(1, len(setup.sizes) + 1)]
        for number, (path, size) in enumerate(zip(paths, setup.sizes)):
            write_random(path, size, setup.seed + 1000 * number)
        yield paths


def measure(setup: Setup, contents: list[Path]) -> Result:
    """Builds the lab, runs the swarm once, takes everything down again."""
    result = Result(setup, load=os.getloadavg()[0])
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(scratch.directory())
        stack.enter_context(congestion_allowed(setup.congestion))
        network = stack.enter_context(Network(setup.way, setup.congestion, setup.seed))
        lab = _build(setup, network, contents, directory)
        mode = modes.by_name(setup.mode, setup.webseed, setup.rqbit)
        # nginx goes last, when nobody reads any more: its log is complete only then.
        with nginx.serving(
            directory / "nginx",
            nginx.static_server(contents[0].parent, lab.origin.address, 80),
            lab.origin.address,
            80,
            lab.origin.namespace,
        ) as origin:
            with contextlib.ExitStack() as services:
                _Run(setup, lab, network, mode, services).into(result)
        served = origin.served()
        result.origin_requests, result.origin_logged = served.requests, served.body_bytes
    return result


def _build(setup: Setup, network: Network, contents: list[Path], directory: Path) -> modes.Lab:
    """The hosts."""
    scenario = setup.scenario
    if scenario.zones is not None:
        network.add_zone(scenario.zones, scenario.way)
    origin = network.add_host("origin", f"{_NET}.0.1", setup.origin_rate)
    supernode = network.add_host("super", f"{_NET}.0.2", setup.rate)
    peers: list[Host] = []
    for index in range(setup.peers):
        number = index + 1
        address = f"{_NET}.{1 + index // 250}.{1 + index % 250}"
        zone = scenario.zone_of(number, setup.peers)
        peers.append(network.add_host(f"peer{number}", address, setup.rate_of(number), zone))
    network.connect()
    return modes.Lab(origin, supernode, peers, contents, directory, setup.memory, setup.programs)


class _Peer:
    """One peer while it is measured: its lanes and what its link had carried before."""

    def __init__(self, number: int, host: Host, readers: list[Reader], network: Network) -> None:
        self.number, self.host, self.readers, self._network = number, host, readers, network
        self.started: float | None = None
        self._before = self._counters()

    def start(self, at: float, deadline: float) -> None:
        """Starts its lanes at an instant; at another they give up."""
        self.started = at
        for reader in self.readers:
            reader.start(at, deadline)

    def kill(self) -> None:
        """SIGKILL to the programs that it runs."""
        running = [reader.program for reader in self.readers if reader.program is not None and not reader.done]
        if not running:
            raise BenchError(f"peer {self.number} was not running at the instant it should be killed")
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def outcomes(self, setup: Setup) -> dict[int, Outcome]:
        """By content; those that were never begun are said too."""
        order = setup.order_of(self.number)
        mine = {order[index]: it for reader in self.readers for index, it in reader.outcomes.items()}
        return {index: mine.get(index, Outcome(error="never begun")) for index in order}

    def usage(self) -> processes.Usage | None:
        """The cost of its programs together; the sum of their peaks is more than they had at any one time."""
        parts = [usage for reader in self.readers for usage in reader.usages]
        if not parts:
            return None
        peak = sum(part.peak_rss or 0 for part in parts) or None
        sums = (sum(getattr(part, cost) for part in parts) for cost in ("cpu", "disk_read", "disk_written"))
        cpu, disk_read, disk_written = sums
        return processes.Usage(cpu, peak, int(disk_read), int(disk_written))

    def carried(self) -> tuple[float, float]:
        """Payload bytes that its link has sent and received since it was made."""
        (sent, received), (sent_before, received_before) = self._counters(), self._before
        return sent - sent_before, received - received_before

    def _counters(self) -> tuple[float, float]:
        return sent_payload(self.host.namespace, "eth0"), self._network.received(self.host)


class _Run:
    """The time between the start instant and the last reader's end."""

    def __init__(
        self, setup: Setup, lab: modes.Lab, network: Network, mode: modes.Mode, stack: contextlib.ExitStack
    ) -> None:
        self._setup, self._lab, self._network = setup, lab, network
        self._daemons = mode.services(lab, stack)
        self._peers: list[_Peer] = []
        for index, host in enumerate(lab.peers):
            pace = setup.scenario.pace_of(index + 1, setup.peers)
            order = setup.order_of(index + 1)
            specs = [replace(mode.reader(lab, host, index, content), pace=pace) for content in order]
            readers = lanes(specs, setup.parallel)
            for reader in readers:
                stack.callback(reader.close)
            self._peers.append(_Peer(index + 1, host, readers, network))
        self._sent_before = self._origin_sent()
        self._before_join: float | None = None

    def into(self, result: Result) -> None:
        """Runs it and fills in what can be known before the origin has ended."""
        setup = self._setup
        usage_before = [processes.usage(daemon.pid) for daemon in self._daemons]
        carried_before = self._network.carried()
        worked_before, existed_before = processes.processors()
        self._go()
        worked, existed = processes.processors()
        result.busy = (worked - worked_before) / (existed - existed_before)
        result.seconds = time.monotonic() - self._start
        result.origin_sent = self._origin_sent() - self._sent_before
        result.before_join = self._before_join
        result.crossed = self._network.crossed() if setup.scenario.zones is not None else None
        result.carried = [now.since(before) for now, before in zip(self._network.carried(), carried_before)]
        result.metrics = self._metrics()
        result.series = self._series
        for peer in self._peers:
            for reader in peer.readers:
                reader.finish()
        odd = setup.scenario.odd_peers(setup.peers)
        for index, peer in enumerate(self._peers):
            number, begun = peer.number, (peer.started or self._start) - self._start
            usage = self._daemon_usage(index, usage_before[index]) if self._daemons else peer.usage()
            rate, floor = setup.rate_of(number), setup.floor_of(number)
            outcomes, carried = peer.outcomes(setup), peer.carried()
            result.peers.append(PeerResult(number, begun, number in odd, rate, floor, outcomes, usage, *carried))

    def _go(self) -> None:
        """Starts the readers and waits for them, with the scenario's events in between."""
        setup, scenario, start = self._setup, self._setup.scenario, time.monotonic() + _LEAD
        self._start = start
        sampler = plots.Sampler(self._lab.origin, self._daemons, start) if setup.plots else None
        self._series = sampler.series if sampler else plots.Series()
        deadline = start + setup.timeout
        joiner = self._peers[-1] if scenario.late_joiner else None
        floor = setup.floor or 0.0
        join_at = start + scenario.join_at * floor if scenario.join_at is not None else None
        kill_at = start + scenario.kill_at * floor if scenario.kill is not None else None
        for peer in self._peers:
            if peer is not joiner:
                peer.start(start + setup.start_of(peer.number), deadline)
        waiting = {reader.pipe: reader for peer in self._peers for reader in peer.readers}
        while waiting:
            now = time.monotonic()
            if now > deadline + _GRACE:
                return
            if sampler and now >= sampler.due:
                sampler.look()
            if kill_at is not None and now >= kill_at:
                self._kill(scenario.kill or 0)
                kill_at = None
            alone = joiner is not None and set(waiting) == {reader.pipe for reader in joiner.readers}
            if joiner and (now >= join_at if join_at is not None else alone):
                self._before_join = self._origin_sent() - self._sent_before
                joiner.start(now, deadline)
                joiner = None
            look_at = sampler.due if sampler else None
            known = (kill_at, join_at if joiner else None, look_at, deadline + _GRACE)
            events = [at for at in known if at is not None]
            pause = max(0.0, min(events) - now) if joiner is None or not alone else 0.0
            for pipe in wait(list(waiting), pause + 0.001):
                reader = waiting[pipe]  # type: ignore[index]
                reader.receive()
                if reader.done:
                    del waiting[pipe]  # type: ignore[arg-type]

    def _kill(self, peer: int) -> None:
        """SIGKILL to what the peer is."""
        if self._daemons:
            os.kill(self._daemons[peer - 1].pid, signal.SIGKILL)
        else:
            self._peers[peer - 1].kill()

    def _origin_sent(self) -> float:
        return sent_payload(self._lab.origin.namespace, "eth0")

    def _daemon_usage(self, index: int, before: processes.Usage) -> processes.Usage | None:
        try:
            return processes.usage(self._daemons[index].pid).since(before)
        except OSError:
            return None

    def _metrics(self) -> dict[str, float]:
        """The daemons' own counters, summed; a killed daemon has none left."""
        totals: dict[str, float] = {}
        for daemon in self._daemons:
            try:
                own = daemon.metrics()
            except (OSError, http.client.HTTPException):
                continue
            for name, value in own.items():
                totals[name] = totals.get(name, 0.0) + value
        return totals
