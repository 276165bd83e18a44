"""An object of the user's own by its reference, module:attribute. Any error of its module becomes one line."""

from __future__ import annotations

import pkgutil
from traceback import extract_tb


def load_reference(reference: str) -> object:
    """Import what `module:attribute` names. Raises ValueError with the cause in a line for any error of the module."""
    try:
        return pkgutil.resolve_name(reference)
    except ModuleNotFoundError as error:
        raise ValueError(f"{error}: install it, or add its folder to PYTHONPATH") from error
    except (Exception, SystemExit) as error:
        if extract_tb(error.__traceback__)[-1].filename == pkgutil.__file__:  # the module has no such attribute
            raise ValueError(str(error)) from error
        raise ValueError(f"importing it raised {explained(error)}") from error


def explained(error: BaseException) -> str:
    """In a line: what code of the user's raised, and where."""
    text = " ".join(str(error).split())
    frame = extract_tb(error.__traceback__)[-1]
    if isinstance(error, SyntaxError):  # it names its place itself
        return f"{type(error).__name__}: {text}"
    return f"{type(error).__name__}: {text} ({frame.filename}, line {frame.lineno})"
