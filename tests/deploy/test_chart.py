"""The Helm chart without a cluster: linted, rendered with several values, read as YAML."""

from __future__ import annotations

import json
import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from portforge.cli import COMMANDS
from tests.deploy.chart_tools import CHART, kubectl, render, run_helm

EVERYTHING = (
    *("monitoring.podMonitor.enabled=true", "monitoring.serviceMonitor.enabled=true"),
    *("monitoring.rules.enabled=true", "monitoring.dashboard.enabled=true"),
    *("capture.persistentVolumeClaim=shared", "image.pullSecrets[0].name=pull"),
)


def one(documents, kind, name=None):
    found = [d for d in documents if d["kind"] == kind and name in (None, d["metadata"]["name"])]
    assert len(found) == 1, [(d["kind"], d["metadata"]["name"]) for d in documents]
    return found[0]


def pod(documents):
    return one(documents, "DaemonSet")["spec"]["template"]["spec"]


@pytest.mark.parametrize("values", [(), EVERYTHING, ("uninstall.clean=false",)])
def test_lint_finds_nothing(values):
    done = run_helm("lint", "--strict", str(CHART), *(f"--set={v}" for v in values))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 chart(s) failed" in done.stdout


@pytest.mark.parametrize("values", [(), EVERYTHING, ("fullnameOverride=eyes", "bpffs.path=/b")])
def test_every_namespaced_object_says_its_namespace_and_belongs_to_the_release(values):
    for document in render(*values):
        if document["kind"].startswith(("Cluster", "Validating", "CustomResource")):
            continue
        assert document["metadata"]["namespace"] == "pf", document["metadata"]["name"]


@pytest.mark.parametrize(
    "wrong",
    [
        "agnt.x=1",
        "image.agent.digest=latest",
        "clusterName=a/b",
        "capture.hostPath=relative",
        "capture.objectStore.url=https://bucket",
        "capture.objectStore.endpoint=store:9000",
        "capture.keepHours=-1",
        "agent.logLevel=loud",
        "agent.capabilities[0]=ALL",
        "uninstall.timeoutSeconds=1",
        "monitoring.rules.enable=true",
    ],
)
def test_a_wrong_value_is_refused(wrong):
    done = run_helm("template", "portforge", str(CHART), f"--set={wrong}")
    assert done.returncode != 0
    assert "the schema" in done.stderr


def test_every_value_is_described():
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(values, node, at):
        node = {**schema["definitions"].get(str(node.get("$ref", "")).split("/")[-1], {}), **node}
        if not isinstance(values, dict) or "properties" not in node:
            assert node.get("description"), f"{at} has no description"
            return
        assert node["additionalProperties"] is False, at
        assert set(values) <= set(node["properties"]), at
        for key, value in values.items():
            walk(value, node["properties"][key], f"{at}.{key}")

    walk(YAML(typ="safe").load(CHART / "values.yaml"), schema, "values")


def test_containers_have_no_more_than_they_need():
    spec = pod(render())
    containers = {c["name"]: c for c in (*spec["initContainers"], *spec["containers"])}
    assert set(containers) == {"loader", "agent"}
    for container in containers.values():
        context = container["securityContext"]
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["privileged"] is False
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["limits"]["memory"]
    added = {n: set(c["securityContext"]["capabilities"]["add"]) for n, c in containers.items()}
    assert added["agent"] < added["loader"]
    assert "SYS_ADMIN" not in added["agent"]


def test_the_agent_cannot_write_the_hosts_cgroups_and_is_not_on_the_hosts_network():
    spec = pod(render())
    (agent,) = spec["containers"]
    mounts = {m["mountPath"]: m for m in agent["volumeMounts"]}
    assert mounts["/host/cgroup"]["readOnly"] is True
    assert "mountPropagation" not in mounts["/sys/fs/bpf"]  # not every host has shared mounts
    assert spec["hostNetwork"] is False
    assert {m["name"] for m in agent["volumeMounts"]} <= {v["name"] for v in spec["volumes"]}


def test_the_agent_starts_everywhere_and_early():
    spec = pod(render())
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["priorityClassName"] == "system-node-critical"
    names = {e["name"] for e in spec["containers"][0]["env"]}
    assert {"PORTFORGE_NODE", "PORTFORGE_POD_UID", "PORTFORGE_CLUSTER"} <= names


def test_the_capture_may_be_a_claim():
    def volume(*values):
        return next(v for v in pod(render(*values))["volumes"] if v["name"] == "capture")

    assert "hostPath" in volume()
    claim = volume("capture.persistentVolumeClaim=shared")
    assert claim == {"name": "capture", "persistentVolumeClaim": {"claimName": "shared"}}


def test_an_object_store_and_its_secret_are_the_agents_alone():
    def env(spec, kind):
        return {e["name"]: e.get("value", e.get("valueFrom")) for e in spec[kind][0]["env"]}

    store = "capture.objectStore"
    plain = env(pod(render()), "containers")
    spec = pod(
        render(
            *(f"{store}.url=s3://captures/prod", f"{store}.endpoint=https://s3.example:9000"),
            *(f"{store}.region=eu", f"{store}.secretName=keys", "capture.keepHours=72"),
        )
    )
    told = {n: v for n, v in env(spec, "containers").items() if n not in plain}
    assert told == {
        "PORTFORGE_SHIP": "s3://captures/prod",
        "PORTFORGE_KEEP_HOURS": "72",
        "AWS_ENDPOINT_URL": "https://s3.example:9000",
        "AWS_REGION": "eu",
        **{
            key: {"secretKeyRef": {"name": "keys", "key": key}}
            for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        },
        "AWS_SESSION_TOKEN": {
            "secretKeyRef": {"name": "keys", "key": "AWS_SESSION_TOKEN", "optional": True}
        },
    }
    assert not set(told) & set(env(spec, "initContainers"))
    assert not any(
        n.startswith("AWS") for n in env(pod(render(f"{store}.url=s3://b")), "containers")
    )


def test_a_digest_wins_over_a_tag():
    digest = "sha256:" + "0" * 64
    spec = pod(render(f"image.agent.digest={digest}", "image.loader.tag=v9"))
    assert spec["containers"][0]["image"] == f"localhost/portforge-agent@{digest}"
    assert spec["initContainers"][0]["image"] == "localhost/portforge-loader:v9"


def test_selectors_meet_the_agents_and_nothing_else():
    documents = render(*EVERYTHING)
    agents = one(documents, "DaemonSet")
    labels = agents["spec"]["template"]["metadata"]["labels"]
    wanted = [
        agents["spec"]["selector"]["matchLabels"],
        one(documents, "Service")["spec"]["selector"],
        one(documents, "PodMonitor")["spec"]["selector"]["matchLabels"],
    ]
    job = one(documents, "Job")["spec"]["template"]["metadata"]["labels"]
    for selector in wanted:
        assert selector.items() <= labels.items()
        assert not selector.items() <= job.items()
    service = one(documents, "Service")["metadata"]["labels"]
    monitor = one(documents, "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service.items()
    assert service[monitor["jobLabel"]] == "portforge"  # what the alert rules ask for


def test_rules_and_dashboard_are_the_files_as_they_are():
    documents = render(*EVERYTHING)
    rules = YAML(typ="safe").load(CHART / "files/alerts.yaml")
    assert one(documents, "PrometheusRule")["spec"] == rules
    board = one(documents, "ConfigMap")
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert board["data"]["portforge.json"].strip() == (
        (CHART / "files/dashboard.json").read_text().strip()
    )


def test_nothing_but_the_agents_is_there_by_default():
    kinds = {d["kind"] for d in render() if "helm.sh/hook" not in str(d["metadata"])}
    assert not kinds & {"PodMonitor", "ServiceMonitor", "PrometheusRule", "Deployment", "Secret"}


def test_the_hook_may_change_one_daemonset_and_only_while_it_runs():
    documents = render()
    role = one(documents, "Role", "portforge-uninstall")
    (change,) = [r for r in role["rules"] if "patch" in r["verbs"]]
    assert change["resourceNames"] == [one(documents, "DaemonSet")["metadata"]["name"]]
    for kind in ("ServiceAccount", "Role", "RoleBinding", "Job"):
        notes = one(documents, kind, "portforge-uninstall")["metadata"]["annotations"]
        assert notes["helm.sh/hook"] == "pre-delete"
        assert "hook-succeeded" in notes["helm.sh/hook-delete-policy"]
    assert not [d for d in render("uninstall.clean=false") if d["kind"] == "Job"]


@pytest.mark.parametrize("kind", ["Job", "Pod"])
def test_what_talks_to_the_api_server_alone_is_not_root(kind):
    document = one(render(), kind)
    spec = document["spec"] if kind == "Pod" else document["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["securityContext"]["runAsNonRoot"] is True
    assert "add" not in container["securityContext"]["capabilities"]


def test_the_words_given_to_portforge_are_known_to_it():
    """Every command and option in the chart is one of the command line's."""
    for document in render():
        spec = document.get("spec", {})
        spec = spec.get("template", {}).get("spec", spec)
        for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
            assert container["command"] == ["portforge"]
            name, *options = container["args"]
            command = import_module(f"portforge.cli.{name}").command
            known = {o for p in command.params for o in p.opts}
            assert {o.split("=")[0] for o in options} <= known, name


def test_notes_name_commands_that_exist():
    text = (CHART / "templates/NOTES.txt").read_text()
    assert set(re.findall(r"^   (?:kubectl )?portforge ([a-z-]+)", text, re.MULTILINE)) <= {
        *COMMANDS
    }


@pytest.mark.parametrize("overlay", ["base", "overlays/audit-only", "overlays/dev"])
def test_kustomize_builds(overlay):
    folder = CHART.parents[1] / "kustomize" / overlay
    done = subprocess.run(
        [kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    documents = list(YAML(typ="safe").load_all(done.stdout))
    spec = pod(documents)
    assert "helm" not in done.stdout.lower()
    assert one(documents, "Namespace")["metadata"]["name"] == "portforge"
    crds = {d["metadata"]["name"] for d in documents if d["kind"] == "CustomResourceDefinition"}
    assert "portpolicies.portforge.dev" in crds
    if overlay.endswith("dev"):
        assert spec["containers"][0]["image"] == "localhost/portforge-agent:dev"
        names = [e["name"] for e in spec["containers"][0]["env"]]
        assert len(names) == len(set(names)) > 2
    if overlay.endswith("audit-only"):
        one(documents, "ValidatingAdmissionPolicyBinding", "portforge-audit-only")


def test_the_base_is_what_the_chart_says():
    script = Path(__file__).parents[2] / "scripts/kustomize"
    done = subprocess.run([str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
