"""Builds the image of `Containerfile` and tries it on real servers, with Debian's tools alone: `make container`.

The base is a Debian that debootstrap makes, because a registry may be out of reach; buildah builds without a daemon.
Everything stays in `.container/`; `make clean` removes it. What is tried, and how: `tests/support/tools/container_trial.py`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic

from outbox import __version__
from outbox_temporal.servers.postgres import PostgresServer
from outbox_temporal.servers.temporal import TemporalServer
from tests.support.tools.container_trial import Image, insist, try_out

ROOT = Path(__file__).parents[3]
HOME = ROOT / ".container"
IMAGE = "localhost/temporal-outbox"
BASE, BUILDER = "localhost/outbox-base", "localhost/outbox-builder"
GREATEST_SIZE_MB = 200
PYTHON_VERSION = "import sys; print('{}.{}'.format(*sys.version_info))"


def main() -> None:
    """Build, measure, try. Ends with one line where that cannot be done here, or with the first claim that fails."""
    if why := hindrance():
        raise SystemExit(f"container: not built: {why}")
    HOME.mkdir(exist_ok=True)
    make_base()
    build()
    with mounted(BASE) as base, mounted(IMAGE) as root:
        size_mb = (size(root) - size(base)) / 1e6
        show("size above the base", f"{size_mb:.0f} MB")
        insist(size_mb <= GREATEST_SIZE_MB, f"the image is more than {GREATEST_SIZE_MB} MB larger than its base")
        described = json.loads(buildah("inspect", "--type=image", IMAGE))
        image = Image(root, described["Docker"]["config"], HOME)
        with PostgresServer.start(fsync=False) as postgres, TemporalServer.start(ui=False, in_memory=True) as temporal:
            for what, found in try_out(image, postgres.dsn(), temporal.address):
                show(what, found)


def hindrance() -> str | None:
    """Why it cannot be built here, with the cure; None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "mounting and debootstrap need root on Linux"
    missing = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not installed (Debian: apt install {' '.join(missing)})"
    if "debian" not in platform.freedesktop_os_release().get("ID", ""):
        return "the base is made from Debian's packages, and this is not Debian"
    return None


def make_base() -> None:
    """The base, and the same with Python's venv module to build on. Kept from one call to the next."""
    images = {name for image in json.loads(buildah("images", "--json")) for name in image.get("names") or ()}
    if {f"{BASE}:latest", f"{BUILDER}:latest"} <= images:
        return
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    targets = run("apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    mirror = next(line.split()[2] for line in targets.splitlines() if line.split()[:2] == [release, "main"])
    tree = HOME / "base"
    shutil.rmtree(tree, ignore_errors=True)
    apart = ("unshare", "--mount")  # it mounts in the tree, and may leave that behind
    run(*apart, "debootstrap", "--variant=minbase", "--include=python3,ca-certificates", release, tree, mirror)
    show("base made", f"Debian {release}")
    with container("scratch") as name:
        buildah("add", "--quiet", name, tree, "/")
        buildah("commit", "--quiet", name, BASE)
    shutil.rmtree(tree)
    with container(BASE) as name:
        inside = partial(buildah, "run", "--isolation=chroot", "--env=DEBIAN_FRONTEND=noninteractive", name, "--")
        inside("apt-get", "update", "-qq")
        inside("apt-get", "install", "-qq", "--no-install-recommends", "python3-venv")
        buildah("commit", "--quiet", name, BUILDER)


def build() -> None:
    """Build the image. The build itself is offline; the same commit on the same base makes the same layers."""
    began_s = monotonic()
    wheels = download()
    configuration = HOME / "pip.conf"
    configuration.write_text("[global]\nno-index = true\nfind-links = /run/wheels\n")
    revision, committed_at = run("git", "-C", ROOT, "log", "-1", "--format=%H %ct").split()
    arguments = {"BASE": BASE, "BUILDER": BUILDER, "VERSION": __version__, "REVISION": revision}
    buildah(
        *("build", "--isolation=chroot", "--format=docker", "--quiet", "--timestamp", committed_at),
        *(f"--build-arg={name}={value}" for name, value in arguments.items()),
        *(f"--secret=id=pip,src={configuration}", f"--volume={wheels}:/run/wheels:ro"),
        *("--file", ROOT / "Containerfile", "--tag", IMAGE, ROOT),
    )
    show("built in", f"{monotonic() - began_s:.0f} s")


def download() -> Path:
    """The folder with what is locked, for the base's Python. This machine's pip gets it, as it is configured here."""
    with container(BASE) as name:
        version = buildah("run", "--isolation=chroot", name, "--", "python3", "-c", PYTHON_VERSION).strip()
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps")
    locked = ("--require-hashes", "--requirement", ROOT / "requirements" / "runtime.txt")
    run(*pip, "--dest", HOME / "wheels", "--only-binary=:all:", f"--python-version={version}", *locked)
    return HOME / "wheels"


@contextmanager
def container(image: str) -> Iterator[str]:
    """A working container of buildah's, gone afterwards."""
    name = buildah("from", "--quiet", "--pull-never", image).strip()
    try:
        yield name
    finally:
        buildah("rm", name)


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """The image's file system, and its configuration beside it."""
    with container(image) as name:
        yield Path(buildah("mount", name).strip())


def size(tree: Path) -> int:
    """Bytes in the files of a tree."""
    return sum(entry.lstat().st_size for entry in tree.rglob("*") if entry.is_file() and not entry.is_symlink())


def show(what: str, found: object) -> None:
    """One line of the report."""
    sys.stdout.write(f"{what:30} {found}\n")
    sys.stdout.flush()


def buildah(*arguments: str | Path) -> str:
    """Run buildah on storage of our own, which needs no privileged file system."""
    storage = ("--root", HOME / "storage", "--runroot", HOME / "run", "--storage-driver", "vfs")
    return run("buildah", *storage, *arguments)


def run(*command: str | Path) -> str:
    """Run a program that must succeed and return its output; end with its last lines where it does not."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        ending = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise SystemExit(f"container: {Path(str(command[0])).name} failed:\n{ending}")
    return done.stdout


if __name__ == "__main__":
    main()
