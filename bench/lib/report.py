"""Tables: aligned for the terminal, Markdown for the documentation."""

from __future__ import annotations

from lib.swarm import Result
from lib.units import MIB, mebibytes, number


def aligned(rows: list[list[str]]) -> str:
    """Rows in columns, numbers to the right; the first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)


def markdown(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is the head."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    rule = "|" + " --- |" * len(rows[0])
    return "\n".join([head, rule, *body])


def peer_table(result: Result) -> str:
    """One line per peer."""
    floor = result.setup.floor
    head = ["peer", "first MiB s", "last byte s", "÷ (S/B)", "stall s", "CPU s", "peak MiB", "read MiB", "written MiB"]
    rows = [[*head, ""]]
    for peer in result.peers:
        outcome, cost = peer.outcome, peer.usage
        last = outcome.last_byte
        rows.append(
            [
                f"{peer.peer}{'*' if peer.odd else ''}",
                number(outcome.first_mib, 3),
                number(last, 3),
                number(last / floor if last is not None and floor else None),
                number(outcome.longest_stall, 3),
                number(cost.cpu if cost else None),
                mebibytes(cost.peak_rss if cost else None),
                mebibytes(cost.disk_read if cost else None),
                mebibytes(cost.disk_written if cost else None),
                _remark(peer.outcome.wrong_at, peer.outcome.error),
            ]
        )
    return aligned(rows)


def _remark(wrong_at: int | None, error: str | None) -> str:
    wrong = f"WRONG BYTES in the read at {wrong_at}" if wrong_at is not None else ""
    return " ".join(part for part in (wrong, error.replace("\n", " / ")[:200] if error else "") if part)


def summary(result: Result) -> str:
    """The run in a few lines."""
    setup, size = result.setup, result.setup.size
    last = result.last_byte()
    lines = [
        f"{setup.mode}, {setup.peers} peers, {setup.rate:g} Mbit/s (origin {setup.origin_rate:g}), "
        f"{size / MIB:g} MiB, {setup.scenario.text}",
        f"S/B                   {number(setup.floor, 3, ' s')}",
        f"max last byte         {number(last, 3, ' s')}  ÷ (S/B) {number(result.ratio(), 3)}"
        + (f"  ({size * setup.peers / MIB / last:.0f} MiB/s in all)" if last and not setup.floor else ""),
        f"max first MiB         {number(result.first_mib(), 3, ' s')}",
        f"longest stall         {number(result.longest_stall(), 3, ' s')}",
        f"origin bytes ÷ S      {result.origin_logged / size:.3f} by its log ({result.origin_requests} requests), "
        f"{result.origin_ratio():.3f} by its link's counter",
        f"CPU of all peers      {number(result.total('cpu'), 2, ' s')}",
        f"disk of all peers     read {mebibytes(result.total('disk_read'))} MiB, "
        f"written {mebibytes(result.total('disk_written'))} MiB",
        f"largest peer          {mebibytes(result.peak_rss())} MiB{_cap(result)}",
    ]
    if result.crossed:
        into, back = (count / size for count in result.crossed)
        lines.append(f"across zones ÷ S      {into:.3f} into the second zone, {back:.3f} back")
    if result.before_join is not None:
        extra = result.origin_sent - result.before_join
        lines.append(f"origin for the joiner {extra / MIB:.1f} MiB ({extra / size:.3f} of S)")
    for name in ("origin_received", "peer_received", "peer_sent", "reader_sent"):
        value = result.metrics.get(f"pantala_{name}_bytes_total")
        if value is not None:
            lines.append(f"{name.replace('_', ' '):<21} {value / size:.3f} × S by the daemons' metrics")
    return "\n".join(lines)


def _cap(result: Result) -> str:
    over = result.over_cap()
    if over is None:
        return ""
    bound = f"cap {result.setup.memory} + 10 % + 32 MiB"
    return f", {over / MIB:.1f} MiB OVER {bound}" if over > 0 else f", {-over / MIB:.1f} MiB below {bound}"
