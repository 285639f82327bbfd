"""Measure every speed that the book quotes and write benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import datetime
import warnings
from pathlib import Path

import lab
import train_ppo
from common import Row, machine

HEAD = "| what | figure | unit | peer | peer's figure | ratio | target | met |"


def line(row: Row) -> str:
    """One row of the Markdown table."""
    ratio = f"{row.ratio:,.1f}" if row.ratio else "-"
    value = f"{row.peer_value:,.0f}" if row.peer_value else "-"
    parts = [f"{row.least:,.0f}"] if row.least else []
    parts += [f"{row.least_ratio:g}x"] if row.least_ratio else []
    met = {True: "yes", False: "no", None: "-"}[row.met]
    cells = (row.what, f"{row.ours:,.0f}", row.unit, row.peer or "-", value, ratio)
    return f"| {' | '.join(cells)} | {', '.join(parts) or '-'} | {met} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short check; writes nothing")
    quick = parser.parse_args().quick
    warnings.filterwarnings("ignore", module="(gymnasium|stable_baselines3).*")
    table, notes = train_ppo.rows(quick)
    table = lab.rows(quick) + table
    text = "\n".join(
        [
            "# Speeds",
            "",
            f"{machine()}; one process, one thread; {datetime.date.today().isoformat()}.",
            "Medians of runs in turns with the peer. `make bench` writes this file.",
            "",
            HEAD,
            "|---|--:|---|---|--:|--:|---|---|",
            *map(line, table),
            "",
            *notes,
            "",
        ]
    )
    print(text)
    if not quick:
        (Path(__file__).parent / "RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
