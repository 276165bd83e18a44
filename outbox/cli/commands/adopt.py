"""The command `outbox adopt`: a copy of the database becomes the outbox itself."""

from __future__ import annotations

import sys
from functools import partial

from outbox.cli.session import ask, with_store
from outbox.config import settings as config
from outbox.store.rules import Rules


def adopt() -> None:
    """Let workers claim in a restored or copied database.

    A copy starts paused, because the original may still deliver the same messages. Say this once the original is out of
    use, or Temporal is another one. After a restore run `outbox audit` first.
    """
    was_copy = ask(partial(with_store, config.load(), Rules, lambda rules: rules.adopt()))
    said = "adopted: workers claim here from now on" if was_copy else "this database is the outbox's home: no copy"
    sys.stdout.write(f"{said}\n")
