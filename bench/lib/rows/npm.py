"""Row m: `npm ci` of some hundred packages from a registry of our own, straight and through dfdaemon.

npm itself makes the lock file, from `npm.json`, and fetches the packages once, from wherever it is configured to. After
that they are files of the origin, and the lock file names it for each of them. Each turn has a supernode of its own: one
that knows the contents, though nobody has them any more, would have the origin asked whether they are the same.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lib import processes, scratch
from lib.fetch import run_timed
from lib.pantala import Daemon
from lib.site import Bench, Row, Site, site
from lib.system import BenchError, need_programs
from lib.units import MIB, median, number

_MANIFEST = Path(__file__).with_name("npm.json")
_QUIET = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
_FETCH_SECONDS = 600.0
_RUN_SECONDS = 300.0
# A proxy of the environment is not part of what is measured.
_ENV = ["env", *(word for name in ("http_proxy", "https_proxy", "no_proxy") for word in ("-u", name, "-u", name.upper()))]


@dataclass(frozen=True)
class _Registry:
    """A project and its packages, as they lie at an origin."""

    lock: dict[str, object]
    files: Path
    packages: int
    size: int


def measure(bench: Bench) -> list[Row]:
    """By turns: straight, through a daemon that has nothing, through the same once more. npm's cache is new each time."""
    need_programs("npm")
    straight: list[float] = []
    cold: list[float] = []
    warm: list[float] = []
    cpu: list[float] = []
    requests: list[int] = []
    with scratch.directory(scratch.in_memory(256 * MIB)) as work:
        registry = _mirror(work)
        for turn in range(bench.repeat):
            with site(bench, bench.rate) as place:
                shutil.copytree(registry.files, place.files, dirs_exist_ok=True)
                straight.append(_install(place, registry, work / f"straight-{turn}", None))
                before = place.origin.served().requests
                with place.daemon("512MiB") as daemon:
                    cold.append(_install(place, registry, work / f"cold-{turn}", daemon))
                    requests.append(place.origin.served().requests - before)
                    cpu.append(processes.usage(daemon.pid).cpu)
                    warm.append(_install(place, registry, work / f"warm-{turn}", daemon))
    ratios = [median(ours / theirs for ours, theirs in zip(runs, straight)) for runs in (cold, warm)]
    link = f"origin's link {bench.rate:g} Mbit/s" if bench.rate else "unshaped"
    return [
        Row(
            "m",
            f"npm ci, {registry.packages} packages, {registry.size / MIB:.1f} MiB, npm's cache empty, {link}: through "
            "dfdaemon ÷ straight; once more, from its memory",
            f"straight {number(median(straight))} s",
            "≤ 1.0",
            f"{number(ratios[0])}; {number(ratios[1])} ({number(median(cold))}, {number(median(warm))} s; the first takes "
            f"{number(median(cpu))} s of the daemon's CPU, {number(median(requests), 0)} requests to the origin)",
        )
    ]


def _mirror(work: Path) -> _Registry:
    """Makes the lock file and fetches the packages."""
    project, cache, files = work / "project", work / "npm-cache", work / "files"
    project.mkdir()
    shutil.copy(_MANIFEST, project / "package.json")
    common = [*_QUIET, "--prefix", project, "--cache", cache]
    processes.run(["npm", "install", "--package-lock-only", *common], timeout=_FETCH_SECONDS)
    processes.run(["npm", "ci", *common], timeout=_FETCH_SECONDS)
    lock = json.loads((project / "package-lock.json").read_text())
    fetched = size = 0
    for path, package in lock["packages"].items():
        if "integrity" not in package:
            continue
        name = package.get("name") or path.rpartition("node_modules/")[2]
        where = f"{name}/-/{name.rpartition('/')[2]}-{package['version']}.tgz"
        package["resolved"] = where
        tarball = _cached(cache, package["integrity"])
        # What is for another system only is not fetched.
        if not tarball.exists():
            continue
        target = files / where
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tarball, target)
            fetched, size = fetched + 1, size + target.stat().st_size
    if not fetched:
        raise BenchError("npm fetched nothing that could be mirrored")
    shutil.rmtree(project)
    shutil.rmtree(cache)
    return _Registry(lock, files, fetched, size)


def _lock(place: Site, registry: _Registry) -> str:
    """The lock file of which all packages are at the origin."""
    lock = copy.deepcopy(registry.lock)
    for package in lock["packages"].values():  # type: ignore[attr-defined]
        if "resolved" in package:
            package["resolved"] = place.url(package["resolved"])
    return json.dumps(lock)


def _cached(cache: Path, integrity: str) -> Path:
    """Where npm's cache has the file with that digest."""
    algorithm, _, digest = integrity.split()[0].partition("-")
    name = base64.b64decode(digest).hex()
    return cache / "_cacache" / "content-v2" / algorithm / name[:2] / name[2:4] / name[4:]


def _install(place: Site, registry: _Registry, project: Path, daemon: Daemon | None) -> float:
    """Seconds of `npm ci` in a new project."""
    project.mkdir()
    shutil.copy(_MANIFEST, project / "package.json")
    (project / "package-lock.json").write_text(_lock(place, registry))
    # Nothing but the origin may be asked, and nothing of the person's own configuration is wanted.
    options = ["--prefix", project, "--cache", project / "cache", "--userconfig", os.devnull]
    options += ["--registry", place.url(""), "--replace-registry-host", "never"]
    options += ["--proxy", "http://%s:%d" % daemon.proxy] if daemon else []
    argv = [str(word) for word in (*_ENV, "npm", "ci", *_QUIET, *options)]
    seconds = run_timed(argv, place.namespace, place.log("npm"), _RUN_SECONDS).seconds
    if not any((project / "node_modules").iterdir()):
        raise BenchError("npm installed nothing")
    shutil.rmtree(project)
    return seconds
