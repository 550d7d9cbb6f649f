"""deploy/k8s, rendered: valid by Kubernetes' own schemas, and in step with the code."""

import asyncio
import copy
import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from services.testing import client_for
from tests.contract.test_deploy_compose import entry, environment, peers_of, variables_of
from tests.generate import DAEMONS, OPENAPI_FOLDER, ROOT, settings_type
from tests.integration.deploy.kubernetes import faults
from tests.integration.deploy.kustomize import Object, render

FOLDER = ROOT / "deploy" / "k8s"
OVERLAYS = ("small", "production")
CUSTOM = {"ServiceMonitor"}
"""Kinds that no schema of Kubernetes describes; they have a test of their own."""

RENDERED = {name: render(FOLDER / name) for name in OVERLAYS}
TOOLS = render(FOLDER / "tools")
KUSTOMIZE = next(
    (command for command in (["kustomize", "build"], ["kubectl", "kustomize"]) if shutil.which(command[0])),
    [],
)
PORTS: dict[str, int] = {**entry().PORTS, "limits": 6379}


def label_of(each: Object) -> str:
    return f"{each['kind']} {each['metadata']['name']}"


def find(overlay: str, kind: str, name: str) -> Object:
    (found,) = [each for each in RENDERED[overlay] if label_of(each) == f"{kind} {name}"]
    return found


def config(overlay: str) -> dict[str, str]:
    found: dict[str, str] = find(overlay, "ConfigMap", "stillhouse")["data"]
    return found


def of_kind(overlay: str, *kinds: str) -> list[Object]:
    return [each for each in RENDERED[overlay] if each["kind"] in kinds]


def workloads(overlay: str) -> list[Object]:
    """Those of our daemons."""
    found = of_kind(overlay, "Deployment", "StatefulSet")
    return [each for each in found if each["metadata"]["name"] in DAEMONS]


def pod_of(each: Object) -> Object:
    spec: Object = each["spec"]["template"]["spec"]
    return spec


def daemon_of(each: Object) -> Object:
    (container,) = pod_of(each)["containers"]
    found: Object = container
    return found


every_object = pytest.mark.parametrize(
    "each",
    [
        pytest.param(each, id=f"{overlay} {label_of(each)}")
        for overlay in OVERLAYS
        for each in RENDERED[overlay]
        if each["kind"] not in CUSTOM
    ],
)
every_workload = pytest.mark.parametrize(
    "each",
    [
        pytest.param(each, id=f"{overlay} {label_of(each)}")
        for overlay in OVERLAYS
        for each in workloads(overlay)
    ],
)


@every_object
def test_it_is_what_kubernetes_takes(each: Object) -> None:
    assert faults(each) == []


@pytest.mark.parametrize("pod", TOOLS, ids=label_of)
def test_a_tool_is_what_kubernetes_takes(pod: Object) -> None:
    assert faults(pod) == []


@pytest.mark.parametrize("pod", TOOLS, ids=label_of)
def test_a_tool_is_where_its_volume_is(pod: Object) -> None:
    """A volume that one node alone can mount is on the node of the daemon that uses it."""
    (rule,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    daemon = rule["labelSelector"]["matchLabels"]["app.kubernetes.io/name"]
    assert claims(pod["spec"]) <= claims(pod_of(find("small", "Deployment", daemon)))


def claims(pod: Object) -> set[str]:
    return {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }


@pytest.mark.parametrize("path", ["spec.replica", "spec.template.spec.containers.0.readinesProbe"])
def test_what_kubernetes_does_not_know_is_found(path: str) -> None:
    each: Any = copy.deepcopy(find("small", "Deployment", "embedd"))
    *way, last = path.split(".")
    place = each
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = {}
    assert len(faults(each)) == 1


@pytest.mark.skipif(not KUSTOMIZE, reason="neither kustomize nor kubectl is installed")
@pytest.mark.parametrize("overlay", [*OVERLAYS, "tools"])
def test_we_render_as_kustomize_does(overlay: str) -> None:
    done = subprocess.run([*KUSTOMIZE, str(FOLDER / overlay)], capture_output=True, check=True, timeout=60)
    theirs = {label_of(each): each for each in yaml.safe_load_all(done.stdout)}
    assert theirs == {label_of(each): each for each in render(FOLDER / overlay)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_it_runs_every_daemon(overlay: str) -> None:
    kinds = {each["metadata"]["name"]: each["kind"] for each in workloads(overlay)}
    assert set(kinds) == set(DAEMONS)
    assert {name for name in kinds if kinds[name] == "StatefulSet"} == {"vectord", "distill", "chatd"}


def pods() -> list[Any]:
    found = [
        pytest.param(pod_of(each), id=f"{overlay} {label_of(each)}")
        for overlay in OVERLAYS
        for each in of_kind(overlay, "Deployment", "StatefulSet")
    ]
    return [*found, *(pytest.param(pod["spec"], id=label_of(pod)) for pod in TOOLS)]


@pytest.mark.parametrize("pod", pods())
def test_no_pod_has_a_privilege(pod: Object) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("pod", pods())
def test_no_service_sets_a_variable_of_ours(pod: Object) -> None:
    """A Service `gateway` would otherwise be GATEWAY_PORT=tcp://10.0.0.1:80 to every pod."""
    assert pod["enableServiceLinks"] is False


@every_workload
def test_probes_ask_what_every_daemon_answers(each: Object) -> None:
    name, daemon = each["metadata"]["name"], daemon_of(each)
    paths = json.loads((OPENAPI_FOLDER / f"{name}.json").read_text())["paths"]
    asked = {probe: daemon[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe: get["path"] for probe, get in asked.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/healthz",  # what a daemon lacks, it tells its callers itself
    }
    assert {get["path"] for get in asked.values()} <= set(paths)
    assert {get["port"] for get in asked.values()} == {"http"}
    assert daemon["ports"] == [{"name": "http", "containerPort": PORTS[name]}]


@every_workload
def test_a_pod_may_finish_what_it_has(each: Object) -> None:
    drain_s = settings_type(each["metadata"]["name"])().drain_timeout_s
    pause_s = float(daemon_of(each)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod_of(each)["terminationGracePeriodSeconds"] > drain_s + pause_s


@every_workload
def test_what_is_mounted_is_there(each: Object) -> None:
    volumes = {volume["name"] for volume in pod_of(each).get("volumes", [])}
    volumes |= {claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])}
    mounts = {mount["name"]: mount["mountPath"] for mount in daemon_of(each)["volumeMounts"]}
    assert set(mounts) == volumes
    assert mounts["data"] == "/data"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_setting_exists(overlay: str) -> None:
    known = {variable for name in DAEMONS for variable in variables_of(settings_type(name))}
    assert {variable.removesuffix("_FILE") for variable in config(overlay)} <= known


@every_workload
def test_a_daemon_is_told_what_the_compose_file_tells_it(each: Object) -> None:
    """Where its peers are, above all: in a pod nobody else is at 127.0.0.1."""
    name = each["metadata"]["name"]
    given = {variable["name"] for variable in daemon_of(each).get("env", [])} | set(config("small"))
    assert peers_of(name) <= given
    needed = {variable for variable, value in environment(name).items() if not value.endswith(":-}")}
    assert needed <= given


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_lead_to_their_pods(overlay: str) -> None:
    pods = of_kind(overlay, "Deployment", "StatefulSet")
    templates = [each["spec"]["template"]["metadata"]["labels"] for each in pods]
    for service in of_kind(overlay, "Service"):
        name, selector = service["metadata"]["name"], service["spec"]["selector"]
        assert sum(selector.items() <= labels.items() for labels in templates) == 1
        assert service["metadata"]["labels"].items() >= selector.items()
        if name != "gateway":
            assert service["spec"]["ports"][0]["port"] == PORTS[name]
        # The gateway's clients are not ours, and limits are kept in one place: one address each.
        assert (service["spec"].get("clusterIP") == "None") == (name not in ("gateway", "limits"))
    for each in of_kind(overlay, "StatefulSet"):
        assert find(overlay, "Service", each["spec"]["serviceName"])


def urls(overlay: str) -> list[tuple[str, str, int]]:
    """Who asks whom at which port, by the ConfigMap."""
    found = []
    for variable, value in config(overlay).items():
        if "://" in value:
            parts = urlsplit(value)
            askers = ["embedd", "chatd"] if variable == "OLLAMA_HOST" else [variable.split("_")[0].lower()]
            found += [(asker, str(parts.hostname), int(parts.port or 80)) for asker in askers]
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_network_lets_through_what_is_configured_and_no_more(overlay: str) -> None:
    policies = [each["spec"] for each in of_kind(overlay, "NetworkPolicy")]
    configured = {(asker, asked) for asker, asked, _ in urls(overlay)}
    assert all(PORTS[asked] == port for _, asked, port in urls(overlay))
    into, out = set(), set()
    for policy in policies:
        own = policy["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name", "")
        for rule in policy.get("ingress", []):
            into |= {
                (peer, own) for peer in peers(rule.get("from", [])) if rule["ports"] == [{"port": PORTS[own]}]
            }
            assert "from" in rule or own == "gateway"
        for rule in policy.get("egress", []):
            if any(port["port"] == 53 for port in rule["ports"]):
                continue
            out |= {
                (own, peer) for peer in peers(rule.get("to", [])) if rule["ports"] == [{"port": PORTS[peer]}]
            }
    assert into == out == configured
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_rule_opens_every_port(overlay: str) -> None:
    for policy in of_kind(overlay, "NetworkPolicy"):
        rules = [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]
        assert all(rule["ports"] for rule in rules), policy["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_leaves_the_cluster_but_for_providers(overlay: str) -> None:
    """Nor by names: who may ask any server for one can tell it anything."""
    for policy in of_kind(overlay, "NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            assert rule["to"]
            blocks = [to["ipBlock"]["cidr"] for to in rule["to"] if "ipBlock" in to]
            if policy["metadata"]["name"] == "chatd-providers":
                assert rule["ports"] == [{"port": 443}]
            else:
                assert all(block.startswith("169.254.") for block in blocks)


def peers(selectors: list[Object]) -> set[str]:
    """The daemons that a rule names; not other namespaces, nor addresses outside."""
    named = [each["podSelector"]["matchLabels"] for each in selectors if "podSelector" in each]
    return {labels["app.kubernetes.io/name"] for labels in named}


def test_autoscalers_ask_for_metrics_that_there_are(tmp_path: Path) -> None:
    rules = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    derived = {rule["name"]["as"]: rule["seriesQuery"].split("{")[0] for rule in rules}
    for scaler in of_kind("production", "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert find("production", target["kind"], target["name"])
        assert target["name"] not in ("vectord", "distill"), "they own their data"
        series = {derived[metric["pods"]["metric"]["name"]] for metric in scaler["spec"]["metrics"]}
        text = asyncio.run(exposed(target["name"], tmp_path))
        assert series <= set(re.findall(r"^# TYPE (\S+) \S+", text, re.MULTILINE))
        assert "/healthz" not in text, "probes are no load"


async def exposed(name: str, data: Path) -> str:
    """What a daemon shows to Prometheus."""
    settings: Any = settings_type(name)(data=data)
    async with client_for(importlib.import_module(f"{name}.app").create_app(settings)) as client:
        await client.get("/healthz")
        return (await client.get("/metrics")).text


def test_what_can_be_scaled_survives_the_loss_of_a_node() -> None:
    for scaler in of_kind("production", "HorizontalPodAutoscaler"):
        assert scaler["spec"]["minReplicas"] >= 2
    for name in DAEMONS[:-1]:
        budget = find("production", "PodDisruptionBudget", name)["spec"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"] == {"app.kubernetes.io/name": name}


@pytest.mark.parametrize("name", DAEMONS)
def test_prometheus_finds_every_daemon(name: str) -> None:
    monitor = find("production", "ServiceMonitor", name)
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    service = find("production", "Service", name)
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_the_alerts_become_a_rule_as_the_page_says() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    found = re.search(r"(\{ printf .+?; \}) \| kubectl -n stillhouse apply -f -", page, re.DOTALL)
    assert found is not None
    done = subprocess.run(["sh", "-c", found[1]], cwd=ROOT, capture_output=True, check=True, timeout=60)
    rule = yaml.safe_load(done.stdout)
    assert (rule["kind"], rule["metadata"]) == ("PrometheusRule", {"name": "stillhouse"})
    alerts = yaml.safe_load((ROOT / "deploy" / "observability" / "alerts.yml").read_text())
    assert rule["spec"] == alerts


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_roll_out_never_waits_for_a_volume_that_its_predecessor_holds(overlay: str) -> None:
    modes = {
        each["metadata"]["name"]: each["spec"]["accessModes"]
        for each in of_kind(overlay, "PersistentVolumeClaim")
    }
    for each in of_kind(overlay, "Deployment"):
        alone = any(modes[claim] == ["ReadWriteOnce"] for claim in claims({"volumes": [], **pod_of(each)}))
        strategy = each["spec"].get("strategy", {})
        assert (strategy.get("type") == "Recreate") == alone
        if alone:
            assert "rollingUpdate" not in strategy


def test_replicas_of_a_deployment_share_only_what_many_can_mount() -> None:
    for claim in of_kind("production", "PersistentVolumeClaim"):
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("name", [*DAEMONS, "cli"])
def test_images_are_those_of_the_compose_file(name: str) -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"][name]["image"]
    if name == "cli":
        assert {pod["spec"]["containers"][0]["image"] for pod in TOOLS} == {compose}
    else:
        (each,) = [each for each in workloads("small") if each["metadata"]["name"] == name]
        assert daemon_of(each)["image"] == compose
