"""Names in DNS: the port that the bootstrap uses, and its plainest implementation."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from anyio import to_thread

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TTL_S = 300


class NameRefused(Exception):
    """The name can never be used: it belongs to another, or it is not a name. Nothing was changed."""


class Dns(Protocol):
    """One zone, in which each name has an owner. Both methods may be repeated, and raise OSError for another try."""

    async def configure(self, subdomain: str, owner: str) -> str:
        """Have a name of the zone lead to the application, and return it in full. Raises NameRefused."""
        ...

    async def remove(self, subdomain: str, owner: str) -> None:
        """See to it that the owner does not have the name, whether or not it was configured."""
        ...


class FileDns:
    """Keeps a zone as a folder, one file a name: a line that a zone file takes in with `$INCLUDE`."""

    def __init__(self, folder: Path, zone: str = "localhost", target: str = "localhost") -> None:
        """`target` is the host that every name leads to. Without DNS, names below localhost lead to this machine."""
        self._folder, self._zone, self._target = folder / zone, zone, target

    async def configure(self, subdomain: str, owner: str) -> str:
        """Write the name's file."""
        await to_thread.run_sync(self._write, subdomain, owner)
        return f"{subdomain}.{self._zone}"

    async def remove(self, subdomain: str, owner: str) -> None:
        """Remove the name's file, if it is the owner's."""
        await to_thread.run_sync(self._remove, subdomain, owner)

    def _write(self, subdomain: str, owner: str) -> None:
        if not _LABEL.fullmatch(subdomain):
            raise NameRefused(f"{subdomain!r} is no name below {self._zone}: use a-z, 0-9 and - within, at most 63")
        self._folder.mkdir(parents=True, exist_ok=True)
        whole = self._folder / f"{subdomain}.zone"
        part = self._folder / f".{subdomain}.{uuid4().hex}"
        part.write_text(f"{subdomain} {_TTL_S} IN CNAME {self._target}. ; {owner}\n", encoding="ascii")
        try:
            os.link(part, whole)  # of two that come at once, one finds that there is a file
        except FileExistsError:
            if _owner_of(whole) != owner:
                raise NameRefused(f"{subdomain}.{self._zone} is another organisation's") from None
            part.replace(whole)
        finally:
            part.unlink(missing_ok=True)

    def _remove(self, subdomain: str, owner: str) -> None:
        whole = self._folder / f"{subdomain}.zone"
        if _LABEL.fullmatch(subdomain) and whole.exists() and _owner_of(whole) == owner:
            whole.unlink(missing_ok=True)


def _owner_of(path: Path) -> str:
    return path.read_text(encoding="ascii").rpartition("; ")[2].strip()
