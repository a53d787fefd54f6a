"""Tables: aligned for the terminal, Markdown for the documentation."""

from __future__ import annotations

from lib.result import Result
from lib.setup import Setup
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
    head = ["peer", "Mbit/s", "start s", "first byte s", "first MiB s", "last byte s", "÷ floor", "stall s", "sent MiB"]
    head += ["received MiB", "CPU s", "peak MiB", "disk read MiB", "written MiB", ""]
    rows = [head]
    for peer in result.peers:
        cost = peer.usage
        rows.append(
            [
                f"{peer.peer}{'*' if peer.odd else ''}",
                f"{peer.rate:g}",
                number(peer.start, 1),
                number(peer.most(lambda outcome: outcome.first_byte), 3),
                number(peer.most(lambda outcome: outcome.first_mib), 3),
                number(peer.last_byte(), 3),
                number(peer.ratio(), 3),
                number(peer.most(lambda outcome: outcome.longest_stall), 3),
                mebibytes(peer.sent),
                mebibytes(peer.received),
                number(cost.cpu if cost else None),
                mebibytes(cost.peak_rss if cost else None),
                mebibytes(cost.disk_read if cost else None),
                mebibytes(cost.disk_written if cost else None),
                _remark(peer.wrong(), peer.error()),
            ]
        )
    return aligned(rows)


def _remark(wrong_at: int | None, error: str | None) -> str:
    wrong = f"WRONG BYTES in the read at {wrong_at}" if wrong_at is not None else ""
    return " ".join(part for part in (wrong, error.replace("\n", " / ")[:200] if error else "") if part)


def described(setup: Setup) -> str:
    """What is measured, in a line."""
    rates = ", ".join(f"{rate:g}" for rate in setup.rates)
    sizes = ", ".join(f"{size / MIB:.3g}" for size in setup.sizes)
    parts = [f"{setup.peers} peers, {rates} Mbit/s (origin {setup.origin_rate:g})", f"{sizes} MiB"]
    if len(setup.sizes) > 1:
        parts.append(f"{setup.parallel} at a time in {'an order of each peer' if setup.own_order else 'the same order'}")
    if setup.every:
        parts.append(f"a peer every {setup.every:g} s")
    if not setup.way.near:
        parts.append(str(setup.way))
    return ", ".join([*parts, *([setup.congestion] if setup.congestion else []), setup.scenario.text])


def summary(result: Result) -> str:
    """The run in a few lines."""
    setup, size = result.setup, result.setup.size
    last = result.last_byte()
    lines = [
        f"{setup.mode}, {described(setup)}",
        f"÷ floor               worst {number(result.ratio(), 3)}, median {number(result.median_ratio(), 3)}{_by_rate(result)}",
        f"floor                 S/B = {number(setup.floor, 3, ' s')} for {size / MIB:.4g} MiB",
        f"max last byte         {number(last, 3, ' s')}"
        + (f"  ({size * setup.peers / MIB / last:.0f} MiB/s in all)" if last and not setup.floor else ""),
        f"max first byte        {number(result.first_byte(), 3, ' s')}",
        f"max first MiB         {number(result.first_mib(), 3, ' s')}",
        f"longest stall         {number(result.longest_stall(), 3, ' s')}",
        f"origin bytes ÷ S      {result.origin_logged / size:.3f} by its log ({result.origin_requests} requests), "
        f"{result.origin_ratio():.3f} by its link's counter",
        f"sent by one peer      {number(result.most_sent(), 3)} × S at most",
        f"CPU of all peers      {number(result.total('cpu'), 2, ' s')}",
        f"disk of all peers     read {mebibytes(result.total('disk_read'))} MiB, "
        f"written {mebibytes(result.total('disk_written'))} MiB",
        f"largest peer          {mebibytes(result.peak_rss())} MiB{_cap(result)}",
        f"the machine           load {result.load:.1f} before; {result.seconds:.1f} s with its processors "
        f"{result.busy:.0%} busy",
    ]
    for switch in result.carried:
        lines.append(
            f"switch                {switch.cpu:.2f} s of CPU; {switch.lost} of {switch.packets} packets lost"
            + (f", {switch.crowded} MORE FOR WANT OF ROOM" if switch.crowded else "")
        )
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


def _by_rate(result: Result) -> str:
    """The same for the peers of each kind of link, where links are unlike."""
    rates = sorted({peer.rate for peer in result.others}, reverse=True)
    if len(rates) < 2:
        return ""
    parts = [f"{rate:g} Mbit/s {number(result.ratio(rate), 3)}, {number(result.median_ratio(rate), 3)}" for rate in rates]
    return f" ({'; '.join(parts)})"


def _cap(result: Result) -> str:
    over = result.over_cap()
    if over is None:
        return ""
    bound = f"cap {result.setup.memory} + 10 % + 32 MiB"
    return f", {over / MIB:.1f} MiB OVER {bound}" if over > 0 else f", {-over / MIB:.1f} MiB below {bound}"
