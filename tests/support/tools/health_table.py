"""Writes the results of `make health` into `docs/operations.md`, between its markers.

python -m tests.support.tools.health_table FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"
BEGIN, END = "<!-- measured by make health -->", "<!-- end of the measurement -->"


def main() -> None:
    """Rewrite the page."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(sys.argv[1]).glob("*.json"))]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text("\n".join([f"{before}{BEGIN}", "", *table(rows), "", f"{END}{after}"]), encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Fault × what the pages say."""
    yield "| fault | `/livez` | `/readyz` | says | noticed after | ready again after its end |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        again = "–" if row["ready_again_s"] is None else f"{row['ready_again_s']:.1f} s"
        noticed = "–" if row["noticed_s"] is None else f"{row['noticed_s']:.1f} s"
        says = row["says"].replace("|", "\\|")
        yield f"| {row['fault']} | {row['live']} | {row['ready']} | {says} | {noticed} | {again} |"


if __name__ == "__main__":
    main()
