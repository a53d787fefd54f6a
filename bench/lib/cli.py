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
from lib.setup import Setup
from lib.system import REPOSITORY, BenchError, end_on_signals, fail, need_programs, need_root
from lib.units import MIB, parse_size, wire_seconds
from lib.ways import Way

PROGRAMS = ("dfget", "dfdaemon", "supernode")
_UNLIMITED = 1000.0  # Mbit/s that a link without a limit counts as where a timeout is worked out


def add_program_options(parser: argparse.ArgumentParser) -> None:
    """Where Pantala's programs are and what they get on top."""
    parser.add_argument("--bin", type=Path, default=REPOSITORY / "target/release", help="directory of the programs")
    for program in PROGRAMS:
        explanation = f"more arguments for {program}, quoted as one"
        parser.add_argument(f"--{program}-args", default="", metavar="ARGS", help=explanation)


def add_swarm_options(parser: argparse.ArgumentParser) -> None:
    """Links, contents, arrivals, scenario."""
    links = parser.add_argument_group("links")
    links.add_argument("--peers", type=int, default=8)
    links.add_argument("--rate", type=float, default=200, help="Mbit/s of each link, both ways; 0: not limited")
    links.add_argument("--rates", metavar="LIST", help="the peers' links by turns, as 200,50, instead of --rate")
    links.add_argument("--origin-rate", type=float, help="of the origin's link (default: the peers' quickest)")
    links.add_argument("--delay", type=float, default=0, metavar="MS", help="one way, between any two hosts")
    links.add_argument("--jitter", type=float, default=0, metavar="MS", help="up to that much sooner or later")
    links.add_argument("--loss", type=float, default=0, metavar="PERCENT", help="of the packets, on each way")
    links.add_argument("--cc", metavar="NAME", help="TCP's congestion control, bbr or cubic (default: the kernel's)")
    contents = parser.add_argument_group("contents, and who reads them when")
    contents.add_argument("--size", type=float, default=64, help="MiB of a content")
    contents.add_argument("--files", type=int, help="contents (default: 1, or as many as --sizes has)")
    contents.add_argument("--sizes", metavar="LIST", help="MiB of each, as 72,8,8; 1-24 with --files 6: from 1 to 24")
    contents.add_argument("--parallel", type=int, default=3, metavar="K", help="contents that a peer reads at once")
    contents.add_argument("--order", choices=("same", "own"), default="same", help="own: shuffled for each peer")
    contents.add_argument("--every", type=float, default=0, metavar="SECONDS", help="between two starts")
    contents.add_argument("--seed", type=int, default=1, help="of the contents' bytes, of the orders, of what is lost")
    parser.add_argument("--memory", default="256MiB", help="--memory of dfget and dfdaemon")
    parser.add_argument("--window", help="--window of dfget and dfdaemon (default: theirs)")
    parser.add_argument("--scenario", default="all-at-once", help=HELP)
    parser.add_argument("--webseed", action="store_true", help="BitTorrent: nginx is the origin, not a seeder")
    parser.add_argument("--rqbit", default="rqbit", metavar="PATH", help="the program rqbit (default: on the PATH)")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--timeout", type=float, help="seconds for one run (default: 10 x everybody from the origin)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures there")
    add_program_options(parser)


def programs(args: argparse.Namespace) -> Programs:
    """Pantala's programs with the arguments that every start of them gets."""
    extra = {name: shlex.split(getattr(args, f"{name}_args")) for name in PROGRAMS}
    if getattr(args, "window", None):
        for name in ("dfget", "dfdaemon"):
            extra[name] += ["--window", args.window]
    return Programs(args.bin.resolve(), extra)


def setup(args: argparse.Namespace, mode: str) -> Setup:
    """What the command line asks for, checked."""
    try:
        scenario = Scenario.parse(args.scenario)
        parse_size(args.memory)
        rates = tuple(float(rate) for rate in args.rates.split(",")) if args.rates else (args.rate,)
        sizes = _sizes(args)
    except ValueError as error:
        raise BenchError(str(error)) from None
    if not 1 <= args.peers <= 1000:
        raise BenchError("--peers must be between 1 and 1000")
    if args.parallel < 1 or min(args.delay, args.jitter, args.loss, args.every) < 0 or args.loss >= 100:
        raise BenchError("--parallel must be 1 or more; --delay, --jitter, --every and --loss 0 or more, --loss below 100")
    if scenario.kill is not None and not 1 <= scenario.kill <= args.peers:
        raise BenchError(f"there is no peer {scenario.kill} to kill")
    if min(rates) <= 0 and (scenario.kill is not None or scenario.join_at is not None):
        raise BenchError("a share of S/B needs limited links: give --rate")
    quickest = 0.0 if 0 in rates else max(rates)
    origin_rate = quickest if args.origin_rate is None else args.origin_rate
    return Setup(
        mode=mode,
        peers=args.peers,
        rates=rates,
        origin_rate=origin_rate,
        sizes=sizes,
        parallel=args.parallel,
        own_order=args.order == "own",
        every=args.every,
        way=Way(args.delay, args.jitter, args.loss),
        congestion=args.cc,
        memory=args.memory,
        scenario=scenario,
        seed=args.seed,
        programs=programs(args),
        webseed=args.webseed,
        rqbit=args.rqbit,
        timeout=args.timeout or _timeout(sum(sizes), args.peers, [*rates, origin_rate], args.every, scenario),
    )


def _sizes(args: argparse.Namespace) -> tuple[int, ...]:
    """Bytes of each content. A range goes from its least to its most by equal factors."""
    least, dash, most = (args.sizes or "").partition("-")
    if dash:
        count = args.files or 2
        low, high = float(least), float(most)
        if not 0 < low <= high or count < 2:
            raise ValueError("--sizes LEAST-MOST is for two contents or more, the smallest first")
        mebibytes = [low * (high / low) ** (number / (count - 1)) for number in range(count)]
    else:
        listed = [float(size) for size in least.split(",")] if least else [args.size]
        mebibytes = [listed[number % len(listed)] for number in range(args.files or len(listed))]
    if not mebibytes or min(mebibytes) * MIB < 1:
        raise ValueError("there must be a content, of a byte or more")
    return tuple(round(size * MIB) for size in mebibytes)


def _timeout(size: int, peers: int, rates: list[float], every: float, scenario: Scenario) -> float:
    """Long enough for the slowest way there is, so that only what hangs runs into it."""
    from_origin = peers * wire_seconds(size, min(rate or _UNLIMITED for rate in rates))
    slowest = min(limit for limit in (scenario.slow_peer, scenario.slow_reader, scenario.zones, _UNLIMITED) if limit)
    return 30.0 + 10 * from_origin + 2 * wire_seconds(size, slowest) + peers * every


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
