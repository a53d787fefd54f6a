"""What came out of one run: by content, by peer, and the figures that are compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Callable

from lib import plots, processes
from lib.meter import Outcome
from lib.setup import Setup
from lib.units import MIB, largest, median, parse_size
from lib.ways import Carried


@dataclass
class PeerResult:
    """One peer's figures. Times are in seconds from its own start, which is in seconds from the common one."""

    peer: int
    start: float
    odd: bool
    rate: float
    floor: float | None
    outcomes: dict[int, Outcome]  # by content; those that it began with
    usage: processes.Usage | None
    sent: float
    received: float

    def last_byte(self) -> float | None:
        """When it had everything; None when it has not."""
        if not self.outcomes or not all(outcome.complete for outcome in self.outcomes.values()):
            return None
        return largest(outcome.begun + (outcome.last_byte or 0.0) for outcome in self.outcomes.values())

    def ratio(self) -> float | None:
        """Its last byte ÷ its own floor."""
        last = self.last_byte()
        return last / self.floor if last is not None and self.floor else None

    def most(self, of: Callable[[Outcome], float | None]) -> float | None:
        """The largest figure of its contents, such as the longest wait for a first byte."""
        return largest(of(outcome) for outcome in self.outcomes.values())

    def wrong(self) -> int | None:
        """The first wrong byte of any content."""
        return next((it.wrong_at for it in self.outcomes.values() if it.wrong_at is not None), None)

    def error(self) -> str | None:
        """What went wrong first."""
        return next((outcome.error for outcome in self.outcomes.values() if outcome.error), None)

    def progress(self) -> list[tuple[float, int]]:
        """Bytes that it has in order, of all contents together, over time."""
        steps = []
        for outcome in self.outcomes.values():
            before = 0
            for at, got in outcome.progress:
                steps.append((outcome.begun + at, got - before))
                before = got
        total, line = 0, []
        for at, step in sorted(steps):
            total += step
            line.append((at, total))
        return line


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
    carried: list[Carried] = field(default_factory=list)
    seconds: float = 0.0
    load: float = 0.0  # of the machine, the minute before
    busy: float = 0.0  # the share of all processors' time in which they worked, for whomever
    metrics: dict[str, float] = field(default_factory=dict)
    series: plots.Series = field(default_factory=plots.Series)

    @property
    def others(self) -> list[PeerResult]:
        """The peers that the scenario leaves alone."""
        return [peer for peer in self.peers if not peer.odd]

    def complete(self) -> bool:
        """Whether all of the others got everything."""
        return all(peer.last_byte() is not None for peer in self.others)

    def last_byte(self) -> float | None:
        """When the one of the others that took longest was done; None unless all of them are."""
        return largest(peer.last_byte() for peer in self.others) if self.complete() else None

    def ratio(self, rate: float | None = None) -> float | None:
        """The worst peer's last byte ÷ its own floor, of all or of those with links of one rate; None unless all of
        them have everything."""
        ratios = [peer.ratio() for peer in self.others if rate in (None, peer.rate)]
        return largest(ratios) if None not in ratios else None

    def median_ratio(self, rate: float | None = None) -> float | None:
        """The median peer's."""
        return median(peer.ratio() for peer in self.others if rate in (None, peer.rate))

    def most(self, of: Callable[[Outcome], float | None]) -> float | None:
        """The largest figure of any content at any of the others."""
        return largest(peer.most(of) for peer in self.others)

    def first_byte(self) -> float | None:
        """The longest wait of any reader for the first byte of a content."""
        return self.most(lambda outcome: outcome.first_byte)

    def first_mib(self) -> float | None:
        """The same for the first in-order MiB, or the whole content where it is smaller."""
        return self.most(lambda outcome: outcome.first_mib)

    def longest_stall(self) -> float | None:
        """The longest wait of any reader between two reads."""
        return self.most(lambda outcome: outcome.longest_stall)

    def origin_ratio(self) -> float:
        """Bytes that left the origin ÷ S, by the counter of its link, which any kind of origin has."""
        return self.origin_sent / self.setup.size

    def most_sent(self) -> float | None:
        """What the host that sent most has sent ÷ S, which is what each of them reads."""
        return largest(peer.sent / self.setup.size for peer in self.peers)

    def wrong_bytes(self) -> bool:
        """Whether a reader got anything but the original."""
        return any(peer.wrong() is not None for peer in self.peers)

    def total(self, cost: str) -> float | None:
        """A cost summed over the peers that could be asked for it."""
        parts = [getattr(peer.usage, cost) for peer in self.peers if peer.usage]
        return sum(parts) if parts else None

    def peak_rss(self) -> float | None:
        """The largest peer."""
        return largest(peer.usage.peak_rss for peer in self.peers if peer.usage)

    def over_cap(self) -> float | None:
        """Bytes that the largest peer was above the cap + 10 % + 32 MiB (negative: within). None where the peer is
        several programs, each with a cap of its own."""
        peak, setup = self.peak_rss(), self.setup
        one_program = setup.mode == "daemon" or (setup.mode == "dfget" and len(setup.sizes) == 1)
        return peak - (parse_size(setup.memory) * 1.1 + 32 * MIB) if peak is not None and one_program else None

    def summary(self) -> dict[str, object]:
        """The figures that are compared."""
        return {
            "last_byte": self.last_byte(),
            "ratio": self.ratio(),
            "median_ratio": self.median_ratio(),
            "first_byte": self.first_byte(),
            "first_mib": self.first_mib(),
            "longest_stall": self.longest_stall(),
            "origin_requests": self.origin_requests,
            "origin_logged": self.origin_logged,
            "origin_sent": self.origin_sent,
            "origin_ratio": self.origin_ratio(),
            "most_sent": self.most_sent(),
            "before_join": self.before_join,
            "crossed": self.crossed,
            "cpu": self.total("cpu"),
            "peak_rss": self.peak_rss(),
            "seconds": self.seconds,
            "load": self.load,
            "busy": self.busy,
        }

    def as_dict(self) -> dict[str, object]:
        """Everything, for --json."""
        return {
            "setup": self.setup.as_dict(),
            "summary": self.summary(),
            "switches": [asdict(it) for it in self.carried],
            "metrics": self.metrics,
            "series": asdict(self.series),
            "peers": [
                {**asdict(peer), "order": self.setup.order_of(peer.peer), "last_byte": peer.last_byte(), "ratio": peer.ratio()}
                for peer in self.peers
            ],
        }
