"""Row l: three hundred small contents to eight nodes at once, beside the same readers straight from the origin."""

from __future__ import annotations

import argparse
from dataclasses import replace

from lib import cli, swarm
from lib.result import Result
from lib.setup import Setup
from lib.site import Bench, Row
from lib.system import BenchError
from lib.units import KIB, MIB, median, number

FILES = 300
SIZE = 16 * KIB
PEERS = 8
RATE = 200  # Mbit/s of each link, the origin's too


def measure(bench: Bench) -> list[Row]:
    """By turns, in the networks of `bench/netlab`."""
    setups = {mode: _setup(bench, mode) for mode in ("straight", "daemon")}
    results: dict[str, list[Result]] = {mode: [] for mode in setups}
    with swarm.contents(setups["daemon"]) as contents:
        for _ in range(bench.repeat):
            for mode, setup in setups.items():
                result = swarm.measure(setup, contents)
                if result.wrong_bytes() or not result.complete():
                    raise BenchError(f"{mode}: not every node got everything: run bench/netlab with that mode to see why")
                results[mode].append(result)
    straight, ours = results["straight"], results["daemon"]
    ratio = median((our.last_byte() or 0) / (their.last_byte() or 1) for our, their in zip(ours, straight))
    return [
        Row(
            "l",
            f"{FILES} × {SIZE // KIB} KiB to {PEERS} nodes at {RATE} Mbit/s, {setups['daemon'].parallel} at a time: last node ÷ "
            "each from the origin",
            f"from the origin {_figures(straight)}",
            f"≤ 1.0; {FILES} requests",
            f"{number(ratio)} ({_figures(ours)}; CPU of all daemons {number(median(run.total('cpu') for run in ours), 1)} s)",
        )
    ]


def _figures(runs: list[Result]) -> str:
    return (
        f"{number(median(run.last_byte() for run in runs))} s, longest wait for a first byte "
        f"{number((median(run.first_byte() for run in runs) or 0) * 1e3, 0)} ms, "
        f"{number(median(run.origin_requests for run in runs), 0)} requests"
    )


def _setup(bench: Bench, mode: str) -> Setup:
    parser = argparse.ArgumentParser()
    cli.add_swarm_options(parser)
    words = ["--peers", PEERS, "--rate", RATE, "--files", FILES, "--size", SIZE / MIB, "--seed", bench.seed]
    setup = cli.setup(parser.parse_args([str(word) for word in words]), mode)
    return replace(setup, programs=bench.programs)
