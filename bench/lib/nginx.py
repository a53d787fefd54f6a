"""nginx as the origin, and as the proxy to compare with: its configuration, its life, its access log."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from lib import processes
from lib.system import inside

_TEMPLATE = """\
user root;
worker_processes {workers};
worker_rlimit_nofile 16384;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    log_format bytes '$status $body_bytes_sent $request_method "$http_range" $request_uri';
    access_log {directory}/access.log bytes;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    default_type application/octet-stream;
{body}
}}
"""

# A client may have the last byte a moment before nginx writes the line.
_LOG_SECONDS = 0.1

_STATIC = "    server {{ listen {address}:{port} backlog=4096; root {root}; }}"


@dataclass(frozen=True)
class Served:
    """What the access log says was sent."""

    requests: int
    body_bytes: int


@dataclass(frozen=True)
class Nginx:
    """A running nginx."""

    pid: int
    directory: Path

    def served(self, uri: str | None = None) -> Served:
        """Requests that have ended and their body bytes; all of them, or those for one path."""
        time.sleep(_LOG_SECONDS)
        log = self.directory / "access.log"
        rows = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        chosen = [row for row in rows if uri is None or row[-1] == uri]
        return Served(len(chosen), sum(int(row[1]) for row in chosen))

    def usage(self) -> processes.Usage:
        """Cost of the master and its workers."""
        return processes.tree_usage(self.pid)


def static_server(root: Path, address: str, port: int) -> str:
    """Configuration of a server that hands out the files below `root`."""
    return _STATIC.format(address=address, port=port, root=root)


@contextlib.contextmanager
def serving(
    directory: Path, body: str, address: str, port: int, namespace: str | None = None, workers: int = 1
) -> Iterator[Nginx]:
    """nginx with `body` as its http block, answering at address:port before the block begins."""
    directory.mkdir(parents=True)
    config = directory / "nginx.conf"
    config.write_text(_TEMPLATE.format(directory=directory, body=body, workers=workers))
    log = directory / "stderr.log"
    argv = ["nginx", "-e", directory / "error.log", "-c", config]
    # SIGTERM, because a master that is killed outright leaves its workers behind.
    with processes.running(argv, namespace=namespace, log=log, death_signal=signal.SIGTERM) as process:
        processes.wait_until(
            lambda: accepts(address, port, namespace), "nginx", 10.0, process, directory / "error.log"
        )
        yield Nginx(process.pid, directory)


def accepts(address: str, port: int, namespace: str | None = None) -> bool:
    """Whether something listens there."""
    with inside(namespace), socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((address, port)) == 0
