"""What happens to a swarm while it is measured: one word on the command line, one Scenario here."""

from __future__ import annotations

from dataclasses import dataclass

HELP = """all-at-once | slow-peer=MBIT (the last peer's link) | kill=PEER@FRACTION (SIGKILL when that share of S/B
has passed) | late-joiner[=FRACTION] (the last peer starts when the others have
finished, or at that share of S/B) | zones=MBIT[@MS] (the second half of the peers behind a link of that rate; with
@MS each way takes so long, the peers are in the zones by turns and have no labels) |
slow-reader=MBIT (the last peer's reader takes at that rate)"""


@dataclass(frozen=True)
class Scenario:
    """Deviations from "all peers are alike and start at once"."""

    text: str = "all-at-once"
    slow_peer: float | None = None
    kill: int | None = None
    kill_at: float = 0.0
    late_joiner: bool = False
    join_at: float | None = None
    zones: float | None = None
    way: float = 0.0
    slow_reader: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Scenario":
        """The scenario for a command line word; ValueError says what is wrong with it."""
        name, _, value = text.partition("=")
        if name == "all-at-once" and not value:
            return cls(text)
        if name == "slow-peer":
            return cls(text, slow_peer=_positive(value))
        if name == "kill":
            peer, _, share = value.partition("@")
            return cls(text, kill=int(peer), kill_at=float(share))
        if name == "late-joiner":
            return cls(text, late_joiner=True, join_at=_positive(value) if value else None)
        if name == "zones":
            rate, _, way = value.partition("@")
            return cls(text, zones=_positive(rate), way=_positive(way) if way else 0.0)
        if name == "slow-reader":
            return cls(text, slow_reader=_positive(value))
        raise ValueError(f"{text!r} is no scenario: {' '.join(HELP.split())}")

    def odd_peers(self, peers: int) -> set[int]:
        """Peers (from 1) that the scenario afflicts: the goal speaks of the others."""
        if self.kill is not None:
            return {self.kill}
        if self.slow_peer is not None or self.slow_reader is not None or self.late_joiner:
            return {peers}
        return set()

    def rate_of(self, peer: int, peers: int, rate: float) -> float:
        """The link rate of a peer."""
        return self.slow_peer if self.slow_peer is not None and peer == peers else rate

    def pace_of(self, peer: int, peers: int) -> float:
        """Bytes per second a peer's reader takes at most; 0: all it can get."""
        return self.slow_reader * 1e6 / 8 if self.slow_reader is not None and peer == peers else 0.0

    def zone_of(self, peer: int, peers: int) -> int:
        """The zone (0 has the origin and the supernode) of a peer."""
        if self.zones is None:
            return 0
        return (peer - 1) % 2 if self.way else int(peer > (peers + 1) // 2)


def _positive(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise ValueError(f"{text!r} must be above 0")
    return value
