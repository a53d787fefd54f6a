"""The world that the sweep draws from: swarms as they come about, not as somebody chose them.

A scenario is a netlab command, so that each can be repeated alone, and the same in plain words of JSON, so that the
simulator can run it too.
"""

from __future__ import annotations

import math
import random

from lib.setup import Setup
from lib.units import FRAME, MIB, MSS

PEERS = (2, 40)
RATE = (10.0, 400.0)  # Mbit/s
CONTENTS = (1, 8)
CONTENT = (0.1, 60.0)  # MiB
SECONDS = (3.0, 8.0)  # that all contents together take on the quickest link
# Mbit/s of all peers together: what two processors carry without being what is measured.
CARRIED = 1500.0
UNLIKE = 0.3  # the share of the swarms with every other peer at a quarter


def draw(seed: int, number: int) -> list[str]:
    """netlab's arguments for one scenario of a seed; the same whatever the other ones are."""
    dice = random.Random(f"{seed}/{number}")
    peers = dice.randint(*PEERS)
    unlike = dice.random() < UNLIKE
    share = 0.625 if unlike else 1.0
    rate = _round(_between(dice, RATE[0], min(RATE[1], CARRIED / (peers * share))))
    rates = f"{rate:g},{rate / 4:g}" if unlike else f"{rate:g}"
    words = ["--peers", str(peers), "--rates", rates, "--sizes", ",".join(f"{size:g}" for size in _sizes(dice, rate))]
    words += ["--order", dice.choice(("same", "own"))]
    words += ["--every", dice.choice(("0", "0.2", "0.5"))]
    words += ["--delay", "0" if dice.random() < 0.4 else str(dice.randint(1, 30))]
    words += ["--loss", dice.choice(("0", "0", "0.1"))]
    return [*words, "--memory", "512MiB", "--seed", str(seed * 1000 + number)]


def plain(setup: Setup) -> dict[str, object]:
    """A scenario without anything that one has to know netlab for; bench/README.md says what each word means."""
    peers = range(1, setup.peers + 1)
    return {
        "peers": setup.peers,
        "rates_mbit": [setup.rate_of(peer) for peer in peers],
        "origin_mbit": setup.origin_rate,
        "contents": list(setup.sizes),
        "parallel": setup.parallel,
        "orders": [setup.order_of(peer) for peer in peers],
        "arrivals_s": [round(setup.start_of(peer), 3) for peer in peers],
        "delay_ms": setup.way.delay,
        "jitter_ms": setup.way.jitter,
        "loss_percent": setup.way.loss,
        "cc": setup.congestion,
    }


def bound(setup: Setup) -> float:
    """Seconds after which a run counts as not done: far beyond the slowest peer's floor."""
    slowest = max(setup.floor_of(peer) or 0.0 for peer in range(1, setup.peers + 1))
    return 30.0 + 15 * slowest + setup.start_of(setup.peers)


def _sizes(dice: random.Random, rate: float) -> list[float]:
    """MiB of each content: some are many times as large as others, as layers are."""
    total = dice.uniform(*SECONDS) * rate * 1e6 / 8 * MSS / FRAME / MIB
    least, most = math.ceil(total / CONTENT[1]), int(total / CONTENT[0])
    count = min(max(dice.randint(*CONTENTS), least), most)
    weights = [_between(dice, 1, 30) for _ in range(count)]
    parts = (total * weight / sum(weights) for weight in weights)
    return [round(min(max(part, CONTENT[0]), CONTENT[1]), 2) for part in parts]


def _between(dice: random.Random, low: float, high: float) -> float:
    """As often between 10 and 20 as between 100 and 200."""
    return low * (high / low) ** dice.random()


def _round(rate: float) -> float:
    """Two figures, for a command that can be read."""
    return float(f"{rate:.2g}")
