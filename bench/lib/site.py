"""One node and what it needs: an origin, a supernode, and the node itself, on one loopback or behind limited links."""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

from lib import nginx, pantala, scratch
from lib.content import write_random
from lib.network import Network, loopback
from lib.units import MIB

ORIGIN_PORT = 8080
CACHE_PORT = 8081

_CONTENT = 512 * MIB  # at most, at one time

_CACHE = """\
    access_log off;
    proxy_cache_path {directory}/cache keys_zone=content:10m max_size=8g use_temp_path=off;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://{origin};
            proxy_http_version 1.1;
            proxy_cache content;
            proxy_cache_valid 200 1h;
            proxy_cache_lock on;
            proxy_cache_lock_timeout 1h;
        }}
    }}"""


@dataclass(frozen=True)
class Bench:
    """What the command line chose for all rows."""

    programs: pantala.Programs
    repeat: int
    disk: Path
    seed: int
    rate: float


@dataclass
class Site:
    """A running origin and supernode, and a place for the node."""

    bench: Bench
    directory: Path
    files: Path
    origin: nginx.Nginx
    namespace: str
    origin_at: tuple[str, int]
    supernode_at: str
    supernode: int  # its pid
    node_address: str
    _names: Iterator[int] = field(default_factory=itertools.count)

    def url(self, name: str) -> str:
        """Where the origin has a file."""
        return f"http://{self.origin_at[0]}:{self.origin_at[1]}/{name}"

    def content(self, size: int) -> str:
        """A new file of random bytes at the origin; its name."""
        name = f"content-{next(self._names)}.bin"
        write_random(self.files / name, size, self.bench.seed)
        return name

    def sparse(self, size: int) -> str:
        """The URL of a new file without a byte written: it takes no memory, whatever its length."""
        name = f"sparse-{next(self._names)}.bin"
        with (self.files / name).open("wb") as out:
            out.truncate(size)
        return self.url(name)

    def alias(self, name: str) -> str:
        """Another URL for the same bytes: other content as far as a cache can know, and cold again."""
        other = f"alias-{next(self._names)}.bin"
        os.link(self.files / name, self.files / other)
        return other

    def log(self, name: str) -> Path:
        """Where a program's standard error goes."""
        return self.directory / f"{name}.log"

    def daemon(self, memory: str) -> contextlib.AbstractContextManager[pantala.Daemon]:
        """The node's dfdaemon, with nothing in its memory."""
        log = self.log("dfdaemon")
        return pantala.daemon(
            self.bench.programs, self.supernode_at, self.node_address, memory, log, namespace=self.namespace
        )

    @contextlib.contextmanager
    def cache(self) -> Iterator[nginx.Nginx]:
        """nginx's proxy_cache on the node, as many workers as processors, for the same origin."""
        directory = self.directory / f"cache-{next(self._names)}"
        body = _CACHE.format(directory=directory, port=CACHE_PORT, origin="%s:%d" % self.origin_at)
        workers = os.cpu_count() or 1
        with nginx.serving(directory, body, "127.0.0.1", CACHE_PORT, self.namespace, workers) as server:
            yield server


@contextlib.contextmanager
def site(bench: Bench, rate: float = 0.0) -> Iterator[Site]:
    """Origin and supernode for one row: on the node's own loopback, or (rate > 0) on hosts of their own behind links of
    `rate` Mbit/s. The origin's files are in memory."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(scratch.directory(bench.disk))
        files = stack.enter_context(scratch.directory(scratch.in_memory(_CONTENT)))
        if rate > 0:
            network = stack.enter_context(Network())
            origin = network.add_host("origin", "10.202.0.1", rate)
            control = network.add_host("super", "10.202.0.2", rate)
            node = network.add_host("node", "10.202.0.3", rate)
            spaces = (origin.namespace, control.namespace, node.namespace)
            addresses = (origin.address, control.address, node.address)
        else:
            spaces = (stack.enter_context(loopback()),) * 3
            addresses = ("127.0.0.1",) * 3
        body = nginx.static_server(files, addresses[0], ORIGIN_PORT)
        # One worker a processor: the origin must not be what limits its readers.
        workers = os.cpu_count() or 1
        server = stack.enter_context(
            nginx.serving(directory / "origin", body, addresses[0], ORIGIN_PORT, spaces[0], workers)
        )
        supernode = stack.enter_context(
            pantala.supernode(bench.programs, addresses[1], directory / "supernode.log", spaces[1])
        )
        yield Site(
            bench=bench,
            directory=directory,
            files=files,
            origin=server,
            namespace=spaces[2],
            origin_at=(addresses[0], ORIGIN_PORT),
            supernode_at=f"{addresses[1]}:{pantala.SUPERNODE_PORT}",
            supernode=supernode.pid,
            node_address=addresses[2],
        )


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    letter: str
    what: str
    beside: str
    goal: str
    measured: str


def gigabytes(size: int) -> float:
    """Bytes in the GB of "CPU seconds per GB"."""
    return size / 1e9


def mib_per_second(size: int, seconds: float) -> str:
    """A rate for a table cell."""
    return f"{size / MIB / seconds:.0f} MiB/s"
