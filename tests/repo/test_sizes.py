"""Functions stay as short as CONTRIBUTING.md says."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST_FUNCTION = 60


def test_no_function_is_longer_than_sixty_lines() -> None:
    long = []
    for folder in ("outbox", "workflows", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = (node.end_lineno or 0) - node.lineno + 1
                    if lines > LONGEST_FUNCTION:
                        long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert long == []
