"""What the image carries is locked, and is what the other tests run on. `make container` builds and tries it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def locked(name: str) -> dict[str, list[str]]:
    """The hashes of each pinned requirement, by its name and version."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {re.split(" [;-]", line)[0]: re.findall(r"--hash=sha256:[0-9a-f]{64}", line) for line in lines}


def test_every_requirement_of_the_image_is_pinned_with_hashes_and_tested() -> None:
    image, dev = locked("runtime.txt"), locked("dev.txt")
    assert image
    for requirement, hashes in image.items():
        assert "==" in requirement
        assert hashes
        assert set(hashes) == set(dev[requirement]), requirement


def test_the_lock_names_no_package_index() -> None:
    assert "://" not in (ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    assert "index" not in (ROOT / ".dockerignore").read_text(encoding="utf-8")


def test_the_image_carries_what_the_wheel_needs_for_realtime_workflows_and_the_benchmarks() -> None:
    wanted = [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["realtime"],
        *PROJECT["project"]["optional-dependencies"]["workflows"],
        *PROJECT["dependency-groups"]["image"],
    ]
    names = {Requirement(requirement).name for requirement in locked("runtime.txt")}
    assert {Requirement(requirement).name for requirement in wanted} <= names


def test_what_is_needed_to_build_goes_to_the_builder_and_nothing_else() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignored == ["*", "!dist/*.whl", "!requirements/runtime.txt"]
    copied = re.findall(r"^COPY (?!--from)(\S+)", (ROOT / "Containerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {f"!{source}" for source in copied} == set(ignored[1:])
