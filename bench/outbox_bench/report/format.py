"""How figures and circumstances are written for people."""

from __future__ import annotations

import math
from collections.abc import Iterator

from outbox_bench.report.results import Result


def number(value: float) -> str:
    """Three significant digits, and thousands apart."""
    if value and abs(value) < 1000:
        decimals = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{min(decimals, 3)}f}"
    return f"{value:,.0f}"


def with_unit(value: float, unit: str) -> str:
    """`×` comes before its number, other units come after it."""
    return f"× {number(value)}" if unit == "×" else f"{number(value)} {unit}"


def circumstances(result: Result) -> Iterator[str]:
    """Where and when, line by line."""
    env = result.environment
    yield f"{env['processor']}, {env['cores']} cores, {env['memory_gib']:g} GiB, {env['system']}, {env['python']}"
    servers = []
    if postgresql := env.get("postgresql"):
        own = " (embedded)" if "PostgreSQL" in env["embedded"] else ""
        servers.append(f"PostgreSQL {postgresql['version']}{own}, fsync {postgresql['fsync']}")
    if temporal := env.get("temporal"):
        own = " (embedded dev server)" if "Temporal dev server" in env["embedded"] else ""
        servers.append(f"Temporal {temporal['version']}{own}")
    if servers:
        yield " · ".join(servers)
    settings = result.report.settings
    plain = {
        name: value for name, value in settings.items() if not isinstance(value, dict) and value not in ((), [], "")
    }
    yield ", ".join(f"{name} {_setting(value)}" for name, value in plain.items())
    for name, value in settings.items():
        if isinstance(value, dict):
            yield f"{name}: {_setting(value)}"
    yield f"revision {env['revision'] or 'unknown'}"
    yield f"{result.ended}, took {result.took_s:.0f} s"


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_setting(each)}" for name, each in value.items())
    return "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
