"""The command `outbox adopt`: a copy of the database becomes the outbox itself."""

from __future__ import annotations

import sys

from outbox.cli.session import ask_store
from outbox.store.rules import Rules


def adopt() -> None:
    """Let workers claim in a restored or copied database.

    A copy starts paused, because the original may still deliver the same messages. Adopt it when the original is out
    of use, or when the copy uses another Temporal. After a restore run `outbox audit` first.
    """
    was_copy = ask_store(Rules, lambda rules: rules.adopt())
    said = "adopted: workers claim here from now on" if was_copy else "this database is no copy: nothing to adopt"
    sys.stdout.write(f"{said}\n")
