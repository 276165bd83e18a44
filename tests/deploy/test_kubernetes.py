"""The manifests are valid, run what exists, with settings that exist, under the restricted pod security standard."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dotenv import dotenv_values

from tests.deploy.settings import known_settings

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
MANIFESTS = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
KUSTOMIZATIONS = sorted(path.parent for path in FOLDER.rglob("kustomization.yaml"))
SETTINGS = dotenv_values(FOLDER / "base" / "settings.env")
VERSIONS = ["1.29", kubernetes_validate.latest_version()]
KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(
    KUBECTL is None, reason="Debian's package kubernetes-client is not installed here; .ci/run installs it"
)


@cache
def manifest(path: Path) -> dict[str, Any]:
    [document] = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return document


def pods() -> Iterator[Any]:
    """The specification of every pod, by its manifest."""
    for path in MANIFESTS:
        if "template" in manifest(path).get("spec", {}):
            yield pytest.param(manifest(path)["spec"]["template"]["spec"], id=path.relative_to(FOLDER).as_posix())


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_manifest_fits_the_schema_of_kubernetes(path: Path, version: str) -> None:
    kubernetes_validate.validate(manifest(path), version, strict=True)


def test_the_schema_refuses_what_is_misspelt() -> None:
    broken = manifest(FOLDER / "standalone" / "relay.yaml") | {"sepc": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


@pytest.mark.parametrize("pod", list(pods()))
def test_a_pod_keeps_the_restricted_standard_and_writes_nowhere(pod: dict[str, Any]) -> None:
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= container["resources"].keys()


DRAINS = {("run",): "OUTBOX_DRAIN_TIMEOUT_S", ("workflows", "run"): "OUTBOX_WORKFLOWS_DRAIN_TIMEOUT_S"}
"""What serves until it is stopped, and the setting that says how long its end may take."""


@pytest.mark.parametrize("pod", list(pods()))
def test_a_relay_and_a_workflow_worker_have_the_time_to_drain(pod: dict[str, Any]) -> None:
    drains = [DRAINS[args] for container in containers(pod) if (args := tuple(container.get("args", ()))) in DRAINS]
    before_s = 30 if pod.get("initContainers") else 0  # the application ends before its sidecar is told to
    for setting in drains:
        assert pod["terminationGracePeriodSeconds"] >= before_s + int(SETTINGS[setting] or 0) + 10


def test_every_process_of_the_image_has_a_manifest() -> None:
    ours = [each for pod in pods() for each in containers(pod.values[0]) if each["image"] == "temporal-outbox"]
    assert {tuple(each["args"]) for each in ours} == {*DRAINS, ("migrate",), ("workflows", "migrate")}


def test_the_workflow_worker_is_asked_whether_it_lives_and_whether_it_works() -> None:
    pod = manifest(FOLDER / "workflows" / "worker.yaml")["spec"]["template"]
    [worker] = pod["spec"]["containers"]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= worker.keys()
    given = {each["name"]: each["value"] for each in worker["env"]}
    ports = {port["name"]: port["containerPort"] for port in worker["ports"]}
    assert given["OUTBOX_WORKFLOWS_METRICS_ADDRESS"] == f"0.0.0.0:{ports['metrics']}"
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    assert given["OUTBOX_WORKFLOWS_DNS_FOLDER"] in {mount["mountPath"] for mount in worker["volumeMounts"]}


@pytest.mark.parametrize("pod", list(pods()))
def test_probes_ask_the_port_that_is_set(pod: dict[str, Any]) -> None:
    for container in containers(pod):
        ports = {port["name"]: str(port["containerPort"]) for port in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container:
                get = container[probe]["httpGet"]
                assert get["path"] == ("/readyz" if probe == "readinessProbe" else "/livez")
                assert ports[get["port"]] == SETTINGS["OUTBOX_HTTP_PORT"]


def test_the_sidecar_starts_before_the_application_and_does_not_decide_about_its_traffic() -> None:
    pod = manifest(FOLDER / "sidecar" / "app.yaml")["spec"]["template"]["spec"]
    [sidecar] = pod["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert {"startupProbe", "livenessProbe"} <= sidecar.keys()
    assert "readinessProbe" not in sidecar


def test_every_setting_in_the_manifests_exists() -> None:
    secrets = [manifest(path)["stringData"] for path in FOLDER.glob("secret*.yaml")]
    given = {
        each["name"] for pod in pods() for container in containers(pod.values[0]) for each in container.get("env", [])
    }
    assert {*SETTINGS, *chain(*secrets), *given} <= known_settings()


def test_every_secret_that_a_container_reads_has_an_example() -> None:
    examples = {manifest(path)["metadata"]["name"] for path in FOLDER.glob("secret*.yaml")}
    read = {
        source["secretRef"]["name"]
        for pod in pods()
        for container in containers(pod.values[0])
        for source in container.get("envFrom", [])
        if "secretRef" in source
    }
    assert read == examples


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
def test_a_kustomization_names_what_exists_and_leaves_nothing_out(folder: Path) -> None:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    named = {resource for resource in kustomization["resources"] if resource.endswith(".yaml")}
    assert named == {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    for resource in kustomization["resources"]:
        assert (folder / resource).exists()
    for file in chain.from_iterable(each["envs"] for each in kustomization.get("configMapGenerator", [])):
        assert (folder / file).exists()


@needs_kubectl
@pytest.mark.parametrize("name", ["sidecar", "standalone", "workflows"])
def test_kustomize_renders_manifests_whose_references_hold(name: str) -> None:
    done = subprocess.run([KUBECTL, "kustomize", FOLDER / name], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rendered = list(yaml.safe_load_all(done.stdout))
    for document in rendered:
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)
    [settings] = [each["metadata"]["name"] for each in rendered if each["kind"] == "ConfigMap"]
    assert settings != "outbox-settings", "without a hash in the name a change restarts nothing"
    for document in rendered:
        if document["kind"] not in ("Deployment", "Job"):
            continue
        for container in containers(document["spec"]["template"]["spec"]):
            assert container["image"].startswith("registry.example.com/")
            if "envFrom" in container:
                assert {"configMapRef": {"name": settings}} in container["envFrom"]
