"""One measured run of a swarm: the lab goes up, everybody starts, the lab comes down, and a Result remains."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import time
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Iterator

from lib import modes, nginx, pantala, plots, processes, scratch
from lib.content import write_random
from lib.network import Host, Network, sent_payload
from lib.readers import Outcome, Reader
from lib.scenario import Scenario
from lib.system import BenchError
from lib.units import MIB, largest, parse_size, wire_seconds

_NET = "10.201"
_GRACE = 2.0  # seconds for readers that gave up to say how far they came
_LEAD = 0.3  # seconds between "all readers are up" and the start instant


@dataclass(frozen=True)
class Setup:
    """What is measured."""

    mode: str
    peers: int
    rate: float
    origin_rate: float
    size: int
    memory: str
    scenario: Scenario
    seed: int
    programs: pantala.Programs
    webseed: bool
    rqbit: str
    timeout: float
    plots: bool = False

    @property
    def floor(self) -> float | None:
        """S/B in seconds: no swarm can be faster; None on links without a limit."""
        limits = [rate for rate in (self.rate, self.origin_rate) if rate > 0]
        return wire_seconds(self.size, min(limits)) if limits else None


@dataclass
class PeerResult:
    """One peer's figures; times in seconds from its own start, which is in seconds from the common one."""

    peer: int
    start: float
    odd: bool
    outcome: Outcome
    usage: processes.Usage | None


@dataclass
class Result:
    """One run."""

    setup: Setup
    peers: list[PeerResult] = field(default_factory=list)
    origin_requests: int = 0
    origin_logged: int = 0
    origin_sent: float = 0.0
    before_join: float | None = None
    crossed: tuple[float, float] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    series: plots.Series = field(default_factory=plots.Series)

    @property
    def others(self) -> list[PeerResult]:
        """The peers that the scenario leaves alone."""
        return [peer for peer in self.peers if not peer.odd]

    def last_byte(self) -> float | None:
        """When the last of the others was done; None unless all of them are."""
        if not all(peer.outcome.complete for peer in self.others):
            return None
        return largest(peer.outcome.last_byte for peer in self.others)

    def ratio(self) -> float | None:
        """Last byte ÷ (S/B)."""
        last, floor = self.last_byte(), self.setup.floor
        return last / floor if last is not None and floor else None

    def first_mib(self) -> float | None:
        """The first in-order MiB at the reader that waited longest for it."""
        return largest(peer.outcome.first_mib for peer in self.others)

    def longest_stall(self) -> float | None:
        """The longest wait of any reader between two reads."""
        return largest(peer.outcome.longest_stall for peer in self.others)

    def origin_ratio(self) -> float:
        """Bytes that left the origin ÷ S, by the counter of its link, which any kind of origin has."""
        return self.origin_sent / self.setup.size

    def wrong_bytes(self) -> bool:
        """Whether a reader got anything but the original."""
        return any(peer.outcome.wrong_at is not None for peer in self.peers)

    def total(self, cost: str) -> float | None:
        """A cost summed over the peers that could be asked for it."""
        parts = [getattr(peer.usage, cost) for peer in self.peers if peer.usage]
        return sum(parts) if parts else None

    def peak_rss(self) -> float | None:
        """The largest peer."""
        return largest(peer.usage.peak_rss for peer in self.peers if peer.usage)

    def over_cap(self) -> float | None:
        """Bytes that the largest peer was above the cap + 10 % + 32 MiB (negative: within)."""
        peak = self.peak_rss()
        if peak is None or self.setup.mode not in ("dfget", "daemon"):
            return None
        return peak - (parse_size(self.setup.memory) * 1.1 + 32 * MIB)

    def as_dict(self) -> dict[str, object]:
        """Everything, for --json."""
        setup = {name: value for name, value in vars(self.setup).items() if name not in ("programs", "scenario")}
        return {
            "setup": {**setup, "scenario": self.setup.scenario.text, "floor": self.setup.floor},
            "summary": {
                "last_byte": self.last_byte(),
                "ratio": self.ratio(),
                "first_mib": self.first_mib(),
                "longest_stall": self.longest_stall(),
                "origin_requests": self.origin_requests,
                "origin_logged": self.origin_logged,
                "origin_sent": self.origin_sent,
                "before_join": self.before_join,
                "crossed": self.crossed,
                "cpu": self.total("cpu"),
                "peak_rss": self.peak_rss(),
            },
            "metrics": self.metrics,
            "series": asdict(self.series),
            "peers": [asdict(peer) for peer in self.peers],
        }


@contextlib.contextmanager
def content_file(size: int, seed: int) -> Iterator[Path]:
    """The content, in memory where the machine has /dev/shm, so that no disk is part of the measurement."""
    with scratch.directory(scratch.in_memory(size)) as directory:
        path = directory / "content.bin"
        write_random(path, size, seed)
        yield path


def measure(setup: Setup, content: Path) -> Result:
    """Builds the lab, runs the swarm once, takes everything down again."""
    result = Result(setup)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(scratch.directory())
        network = stack.enter_context(Network())
        lab = _build(setup, network, content, directory)
        mode = modes.by_name(setup.mode, setup.webseed, setup.rqbit)
        # nginx goes last, when nobody reads any more: its log is complete only then.
        with nginx.serving(
            directory / "nginx",
            nginx.static_server(content.parent, lab.origin.address, 80),
            lab.origin.address,
            80,
            lab.origin.namespace,
        ) as origin:
            with contextlib.ExitStack() as services:
                _Run(setup, lab, network, mode, origin, services).into(result)
        served = origin.served()
        result.origin_requests, result.origin_logged = served.requests, served.body_bytes
    return result


def _build(setup: Setup, network: Network, content: Path, directory: Path) -> modes.Lab:
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
        rate = scenario.rate_of(number, setup.peers, setup.rate)
        peers.append(network.add_host(f"peer{number}", address, rate, scenario.zone_of(number, setup.peers)))
    url = f"http://{origin.address}/{content.name}"
    return modes.Lab(origin, supernode, peers, url, content, directory, setup.memory, setup.programs)


class _Run:
    """The time between the start instant and the last reader's end."""

    def __init__(
        self,
        setup: Setup,
        lab: modes.Lab,
        network: Network,
        mode: modes.Mode,
        origin: nginx.Nginx,
        stack: contextlib.ExitStack,
    ) -> None:
        self._setup, self._lab, self._network, self._origin = setup, lab, network, origin
        self._daemons = mode.services(lab, stack)
        paces = [setup.scenario.pace_of(number, setup.peers) for number in range(1, setup.peers + 1)]
        specs = [mode.reader(lab, peer, index) for index, peer in enumerate(lab.peers)]
        self._readers = [Reader(replace(spec, pace=pace)) for spec, pace in zip(specs, paces)]
        for reader in self._readers:
            stack.callback(reader.close)
        self._sent_before = self._origin_sent()
        self._before_join: float | None = None

    def into(self, result: Result) -> None:
        """Runs it and fills in what can be known before the origin has ended."""
        usage_before = [processes.usage(daemon.pid) for daemon in self._daemons]
        self._go()
        result.origin_sent = self._origin_sent() - self._sent_before
        result.before_join = self._before_join
        result.crossed = self._network.crossed() if self._setup.scenario.zones is not None else None
        result.metrics = self._metrics()
        result.series = self._series
        for reader in self._readers:
            reader.finish()
        odd = self._setup.scenario.odd_peers(self._setup.peers)
        for index, reader in enumerate(self._readers):
            usage = reader.usage
            if self._daemons:
                usage = self._daemon_usage(index, usage_before[index])
            outcome = reader.outcome or Outcome(error="never answered")
            begun = (reader.started or self._start) - self._start
            result.peers.append(PeerResult(index + 1, begun, index + 1 in odd, outcome, usage))

    def _go(self) -> None:
        """Starts the readers and waits for them, with the scenario's events in between."""
        scenario, start = self._setup.scenario, time.monotonic() + _LEAD
        self._start = start
        sampler = plots.Sampler(self._lab.origin, self._daemons, start) if self._setup.plots else None
        self._series = sampler.series if sampler else plots.Series()
        deadline = start + self._setup.timeout
        joiner = self._readers[-1] if scenario.late_joiner else None
        floor = self._setup.floor or 0.0
        join_at = start + scenario.join_at * floor if scenario.join_at is not None else None
        kill_at = start + scenario.kill_at * floor if scenario.kill is not None else None
        for index, reader in enumerate(self._readers):
            if reader is not joiner:
                reader.start(start + index * scenario.stagger, deadline)
        waiting = {reader.pipe: reader for reader in self._readers}
        while waiting:
            now = time.monotonic()
            if now > deadline + _GRACE:
                return
            if sampler and now >= sampler.due:
                sampler.look()
            if kill_at is not None and now >= kill_at:
                self._kill(scenario.kill or 0)
                kill_at = None
            if joiner and (now >= join_at if join_at is not None else set(waiting) == {joiner.pipe}):
                self._before_join = self._origin_sent() - self._sent_before
                joiner.start(now, deadline)
                joiner = None
            look_at = sampler.due if sampler else None
            known = (kill_at, join_at if joiner else None, look_at, deadline + _GRACE)
            events = [at for at in known if at is not None]
            pause = max(0.0, min(events) - now) if set(waiting) != {joiner and joiner.pipe} else 0.0
            for pipe in wait(list(waiting), pause + 0.001):
                reader = waiting[pipe]  # type: ignore[index]
                reader.receive()
                if reader.outcome:
                    del waiting[pipe]  # type: ignore[arg-type]

    def _kill(self, peer: int) -> None:
        """SIGKILL to the program that is the peer."""
        if self._daemons:
            os.kill(self._daemons[peer - 1].pid, signal.SIGKILL)
            return
        reader = self._readers[peer - 1]
        if reader.program is None or reader.outcome is not None:
            raise BenchError(f"peer {peer} was not running at the instant it should be killed")
        os.kill(reader.program, signal.SIGKILL)

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
