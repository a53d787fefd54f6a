"""wrk, driven by a script that asks for many URLs or random ranges and reports exact percentiles."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lib import processes
from lib.system import BenchError, inside

_SCRIPT = """\
local count = 0
function setup(thread) thread:set("number", count); count = count + 1 end
function init(args) math.randomseed(number + %(seed)d) end
%(request)s
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('RESULT {"requests": %%d, "bytes": %%d, "us": %%d, "p50": %%d, "p99": %%d, "failed": %%d}\\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What wrk saw."""

    requests_per_second: float
    bytes_per_second: float
    p50_ms: float
    p99_ms: float


def objects(prefix: str, names: list[str], seed: int) -> str:
    """A script that asks for random ones of some files."""
    listing = ", ".join(f'"{prefix}{name}"' for name in names)
    request = f"local paths = {{{listing}}}\n"
    request += 'function request() return wrk.format("GET", paths[math.random(#paths)]) end'
    return _SCRIPT % {"seed": seed, "request": request}


def ranges(target: str, size: int, length: int, seed: int) -> str:
    """A script that asks for random aligned ranges of one file."""
    request = f"""function request()
  local from = math.random(0, {size // length - 1}) * {length}
  return wrk.format("GET", "{target}", {{["Range"] = "bytes=" .. from .. "-" .. (from + {length - 1})}})
end"""
    return _SCRIPT % {"seed": seed, "request": request}


def wrk(
    namespace: str, address: tuple[str, int], host: str, script: str, directory: Path, clients: int, seconds: int
) -> Load:
    """Runs wrk against an address; requests that fail are an error, not a figure."""
    path = directory / "wrk.lua"
    path.write_text(script)
    argv = [
        "wrk", "-t", "2", "-c", str(clients), "-d", f"{seconds}s", "--timeout", "20s", "-H", f"Host: {host}",
        "-s", str(path), f"http://{address[0]}:{address[1]}/",
    ]  # fmt: skip
    with inside(namespace):
        output = processes.run(argv, timeout=seconds + 60)
    line = next((line for line in output.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise BenchError(f"wrk said nothing to count:\n{output}")
    result = json.loads(line.removeprefix("RESULT "))
    if result["failed"] or not result["requests"]:
        raise BenchError(f"{result['failed']} of {result['requests']} requests to {address} failed:\n{output}")
    duration = result["us"] / 1e6
    return Load(
        result["requests"] / duration, result["bytes"] / duration, result["p50"] / 1e3, result["p99"] / 1e3
    )
