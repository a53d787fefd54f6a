"""The tables of `bench/control`."""

from __future__ import annotations

from lib.control.cases import Case
from lib.control.load import Phase, Times
from lib.report import markdown
from lib.units import KIB


def in_process(cases: list[Case]) -> str:
    """The brain alone."""
    head = [
        "tasks × members", "registration µs: mean, last 1 %, worst", "messages/s; with the clock standing still", "an announcement µs: mean, p99, worst",
        "an answer µs: p50, p99, worst", "coming back µs: mean, worst", "bytes per peer and task",
    ]  # fmt: skip
    goal = ["goal", "≤ 5, flat", "≥ 1,000,000", "", "", "", "≤ 256 + a bit per piece"]
    return markdown([head, goal, *(_in_process(case) for case in cases)])


def over_sockets(cases: list[Case]) -> str:
    """A supernode and its peers."""
    head = [
        "tasks × members", "connections", "at rest, CPU", "registrations/s, CPU µs each", "a registration ms: p50, p99, worst",
        "messages/s, CPU µs each", "an answer ms: p50, p99, worst", "killed: all known again, s (CPU s)",
        "KiB per peer; bytes per peer and task",
    ]  # fmt: skip
    goal = ["goal", "", "", "", "", "≤ 10", "", "≤ 2", "; ≤ 256 + a bit per piece"]
    return markdown([head, goal, *(_over_sockets(case) for case in cases)])


def _in_process(case: Case) -> list[str]:
    come, still, said, back = (case.phases.get(name) for name in ("come", "still", "announce", "resume"))
    last = come and come.said.get("last_us")
    registration = [
        _micros(come.times.mean) if come and come.times else "–",
        f"{last:.1f}" if last else "–",
        _micros(come.times.worst) if come and come.times else "–",
    ]
    return [
        _shape(case),
        _still(come, ", ".join(registration)),
        f"{_still(said, _speed(said))}; {_still(still, _speed(still))}",
        _list(_micros, said and said.announces, "mean", "p99", "worst"),
        _list(_micros, said and said.times, "p50", "p99", "worst"),
        _still(back, _list(_micros, back and back.times, "mean", "worst")),
        _per_member(case, lambda phase: phase.rss),
    ]


def _over_sockets(case: Case) -> list[str]:
    opened, come, said, back = (case.phases.get(name) for name in ("open", "come", "announce", "resume"))
    per_peer = "–"
    if opened and opened.supernode_rss:
        per_peer = f"{(opened.supernode_rss - opened.extra['before']) / case.members / KIB:.1f}"
    row = [
        _shape(case),
        f"{case.connections:,}" if case.connections else "–",
        f"{opened.extra['at_rest']:.2f}" if opened else "–",
        _still(come, _rate(come)),
        _list(_millis, come and come.times, "p50", "p99", "worst"),
        _still(said, _rate(said)),
        _list(_millis, said and said.times, "p50", "p99", "worst"),
        _still(back, f"{back.seconds:.2f} ({back.cpu:.1f})" if back and back.cpu is not None else "–"),
        f"{per_peer}; {_per_member(case, lambda phase: phase.supernode_rss or 0)}",
    ]
    return row


def remarks(cases: list[Case]) -> list[str]:
    """Why cases ended early."""
    return [f"{_shape(case)}, {case.mode}: {case.broken}" for case in cases if case.broken]


def _shape(case: Case) -> str:
    return f"{case.tasks:,} × {case.members:,}"


def _still(phase: Phase | None, cell: str) -> str:
    """A figure of a phase that was broken off says so."""
    if phase is None or phase.complete:
        return cell
    return f"**stands still**: {phase.done:,} of {phase.wanted:,} in {phase.seconds:.0f} s ({cell})"


def _speed(phase: Phase | None) -> str:
    return f"{phase.done / phase.seconds:,.0f}" if phase and phase.seconds else "–"


def _rate(phase: Phase | None) -> str:
    if phase is None or not phase.done or not phase.seconds:
        return "–"
    return f"{phase.done / phase.seconds:,.0f}, {(phase.cpu or 0) / phase.done * 1e6:.1f}"


def _per_member(case: Case, of) -> str:  # noqa: ANN001
    opened, come = case.phases.get("open"), case.phases.get("come")
    if not opened or not come:
        return "–"
    return f"{max(0, of(come) - of(opened)) / case.memberships:,.0f}"


def _list(unit, times: Times | None, *names: str) -> str:  # noqa: ANN001
    return ", ".join(unit(getattr(times, name)) for name in names) if times else "–"


def _micros(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f}" if seconds < 1e-4 else f"{seconds * 1e6:,.0f}"


def _millis(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f}" if seconds < 0.01 else f"{seconds * 1e3:,.0f}"
