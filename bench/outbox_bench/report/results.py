"""Keeps results as JSON files, and reads them again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter

from outbox.model.errors import ConfigurationError
from outbox_bench.report.report import Measurements

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Result:
    """A report, what it was measured on, and when."""

    report: Measurements
    environment: dict[str, Any]
    ended: str
    """When, in UTC, as ISO 8601 writes it."""
    took_s: float
    interrupted: bool = False


_RESULT = TypeAdapter(Result)


def now() -> str:
    """This second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def rounded(result: Result) -> Result:
    """The result with the digits that are kept, so that what is shown now is what will be shown again."""
    return _RESULT.validate_python(_short(asdict(result)))


def keep(result: Result, path: Path) -> Path:
    """Write the result, into a folder under the scenario's name; return the file. Raises ConfigurationError."""
    if path.is_dir() or not path.suffix:
        path = path / f"{result.report.scenario}.json"
    body = {"format": _FORMAT, **asdict(result)}
    for figure, shown in zip(result.report.figures, body["report"]["figures"], strict=True):
        if figure.runs:
            shown |= {"value": _short(figure.value), "reached": figure.reached}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE, default=str))
    except OSError as error:
        raise ConfigurationError(f"--json {path} cannot be written: {error.strerror}") from error
    return path


def load(path: Path) -> Result:
    """Read a kept result. Raises ConfigurationError for a file that is none."""
    try:
        body = orjson.loads(path.read_bytes())
        if body["format"] != _FORMAT:
            raise ConfigurationError(f"{path} has format {body['format']}, and this version reads {_FORMAT}")
        return _RESULT.validate_python(body)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path} is no result of outbox bench: {error!r}") from error


def load_all(folder: Path) -> list[Result]:
    """Every kept result of a folder, by name."""
    return [load(path) for path in sorted(folder.glob("*.json"))]


def _short(value: Any) -> Any:  # noqa: ANN401 - anything that JSON can hold
    """Five significant digits: more than any clock here measures, in a fifth of the space."""
    match value:
        case bool():
            return value
        case float():
            return float(f"{value:.5g}")
        case dict():
            return {name: _short(each) for name, each in value.items()}
        case list() | tuple():
            return [_short(each) for each in value]
    return value
