"""Starting Pantala's programs, and reading their metrics."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable, Iterator

from lib import processes
from lib.system import inside, need_binary

SUPERNODE_PORT = 8002
PROXY_PORT = 65001
PEER_PORT = 65002

_SAMPLE = re.compile(r"^(pantala_\w+)(?:\{.*\})?\s+(\S+)$", re.MULTILINE)
_READY_SECONDS = 15.0


@dataclass(frozen=True)
class Programs:
    """Where the programs are, and arguments that every start of them gets on top."""

    directory: Path
    extra: dict[str, list[str]] = field(default_factory=dict)

    def argv(self, name: str, *arguments: str) -> list[str]:
        """A command line; refuses when the program has not been built."""
        return [str(need_binary(self.directory, name)), *arguments, *self.extra.get(name, [])]

    def dfget(
        self, url: str, out: str, supernode: str, address: str, memory: str, labels: Iterable[str] = (), port: int = PEER_PORT
    ) -> list[str]:
        """dfget as a peer of its own."""
        own = f"{address}:{port}"
        return self.argv(
            "dfget", url, "-o", out, "--supernode", supernode, "--peer-listen", own, "--advertise", own,
            "--memory", memory, "--daemon", "never", "--quiet", *(f"--label={label}" for label in labels),
        )  # fmt: skip


@dataclass(frozen=True)
class Daemon:
    """A running dfdaemon."""

    pid: int
    namespace: str | None
    proxy: tuple[str, int]

    def metrics(self) -> dict[str, float]:
        """Its metrics, labels summed."""
        return metrics(*self.proxy, namespace=self.namespace)

    def streams(self) -> list[dict[str, object]]:
        """What streams there now, by its local API."""
        return json.loads(_get(*self.proxy, "/v1/streams", self.namespace, "application/json")[1])


@contextlib.contextmanager
def supernode(
    programs: Programs, address: str, log: Path, namespace: str | None = None, port: int = SUPERNODE_PORT
) -> Iterator[subprocess.Popen[bytes]]:
    """A supernode that answers /healthz."""
    argv = programs.argv("supernode", "--listen", f"{address}:{port}")
    with processes.running(argv, namespace=namespace, log=log) as process:
        processes.wait_until(lambda: healthy(address, port, namespace), "supernode", _READY_SECONDS, process, log)
        yield process


@contextlib.contextmanager
def daemon(
    programs: Programs,
    supernode_at: str,
    address: str,
    memory: str,
    log: Path,
    labels: Iterable[str] = (),
    namespace: str | None = None,
    proxy_port: int = PROXY_PORT,
    peer_port: int = PEER_PORT,
) -> Iterator[Daemon]:
    """A dfdaemon that answers /healthz; its proxy is on the loopback of its host."""
    peer = f"{address}:{peer_port}"
    argv = programs.argv(
        "dfdaemon", "--listen", f"127.0.0.1:{proxy_port}", "--peer-listen", peer, "--advertise", peer,
        "--supernode", supernode_at, "--memory", memory, *(f"--label={label}" for label in labels),
    )  # fmt: skip
    with processes.running(argv, namespace=namespace, log=log) as process:
        ready = lambda: healthy("127.0.0.1", proxy_port, namespace)  # noqa: E731
        processes.wait_until(ready, f"dfdaemon on {peer}", _READY_SECONDS, process, log)
        yield Daemon(process.pid, namespace, ("127.0.0.1", proxy_port))


def metrics(address: str, port: int, namespace: str | None = None) -> dict[str, float]:
    """The pantala_* samples of a program, labels summed."""
    totals: dict[str, float] = {}
    for name, value in _SAMPLE.findall(_get(address, port, "/metrics", namespace)[1]):
        totals[name] = totals.get(name, 0.0) + float(value)
    return totals


def healthy(address: str, port: int, namespace: str | None = None) -> bool:
    """Whether a program there says that it serves."""
    try:
        return _get(address, port, "/healthz", namespace)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def _get(address: str, port: int, path: str, namespace: str | None, accept: str = "*/*") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, port, timeout=5.0)
    with inside(namespace), contextlib.closing(connection):
        connection.request("GET", path, headers={"Accept": accept})
        response = connection.getresponse()
        return response.status, response.read().decode()
