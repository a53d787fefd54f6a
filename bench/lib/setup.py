"""What is measured: the swarm, its links, its contents and who reads what when. One Setup is one netlab command."""

from __future__ import annotations

import random
from dataclasses import dataclass

from lib import pantala
from lib.scenario import Scenario
from lib.units import wire_seconds
from lib.ways import Way


@dataclass(frozen=True)
class Setup:
    """One measurement. Peers count from 1, contents from 0."""

    mode: str
    peers: int
    rates: tuple[float, ...]  # Mbit/s of the peers' links, over and over; 0 is not limited
    origin_rate: float
    sizes: tuple[int, ...]
    parallel: int  # contents that a peer reads at once
    own_order: bool  # each peer has an order of its own, not that of `sizes`
    every: float  # seconds between two starts
    way: Way
    congestion: str | None  # None: the kernel's own choice
    memory: str
    scenario: Scenario
    seed: int
    programs: pantala.Programs
    webseed: bool
    rqbit: str
    timeout: float
    plots: bool = False

    @property
    def size(self) -> int:
        """S: the bytes that each peer reads."""
        return sum(self.sizes)

    @property
    def rate(self) -> float:
        """The rate of the quickest link of a peer; 0 where one is not limited."""
        return 0.0 if 0 in self.rates else max(self.rates)

    @property
    def floor(self) -> float | None:
        """S/B in seconds for the quickest link; None on links without a limit."""
        return self._floor(self.rate)

    def rate_of(self, peer: int) -> float:
        """The rate of a peer's link."""
        return self.scenario.rate_of(peer, self.peers, self.rates[(peer - 1) % len(self.rates)])

    def floor_of(self, peer: int) -> float | None:
        """Seconds in which no peer with that link can have read everything. The afflicted peer of a scenario is
        measured against the link that it would have had."""
        return self._floor(self.rates[(peer - 1) % len(self.rates)])

    def order_of(self, peer: int) -> list[int]:
        """The contents in the order in which a peer asks for them: always the same for a seed."""
        order = list(range(len(self.sizes)))
        if self.own_order:
            random.Random(f"{self.seed}/{peer}").shuffle(order)
        return order

    def start_of(self, peer: int) -> float:
        """When a peer starts, in seconds after the first one."""
        return (peer - 1) * self.every

    def _floor(self, rate: float) -> float | None:
        limits = [limit for limit in (rate, self.origin_rate) if limit > 0]
        return wire_seconds(self.size, min(limits)) if limits else None

    def as_dict(self) -> dict[str, object]:
        """Everything but the programs, for --json."""
        own = {name: value for name, value in vars(self).items() if name != "programs"}
        return {**own, "scenario": self.scenario.text, "way": vars(self.way), "size": self.size, "floor": self.floor}
