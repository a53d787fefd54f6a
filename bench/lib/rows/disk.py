"""Row c: what `dfget -o FILE` does to the disk."""

from __future__ import annotations

import os

from lib.content import Truth
from lib.fetch import run_timed
from lib.processes import Usage
from lib.site import Bench, Row, Site, site
from lib.system import BenchError
from lib.units import MIB, median, number

SIZE = 256 * MIB


def measure(bench: Bench) -> list[Row]:
    """Cold downloads to a file, by turns with curl; the kernel's counters of the process say what reached the disk."""
    ours: list[Usage] = []
    theirs: list[Usage] = []
    with site(bench) as place:
        name = place.content(SIZE)
        # The first start reads the program itself from the disk, which is not what is asked.
        run_timed([*bench.programs.argv("dfget"), "--version"], place.namespace, place.log("dfget"))
        for _ in range(bench.repeat):
            ours.append(_download(place, name, dfget=True))
            theirs.append(_download(place, name, dfget=False))
    return [
        Row(
            "c",
            "dfget -o FILE: disk writes, reads ÷ S",
            f"curl {_shares(theirs)}",
            "1.00, 0",
            _shares(ours),
        )
    ]


def _shares(runs: list[Usage]) -> str:
    written = median(run.disk_written / SIZE for run in runs)
    read = median(run.disk_read / SIZE for run in runs)
    return f"{number(written)}, {number(read)}"


def _download(place: Site, name: str, dfget: bool) -> Usage:
    """One download to a file on the real disk, which must then hold the right bytes."""
    url, target = place.url(place.alias(name)), place.directory / "download.bin"
    if dfget:
        argv = place.bench.programs.dfget(url, str(target), place.supernode_at, place.node_address, "256MiB")
    else:
        argv = ["curl", "-sS", "-f", "-o", str(target), url]
    cost = run_timed(argv, place.namespace, place.log("download")).usage
    os.sync()
    _check(place, name, argv[0])
    target.unlink()
    return cost


def _check(place: Site, name: str, program: str) -> None:
    original, copy = Truth(place.files / name), Truth(place.directory / "download.bin")
    if original.size != copy.size or not original.same(copy.address, 0, copy.size):
        raise BenchError(f"{program} wrote a file that is not the original")
