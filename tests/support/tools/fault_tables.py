"""Writes what `make faults` measured into `docs/wakeups.md`, between its markers.

python -m tests.support.tools.fault_tables FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[3] / "docs" / "wakeups.md"
BEGIN, END = "<!-- measured by make faults -->", "<!-- end of what was measured -->"


def main() -> None:
    """Rewrite the page."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(sys.argv[1]).glob("*.json"))]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    tables = "\n".join([*faults([r for r in rows if "fault" in r]), "", *idle([r for r in rows if "mode" in r])])
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", encoding="utf-8")


def faults(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Source × fault."""
    yield "| source | fault | noticed after | trusted again after its end | lost | median delay before | worst delay |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| {row['source']} | {row['fault']} | {row['noticed_s']:.1f} s | {row['recovered_s']:.1f} s | {row['lost']} "
            f"| {1000 * row['p50_healthy_s']:.1f} ms | {1000 * row['worst_s']:.0f} ms |"
        )


def idle(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What an idle worker costs."""
    yield "| idle in mode | statements a second | of one core | memory | bytes a second to and from PostgreSQL |"
    yield "|---|---|---|---|---|"
    for row in rows:
        statements = f"{row['statements_per_s']:.2f}" if row["mode"] != "realtime" else "– ¹"
        yield (
            f"| {row['mode']} | {statements} | {row['cpu_percent']:.2f} % | {row['rss_mib']:.0f} MiB "
            f"| {row['bytes_per_s']:.0f} |"
        )
    yield ""
    yield (
        "¹ cannot be separated from the Realtime server's own ten a second. The sink here is not Temporal's: with its SDK and "
        "`OUTBOX_HTTP_PORT` an idle worker has about 75 MiB resident."
    )


if __name__ == "__main__":
    main()
