"""Measure every speed that the book quotes and write benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import datetime
import warnings
from pathlib import Path

import denoise
import dream
import first_view
import jitted
import lab
import torch
import train_ppo
import train_sac
import vla_speed
from common import Row, machine, time_goes_to

HEAD = "| what | figure | unit | peer | peer's figure | ratio | target | met |"
RULE = "|---|--:|---|---|--:|--:|---|---|"


def line(row: Row) -> str:
    """One row of the Markdown table."""
    ratio = f"{row.ratio:,.1f}" if row.ratio else "-"
    value = f"{row.peer_value:,.0f}" if row.peer_value else "-"
    parts = [f"{row.least:,.0f}"] if row.least else []
    parts += [f"{row.least_ratio:g}x"] if row.least_ratio else []
    met = {True: "yes", False: "no", None: "-"}[row.met]
    cells = (row.what, f"{row.ours:,.0f}", row.unit, row.peer or "-", value, ratio)
    return f"| {' | '.join(cells)} | {', '.join(parts) or '-'} | {met} |"


def report(table: list[Row], notes: list[str]) -> str:
    """The results page."""
    missed = [row for row in table if row.met is False and row.work]
    bounds = [f"- Missed: {r.what} beside {r.peer}. {time_goes_to(r.work)}." for r in missed]
    lines = [
        "# Speeds",
        "",
        f"{machine()}; {datetime.date.today().isoformat()}.",
        f"One process, {torch.get_num_threads()} thread; medians of runs in turns with the peer.",
        "`make bench` writes this file.",
        "",
        HEAD,
        RULE,
        *map(line, table),
        "",
        *notes,
        *bounds,
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run everything; `--quick` only checks that it runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short check; writes nothing")
    quick = parser.parse_args().quick
    warnings.filterwarnings("ignore", module="(gymnasium|stable_baselines3).*")
    table, notes = [], []
    for part in (lab, train_ppo, train_sac, jitted, denoise, dream, vla_speed, first_view):
        own_table, own_notes = part.rows(quick)
        table, notes = table + own_table, notes + own_notes
    text = report(table, notes)
    print(text)
    if not quick:
        (Path(__file__).parent / "RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
