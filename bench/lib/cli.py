"""The options that netlab and compare share, and how a command ends."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Callable

from lib import scratch
from lib.pantala import Programs
from lib.scenario import HELP, Scenario
from lib.swarm import Setup
from lib.system import REPOSITORY, BenchError, end_on_signals, fail, need_programs, need_root
from lib.units import MIB, parse_size, wire_seconds

_PROGRAMS = ("dfget", "dfdaemon", "supernode")
_UNLIMITED = 1000.0  # Mbit/s that a link without a limit counts as where a timeout is worked out


def add_program_options(parser: argparse.ArgumentParser) -> None:
    """Where Pantala's programs are and what they get on top."""
    parser.add_argument("--bin", type=Path, default=REPOSITORY / "target/release", help="directory of the programs")
    for program in _PROGRAMS:
        explanation = f"more arguments for {program}, quoted as one"
        parser.add_argument(f"--{program}-args", default="", metavar="ARGS", help=explanation)


def add_swarm_options(parser: argparse.ArgumentParser) -> None:
    """Links, content, scenario."""
    parser.add_argument("--peers", type=int, default=8)
    parser.add_argument("--rate", type=float, default=200, help="Mbit/s of each link, both ways; 0: not limited")
    parser.add_argument("--origin-rate", type=float, help="Mbit/s of the origin's link (default: --rate)")
    parser.add_argument("--size", type=float, default=64, help="MiB of content")
    parser.add_argument("--memory", default="256MiB", help="--memory of dfget and dfdaemon")
    parser.add_argument("--window", help="--window of dfget and dfdaemon (default: theirs)")
    parser.add_argument("--scenario", default="all-at-once", help=HELP)
    parser.add_argument("--webseed", action="store_true", help="BitTorrent: nginx is the origin, not a seeder")
    parser.add_argument("--rqbit", default="rqbit", metavar="PATH", help="the program rqbit (default: on the PATH)")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="of the content's bytes")
    parser.add_argument("--timeout", type=float, help="seconds for one run (default: 10 x everybody from the origin)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures there")
    add_program_options(parser)


def programs(args: argparse.Namespace) -> Programs:
    """Pantala's programs with the arguments that every start of them gets."""
    extra = {name: shlex.split(getattr(args, f"{name}_args")) for name in _PROGRAMS}
    if getattr(args, "window", None):
        for name in ("dfget", "dfdaemon"):
            extra[name] += ["--window", args.window]
    return Programs(args.bin.resolve(), extra)


def setup(args: argparse.Namespace, mode: str) -> Setup:
    """What the command line asks for, checked."""
    origin_rate = args.rate if args.origin_rate is None else args.origin_rate
    try:
        scenario = Scenario.parse(args.scenario)
        parse_size(args.memory)
    except ValueError as error:
        raise BenchError(str(error)) from None
    if not 1 <= args.peers <= 1000:
        raise BenchError("--peers must be between 1 and 1000")
    if scenario.kill is not None and not 1 <= scenario.kill <= args.peers:
        raise BenchError(f"there is no peer {scenario.kill} to kill")
    if args.rate <= 0 and (scenario.kill is not None or scenario.join_at is not None):
        raise BenchError("a share of S/B needs limited links: give --rate")
    size = int(args.size * MIB)
    return Setup(
        mode=mode,
        peers=args.peers,
        rate=args.rate,
        origin_rate=origin_rate,
        size=size,
        memory=args.memory,
        scenario=scenario,
        seed=args.seed,
        programs=programs(args),
        webseed=args.webseed,
        rqbit=args.rqbit,
        timeout=args.timeout or _timeout(size, args.peers, args.rate, origin_rate, scenario),
    )


def _timeout(size: int, peers: int, rate: float, origin_rate: float, scenario: Scenario) -> float:
    """Long enough for the slowest way there is, so that only what hangs runs into it."""
    from_origin = peers * wire_seconds(size, min(rate or _UNLIMITED, origin_rate or _UNLIMITED))
    slowest = min(limit for limit in (scenario.slow_peer, scenario.slow_reader, scenario.zones, _UNLIMITED) if limit)
    return 30.0 + 10 * from_origin + 2 * wire_seconds(size, slowest) + peers * scenario.stagger


def command(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Runs a command: what the person can mend is said without a traceback, signals clean up."""
    args = parser.parse_args()
    end_on_signals()
    try:
        need_root()
        need_programs("ip", "tc", "nginx")
        scratch.sweep()
        main(args)
    except BenchError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
