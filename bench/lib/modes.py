"""The programs that netlab can put on the peers: for each, its services and what a peer's reader runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lib import pantala, processes, torrent
from lib.network import Host
from lib.nginx import accepts
from lib.meter import ReaderSpec
from lib.system import BenchError, inside, need_binary, need_libtorrent, need_program_or_path, need_programs

_LIB = Path(__file__).resolve().parent
_TORRENT_PORT = 6881
_RELAY_PORT = 7000
_RQBIT_API_PORT = 3030


@dataclass(frozen=True)
class Lab:
    """Where a mode finds its hosts, its content and a directory for its files."""

    origin: Host
    supernode: Host
    peers: list[Host]
    contents: list[Path]
    directory: Path
    memory: str
    programs: pantala.Programs

    def url(self, content: int) -> str:
        """Where the origin has a content."""
        return f"http://{self.origin.address}/{self.contents[content].name}"

    def log(self, name: str) -> Path:
        """Where a program's standard error goes."""
        return self.directory / f"{name}.log"


class Mode(Protocol):
    """One way to bring the content to every peer."""

    def check(self, programs: pantala.Programs) -> None:
        """Refuses when a program is missing."""

    def services(self, lab: Lab, stack: contextlib.ExitStack) -> list[pantala.Daemon]:
        """Starts what must run before the start instant; the daemons whose cost is the peers'."""

    def reader(self, lab: Lab, peer: Host, index: int, content: int) -> ReaderSpec:
        """What the reader of a content on a peer (both from 0) runs. A program that brings one content alone has a port
        for each, since several of them run on a host at once."""


def _spec(lab: Lab, peer: Host, content: int, **source: object) -> ReaderSpec:
    log = lab.log(f"reader-{peer.name}-{content}")
    return ReaderSpec(peer.namespace, lab.contents[content], log, **source)  # type: ignore[arg-type]


class Curl:
    """Everybody from the origin."""

    def check(self, programs: pantala.Programs) -> None:
        need_programs("curl")

    def services(self, lab: Lab, stack: contextlib.ExitStack) -> list[pantala.Daemon]:
        return []

    def reader(self, lab: Lab, peer: Host, index: int, content: int) -> ReaderSpec:
        return _spec(lab, peer, content, argv=["curl", "-sS", "-f", lab.url(content)])


class Straight:
    """The reader of dfdaemon, which asks the origin itself instead: no program is started for a content."""

    def check(self, programs: pantala.Programs) -> None:
        pass

    def services(self, lab: Lab, stack: contextlib.ExitStack) -> list[pantala.Daemon]:
        return []

    def reader(self, lab: Lab, peer: Host, index: int, content: int) -> ReaderSpec:
        return _spec(lab, peer, content, proxy=(lab.origin.address, 80), url=lab.url(content))


class Chain:
    """The naive relay chain, in the order of the peers."""

    def check(self, programs: pantala.Programs) -> None:
        pass

    def services(self, lab: Lab, stack: contextlib.ExitStack) -> list[pantala.Daemon]:
        return []

    def reader(self, lab: Lab, peer: Host, index: int, content: int) -> ReaderSpec:
        path, port = lab.contents[content], _RELAY_PORT + content
        size = str(path.stat().st_size)
        listen = f"{peer.address}:{port}" if peer is not lab.peers[-1] else ""
        if index == 0:
            source = [f"{lab.origin.address}:80", size, listen, f"/{path.name}"]
        else:
            source = [f"{lab.peers[index - 1].address}:{port}", size, listen]
        return _spec(lab, peer, content, argv=[sys.executable, "-I", "-S", str(_LIB / "chain_peer.py"), *source])


class Dfget:
    """dfget on its own on every host, the content piped to the reader."""

    def check(self, programs: pantala.Programs) -> None:
        for name in ("supernode", "dfget"):
            need_binary(programs.directory, name)

    def services(self, lab: Lab, stack: contextlib.ExitStack) -> list[pantala.Daemon]:
        host = lab.supernode
        stack.enter_context(pantala.supernode(lab.programs, host.address, lab.log("supernode"), host.namespace))
        return []

    def reader(self, lab: Lab, peer: Host, index: int, content: int) -> ReaderSpec:
        supernode = f"{lab.supernode.address}:{pantala.SUPERNODE_PORT}"
        port = pantala.PEER_PORT + content
        argv = lab.programs.dfget(lab.url(content), "-", supernode, peer.address, lab.memory, peer.labels, port)
        return _spec(lab, peer, content, argv=argv)


class DaemonProxy:
    """dfdaemon on every host, the content read through its HTTP proxy."""

    def check(self, programs: pantala.Programs) -> None:
        for name in ("supernode", "dfdaemon"):
            need_binary(programs.directory, name)

    def services(self, lab: Lab, stack: contextlib.ExitStack) -> list[pantala.Daemon]:
        host = lab.supernode
        stack.enter_context(pantala.supernode(lab.programs, host.address, lab.log("supernode"), host.namespace))
        at = f"{host.address}:{pantala.SUPERNODE_PORT}"
        return [
            stack.enter_context(
                pantala.daemon(
                    lab.programs, at, peer.address, lab.memory, lab.log(f"dfdaemon-{peer.name}"),
                    peer.labels, peer.namespace,
                )
            )
            for peer in lab.peers
        ]

    def reader(self, lab: Lab, peer: Host, index: int, content: int) -> ReaderSpec:
        return _spec(lab, peer, content, proxy=("127.0.0.1", pantala.PROXY_PORT), url=lab.url(content))


class _Torrent:
    """BitTorrent with a tracker on the supernode's host. The origin is a seeder of the same program, or nginx as a
    web seed."""

    def __init__(self, webseed: bool) -> None:
        self._webseed = webseed

    def services(self, lab: Lab, stack: contextlib.ExitStack) -> list[pantala.Daemon]:
        tracker = f"http://{lab.supernode.address}:{torrent.PORT}/announce"
        self._start_tracker(lab, stack)
        for number, content in enumerate(lab.contents):
            webseed = lab.url(number) if self._webseed else None
            _torrent_file(lab, number).write_bytes(torrent.make(content, tracker, webseed))
            if not self._webseed:
                self._start_seeder(lab, number, stack)
        return []

    def _start_seeder(self, lab: Lab, content: int, stack: contextlib.ExitStack) -> None:
        argv = self._argv(lab, content, lab.contents[content].parent, lab.origin, complete=True)
        log = lab.log(f"seeder-{content}")
        process = stack.enter_context(processes.running(argv, namespace=lab.origin.namespace, log=log))
        seeds = lambda: self._seeds(lab.origin, content)  # noqa: E731
        processes.wait_until(seeds, "the seeder", 30.0, process, log)

    def _seeds(self, origin: Host, content: int) -> bool:
        """Whether the seeder serves the content by now."""
        return accepts(origin.address, _TORRENT_PORT + content, origin.namespace)

    def _start_tracker(self, lab: Lab, stack: contextlib.ExitStack) -> None:
        host, log = lab.supernode, lab.log("tracker")
        argv = [sys.executable, _LIB / "torrent.py", host.address]
        environment = {"PYTHONPATH": str(_LIB.parent)}
        process = stack.enter_context(processes.running(argv, namespace=host.namespace, log=log, env=environment))
        listening = lambda: accepts(host.address, torrent.PORT, host.namespace)  # noqa: E731
        processes.wait_until(listening, "the tracker", 10.0, process, log)

    def reader(self, lab: Lab, peer: Host, index: int, content: int) -> ReaderSpec:
        file = lab.directory / peer.name / lab.contents[content].name
        return _spec(lab, peer, content, argv=self._fetching(lab, peer, content), file=file)

    def _fetching(self, lab: Lab, peer: Host, content: int) -> list[str]:
        """The command that fetches the content into a directory of the peer's own."""
        directory = lab.directory / peer.name
        directory.mkdir(exist_ok=True)
        return [str(word) for word in self._argv(lab, content, directory, peer, complete=False)]

    def _argv(self, lab: Lab, content: int, directory: Path, host: Host, complete: bool) -> list[str | Path]:
        raise NotImplementedError


def _torrent_file(lab: Lab, content: int) -> Path:
    return lab.directory / f"{lab.contents[content].name}.torrent"


class Aria2(_Torrent):
    """aria2, which has no in-order mode worth the name."""

    def check(self, programs: pantala.Programs) -> None:
        need_programs("aria2c")

    def _argv(self, lab: Lab, content: int, directory: Path, host: Host, complete: bool) -> list[str | Path]:
        return [
            "aria2c", _torrent_file(lab, content), f"--dir={directory}", f"--listen-port={_TORRENT_PORT + content}",
            "--no-conf", "--quiet", "--seed-ratio=0.0", "--file-allocation=none", "--enable-dht=false", "--enable-dht6=false",
            "--bt-enable-lpd=false", "--bt-max-peers=0", "--bt-request-peer-speed-limit=1000M",
            f"--bt-external-ip={host.address}",
            # The reader follows the file, so nothing may linger in aria2's own write cache.
            "--disk-cache=0", "--bt-seed-unverified=true" if complete else "--bt-seed-unverified=false",
        ]  # fmt: skip


class Libtorrent(_Torrent):
    """libtorrent, rarest first or sequential."""

    def __init__(self, webseed: bool, sequential: bool) -> None:
        super().__init__(webseed)
        self._sequential = sequential

    def check(self, programs: pantala.Programs) -> None:
        need_libtorrent()

    def _argv(self, lab: Lab, content: int, directory: Path, host: Host, complete: bool) -> list[str | Path]:
        listen = f"{host.address}:{_TORRENT_PORT + content}"
        argv = [sys.executable, _LIB / "torrent_peer.py", _torrent_file(lab, content), directory, "--listen", listen]
        return argv + (["--sequential"] if self._sequential else []) + (["--complete"] if complete else [])


class Rqbit(_Torrent):
    """rqbit: its file followed, or the file read in order through its HTTP API, which makes it prefer what the reader
    needs next."""

    def __init__(self, webseed: bool, program: str, stream: bool) -> None:
        super().__init__(webseed)
        self._program = program
        self._stream = stream

    def check(self, programs: pantala.Programs) -> None:
        if self._webseed:
            raise BenchError("rqbit takes nothing from web seeds")
        need_program_or_path(self._program, "cargo install rqbit --locked, or name it with --rqbit")

    def _seeds(self, origin: Host, content: int) -> bool:
        # It listens before it has checked the content, and turns away who asks for pieces until then.
        api = http.client.HTTPConnection("127.0.0.1", _RQBIT_API_PORT + content, timeout=5.0)
        try:
            with inside(origin.namespace), contextlib.closing(api):
                api.request("GET", "/torrents/0/stats/v1")
                response = api.getresponse()
                stats = json.loads(response.read()) if response.status == 200 else {}
        except (OSError, http.client.HTTPException):
            return False
        return bool(stats.get("finished")) and stats.get("state") == "live"

    def reader(self, lab: Lab, peer: Host, index: int, content: int) -> ReaderSpec:
        if not self._stream:
            return super().reader(lab, peer, index, content)
        url = f"http://127.0.0.1:{_RQBIT_API_PORT + content}/torrents/0/stream/0"
        return _spec(lab, peer, content, argv=self._fetching(lab, peer, content), url=url)

    def _argv(self, lab: Lab, content: int, directory: Path, host: Host, complete: bool) -> list[str | Path]:
        return [
            self._program, "-v", "error", "--disable-dht", "--disable-lsd", "--disable-upnp-port-forward", "--ipv4-only",
            "--listen-ip", host.address, "--listen-port", str(_TORRENT_PORT + content),
            "--http-api-listen-addr", f"127.0.0.1:{_RQBIT_API_PORT + content}",
            "download", _torrent_file(lab, content), "-o", directory, *(["--overwrite"] if complete else []),
        ]  # fmt: skip


NAMES = (
    "dfget", "daemon", "curl", "straight", "aria2", "libtorrent-rarest", "libtorrent-sequential", "rqbit", "rqbit-stream",
    "chain",
)  # fmt: skip


def by_name(name: str, webseed: bool, rqbit: str) -> Mode:
    """The mode for a command line word; `rqbit` is that program."""
    if name == "dfget":
        return Dfget()
    if name == "daemon":
        return DaemonProxy()
    if name == "curl":
        return Curl()
    if name == "straight":
        return Straight()
    if name == "chain":
        return Chain()
    if name == "aria2":
        return Aria2(webseed)
    if name.startswith("rqbit"):
        return Rqbit(webseed, rqbit, stream=name == "rqbit-stream")
    return Libtorrent(webseed, sequential=name == "libtorrent-sequential")
