"""Python values as the JSON text that is sent.

orjson writes them: str, int, float, bool, None, dict, list and tuple; dataclasses without the fields that begin with
an underscore; datetime, date and time (RFC 3339), UUID and Enum (its value). A pydantic model writes itself, by
its aliases, which is what validating it again expects and what Temporal's pydantic converter does. A Decimal becomes a
string, as pydantic has it: a JSON number would lose digits at the next reader. NaN and infinities become null, because
JSON has no such numbers. Keys that are not strings become strings. `orjson.Fragment` passes text that is JSON already.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import orjson

from outbox.model.errors import PayloadError


def json_text(name: str, value: object) -> str:
    """Return a value's JSON. Raises PayloadError, which names the argument and what in it has no JSON form."""
    try:
        return orjson.dumps(value, default=_written_otherwise, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError as error:
        cause = " ".join(str(error.__cause__ or error).split())
        raise PayloadError(
            f"{name} has no JSON form: {cause} (use JSON's own types, dataclasses, pydantic models, datetime, UUID, "
            "Enum or Decimal)"
        ) from error


def _written_otherwise(value: object) -> object:
    """What orjson writes in place of a type that it does not know."""
    if hasattr(type(value), "model_dump_json"):
        return orjson.Fragment(value.model_dump_json(by_alias=True))  # type: ignore[attr-defined]
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"it holds a {type(value).__qualname__}")
