"""The compose file is valid, mounts what exists, and runs the image as the manifests do."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import yaml

from tests.repo.deploy.settings import known_settings

FOLDER = Path(__file__).parents[3] / "deploy"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "temporal-outbox"}


def test_the_file_fits_the_schema_of_compose() -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())
    jsonschema.validate({name: part for name, part in COMPOSE.items() if not name.startswith("x-")}, schema)


def test_every_file_that_is_mounted_or_built_exists() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] if source[0] != "." else (FOLDER / source).is_file(), source
        if "build" in service:
            assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_one_image_serves_migrate_job_relay_and_workflow_worker() -> None:
    assert {name: service["command"] for name, service in OURS.items()} == {
        "migrate": ["migrate"],
        "migrate-workflows": ["workflows", "migrate"],
        "relay": ["run"],
        "workflows": ["workflows", "run"],
    }


def test_our_containers_write_nowhere_and_have_the_time_to_drain() -> None:
    for name, service in OURS.items():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        drain_s = int(service["environment"]["OUTBOX_DRAIN_TIMEOUT_S"])
        assert name.startswith("migrate") or int(service["stop_grace_period"].removesuffix("s")) >= drain_s + 10
        assert service["environment"].keys() <= known_settings()
