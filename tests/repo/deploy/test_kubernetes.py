"""The manifests are valid, run what exists, with settings that exist, under the restricted pod security standard."""

from __future__ import annotations

import json
import re
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

from tests.repo.deploy.settings import known_settings

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes"
MANIFESTS = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
KUSTOMIZATIONS = sorted(path.parent for path in FOLDER.rglob("kustomization.yaml"))
SETTINGS = dotenv_values(FOLDER / "base" / "settings.env")
VERSIONS = ["1.29", kubernetes_validate.latest_version()]
SECRETS = "/run/outbox/secrets"
CONTAINERFILE = (FOLDER.parents[1] / "Containerfile").read_text(encoding="utf-8")
KUBECTL = shutil.which("kubectl")


def _renders() -> bool:
    """Whether kubectl's kustomize takes a folder as a resource: 1.21 or later; Debian 12 has 1.20."""
    if KUBECTL is None:
        return False
    command = [KUBECTL, "version", "--client", "--output=json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return int(re.sub(r"\D", "", json.loads(done.stdout)["clientVersion"]["minor"])) >= 21


needs_kubectl = pytest.mark.skipif(
    not _renders(), reason="no kubectl 1.21 or later here (Debian's package kubernetes-client, since Debian 13)"
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
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
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
    before_s = 30 if pod.get("initContainers") else 0  # the application ends before its sidecar gets SIGTERM
    for setting in drains:
        assert pod["terminationGracePeriodSeconds"] >= before_s + int(SETTINGS[setting] or 0) + 10


def test_every_process_of_the_image_has_a_manifest() -> None:
    ours = [each for pod in pods() for each in containers(pod.values[0]) if each["image"] == "temporal-outbox"]
    assert {tuple(each["args"]) for each in ours} == {*DRAINS, ("migrate",), ("workflows", "migrate")}


def test_the_workflow_worker_reports_whether_it_is_alive_and_ready() -> None:
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


def given(path: Path) -> dict[str, str]:
    """The variables that a manifest sets, and those that it proposes in a comment, by name."""
    text = path.read_text(encoding="utf-8")
    return dict(re.findall(r"- \{ name: ([A-Z_]+), value: \"?([^ \"]+)\"? \}", text))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_every_setting_in_the_manifests_exists(path: Path) -> None:
    assert {*SETTINGS, *given(path)} <= known_settings()


@pytest.mark.parametrize("pod", list(pods()))
def test_secrets_are_files_that_can_change_under_a_running_process(pod: dict[str, Any]) -> None:
    for container in containers(pod):
        assert not [source for source in container.get("envFrom", []) if "secretRef" in source]
        assert all("value" in each for each in container.get("env", []))
        if container["image"] == "temporal-outbox":
            assert {"name": "DATABASE_URL_FILE", "value": f"{SECRETS}/DATABASE_URL"} in container["env"]
            assert {"name": "secrets", "mountPath": SECRETS, "readOnly": True} in container["volumeMounts"]


def test_every_secret_that_is_mounted_has_an_example_with_every_file_that_is_named() -> None:
    examples = {manifest(path)["metadata"]["name"]: path for path in FOLDER.glob("secret*.yaml")}
    read = set()
    for path in MANIFESTS:
        for volume in manifest(path).get("spec", {}).get("template", {}).get("spec", {}).get("volumes", []):
            if "secret" in volume:
                read.add(volume["secret"]["secretName"])
                example = examples[volume["secret"]["secretName"]]
                named = {each.removeprefix(f"{SECRETS}/") for each in given(path).values() if each.startswith(SECRETS)}
                named |= set(re.findall(rf"{SECRETS}/([\w.]+)", manifest(example)["stringData"]["DATABASE_URL"]))
                known = {
                    *manifest(example)["stringData"],
                    *re.findall(r"([\w.]+):", example.read_text(encoding="utf-8")),
                }
                assert named <= known
    assert read == examples.keys()


def test_the_database_is_verified_with_the_authority_that_is_mounted() -> None:
    for path in FOLDER.glob("secret*.yaml"):
        data = manifest(path)["stringData"]
        assert data["DATABASE_URL"].endswith(f"?sslrootcert={SECRETS}/ca.crt")
        assert "BEGIN CERTIFICATE" in data["ca.crt"]


@pytest.mark.parametrize("pod", [pod for pod in pods() if "migrate" not in str(pod.id)])
def test_a_relay_finds_routes_where_it_looks_for_them(pod: dict[str, Any]) -> None:
    for container in containers(pod):
        if container.get("args") == ["run"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts["routes"] == re.findall(r"^WORKDIR (.+)$", CONTAINERFILE, re.MULTILINE)[-1]
            assert {"name": "routes", "configMap": {"name": "outbox-routes", "optional": True}} in pod["volumes"]


def test_the_included_routes_are_those_of_the_families() -> None:
    ours = FOLDER.parents[1] / "workflows" / "outbox_workflows" / "outbox.toml"
    assert (FOLDER / "workflows" / "outbox.toml").read_bytes() == ours.read_bytes()


def test_an_outage_of_temporal_keeps_no_node_from_being_drained() -> None:
    budgets = [manifest(path)["spec"] for path in MANIFESTS if manifest(path)["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == 3
    assert {budget["unhealthyPodEvictionPolicy"] for budget in budgets} == {"AlwaysAllow"}


def selectors(document: object) -> Iterator[dict[str, str]]:
    """Every set of labels by which a document chooses pods."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == "matchLabels" and any(label.startswith("app.kubernetes.io") for label in value):
                yield value
            yield from selectors(value)
    elif isinstance(document, list):
        for value in document:
            yield from selectors(value)


@pytest.mark.parametrize("folder", KUSTOMIZATIONS[1:], ids=lambda folder: folder.name)
def test_every_pod_has_a_policy_that_lets_traces_and_its_servers_through(folder: Path) -> None:
    policies = [manifest(path)["spec"] for path in folder.glob("network.yaml")]
    for path in folder.glob("*.yaml"):
        labels = manifest(path).get("spec", {}).get("template", {}).get("metadata", {}).get("labels", {})
        if manifest(path).get("kind") == "Deployment":
            mine = [p for p in policies if p["podSelector"]["matchLabels"].items() <= labels.items()]
            out = {port["port"] for policy in mine for rule in policy["egress"] for port in rule["ports"]}
            assert {53, 5432, 7233, 443, 4318} <= out


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
def test_a_kustomization_names_what_exists_and_leaves_nothing_out(folder: Path) -> None:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    named = {resource for resource in kustomization["resources"] if resource.endswith(".yaml")}
    assert named == {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    for resource in kustomization["resources"]:
        assert (folder / resource).exists()
    generated = kustomization.get("configMapGenerator", [])
    for file in chain.from_iterable(each.get("envs") or each["files"] for each in generated):
        assert (folder / file).exists()


def rendered(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    done = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@needs_kubectl
@pytest.mark.parametrize("name", ["sidecar", "standalone", "workflows"])
def test_kustomize_renders_manifests_with_valid_references(name: str) -> None:
    documents = rendered(FOLDER / name)
    for document in documents:
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)
    maps = [each["metadata"]["name"] for each in documents if each["kind"] == "ConfigMap"]
    assert {each.rpartition("-")[0] for each in maps} == {
        "outbox-settings",
        *(["outbox-routes"] * (name == "workflows")),
    }
    [settings] = [each for each in maps if each.startswith("outbox-settings")]
    for document in documents:
        if document["kind"] not in ("Deployment", "Job"):
            continue
        pod = document["spec"]["template"]["spec"]
        for volume in pod["volumes"]:
            if name == "workflows" and volume["name"] == "routes":
                assert volume["configMap"]["name"] in maps, "a change of the routes restarts nothing"
        for container in containers(pod):
            assert container["image"].startswith("registry.example.com/")
            if "envFrom" in container:
                assert {"configMapRef": {"name": settings}} in container["envFrom"]


@needs_kubectl
def test_two_outboxes_in_a_namespace_do_not_choose_each_others_pods(tmp_path: Path) -> None:
    """As docs/deployment.md says to make a second one."""
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    second = tmp_path / "kubernetes" / "second"
    second.mkdir()
    page = (FOLDER.parents[1] / "docs" / "deployment.md").read_text(encoding="utf-8")
    [snippet] = re.findall(r"```yaml\n(# deploy/kubernetes/second/kustomization\.yaml\n.*?)```", page, re.DOTALL)
    (second / "kustomization.yaml").write_text(snippet, encoding="utf-8")
    for example, secret in (("secret.example.yaml", "secret.yaml"), ("secret.owner.example.yaml", "owner.yaml")):
        shutil.copy(FOLDER / example, second / secret)
    one, two = rendered(FOLDER / "standalone"), rendered(second)
    assert not {(d["kind"], d["metadata"]["name"]) for d in one} & {(d["kind"], d["metadata"]["name"]) for d in two}
    pods_of_one = [d["spec"]["template"]["metadata"]["labels"] for d in one if "template" in d.get("spec", {})]
    chosen_by_two = [labels for document in two for labels in selectors(document)]
    assert chosen_by_two
    assert not [(c, p) for c in chosen_by_two for p in pods_of_one if c.items() <= p.items()]
    [relay] = [d for d in two if d["kind"] == "Deployment"]
    mounted = [v["secret"]["secretName"] for v in relay["spec"]["template"]["spec"]["volumes"] if "secret" in v]
    assert mounted == ["second-outbox-secrets"]
