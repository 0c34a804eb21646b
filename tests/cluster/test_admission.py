"""Who may do what, tried by real users on a real API server, and how one might get round it."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from localcluster.control import ControlPlane
from localcluster.processes import until

from .people import GROUP, Answer, bearer, install_crds, kubectl, person, rendered

HOME = "portforge-system"
SHOP = f"{GROUP}/namespaces/shop/portpolicies"
ARGO = "system:serviceaccount:argocd:argocd-application-controller"
VALUES = {
    "rbac": {
        "bindings": {
            "viewers": [{"kind": "User", "name": "vic"}],
            "analysts": [{"kind": "User", "name": "ana"}, {"kind": "User", "name": "abe"}],
            "approvers": [
                {"kind": "Group", "name": "approvers"},
                {
                    "kind": "ServiceAccount",
                    "namespace": "argocd",
                    "name": "argocd-application-controller",
                },
            ],
            "responders": [{"kind": "User", "name": "rita"}],
        }
    },
    "admission": {"trustedAppliers": [ARGO, "flux"]},
}
DIGEST = "sha256:" + "0" * 64


class Cast:
    """Everybody in the play."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.admin = person(plane, "admin", "system:masters")
        self.vic, self.rita = person(plane, "vic"), person(plane, "rita")
        self.ana, self.abe = person(plane, "ana"), person(plane, "abe")
        self.ben, self.bea = person(plane, "ben", "approvers"), person(plane, "bea", "approvers")
        self.argo = bearer(plane, self.token("argocd", "argocd-application-controller"))
        self.agent = bearer(plane, self.token(HOME, "portforge-agent", "agent-a"))
        self.unbound = bearer(plane, self.token(HOME, "portforge-agent"))

    def token(self, namespace: str, account: str, pod: str = "") -> str:
        """A token as the kubelet gets it for ``pod``, or one that no pod holds."""
        bound = ("--bound-object-kind", "Pod", "--bound-object-name", pod) if pod else ()
        return kubectl(self.plane, "create", "token", account, "-n", namespace, *bound).strip()

    def enforced(self, name: str) -> str:
        """The path of a policy by ana that ben approved and enforces."""
        path = f"{SHOP}/{name}"
        accepted(self.ana.create(SHOP, policy(name)))
        accepted(self.ben.merge(path, {"spec": {"mode": "Enforce", "approval": approval("ben")}}))
        return path


@pytest.fixture(scope="module")
def cast(api_server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Cast:
    install_crds(api_server)
    api_server.start_controllers()
    for namespace in (HOME, "argocd", "shop"):
        kubectl(api_server, "create", "namespace", namespace)
    kubectl(api_server, "create", "sa", "-n", "argocd", "argocd-application-controller")
    values = tmp_path_factory.mktemp("values") / "values.json"
    values.write_text(json.dumps(VALUES))
    chart = rendered(values, "rbac", "admission", "serviceaccounts")
    kubectl(api_server, "apply", "-f", "-", stdin=chart)
    for node in ("node-a", "node-b"):
        made = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}
        kubectl(api_server, "apply", "-f", "-", stdin=json.dumps(made))
    kubectl(api_server, "apply", "-f", "-", stdin=json.dumps(AGENT_POD))
    everybody = Cast(api_server)

    def watched() -> bool:
        """Do the admission policies work? It takes them a moment after they are made."""
        path = f"{GROUP}/breakglasses?dryRun=All"
        report = {"metadata": {"name": "x"}} | kind("NodeReport")
        return (
            everybody.admin.create(path, glass("x", "somebody")).code == 403
            and everybody.admin.create(f"{GROUP}/nodereports?dryRun=All", report).code == 403
            and everybody.admin.create(f"{SHOP}?dryRun=All", policy("x")).code == 403
        )

    until("the admission policies", watched, 60)
    return everybody


AGENT_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"namespace": HOME, "name": "agent-a"},
    "spec": {
        "serviceAccountName": "portforge-agent",
        "nodeName": "node-a",
        "containers": [{"name": "agent", "image": "localhost/agent"}],
        "tolerations": [{"operator": "Exists"}],
    },
}


def kind(name: str) -> dict[str, Any]:
    return {"apiVersion": "portforge.dev/v1alpha1", "kind": name}


def policy(name: str, author: str | None = "ana", **spec: Any) -> dict[str, Any]:
    own = {} if author is None else {"author": author}
    rules = [{"id": "in", "protocol": "TCP", "port": 80}]
    base = {"workload": {"kind": "Deployment", "name": name}, "ingress": rules}
    return kind("PortPolicy") | {
        "metadata": {"namespace": "shop", "name": name},
        "spec": base | own | spec,
    }


def approval(by: str) -> dict[str, str]:
    return {"by": by, "at": "2026-11-25T12:00:00Z", "digest": DIGEST}


def glass(name: str, by: str | None) -> dict[str, Any]:
    spec = {"reason": "checkout is down"} | ({"by": by} if by else {})
    return kind("BreakGlass") | {"metadata": {"name": name}, "spec": spec}


def accepted(answer: Answer) -> Answer:
    assert answer.code in (200, 201), answer.body
    return answer


def refused(answer: Answer, *words: str, code: int = 403) -> Answer:
    assert answer.code == code, answer.body
    for word in words:
        assert word in answer.message, answer.message
    print(answer.message)  # docs/access.md shows some of them: run with -s
    return answer


OTHER = [{"id": "in", "protocol": "TCP", "port": 1, "endPort": 65535}]
MAY_NOT = ("may not enforce", "ask one of them (role portforge-approver)")


def test_the_ordinary_way(cast: Cast) -> None:
    path = f"{SHOP}/ordinary"
    accepted(cast.ana.apply(path, policy("ordinary"), "portforge"))
    accepted(cast.ana.apply(path, policy("ordinary", mode="Record", ingress=OTHER), "portforge"))
    accepted(cast.ana.merge(path, {"spec": {"mode": "Audit"}}))
    refused(cast.ana.merge(path, {"spec": {"mode": "Enforce", "approval": approval("ana")}}))
    trial = {"confirmBefore": "2026-11-25T12:10:00Z", "approval": approval("ben")}
    accepted(cast.ben.merge(path, {"spec": {"mode": "Enforce"} | trial}))
    confirmed = accepted(cast.ben.merge(path, {"spec": {"confirmBefore": None}}))
    assert confirmed.body["spec"]["author"] == "ana"
    accepted(cast.ben.merge(path, {"spec": {"mode": "Audit"}}))
    accepted(cast.ben.delete(path))


def test_a_viewer_only_reads(cast: Cast) -> None:
    for resource in ("portpolicies", "nodereports", "breakglasses"):
        accepted(cast.vic.get(f"{GROUP}/{resource}"))
    refused(cast.vic.create(SHOP, policy("viewers", "vic")), 'User "vic" cannot create')
    refused(cast.vic.delete(f"{SHOP}/any"), 'User "vic" cannot delete')


def test_an_analyst_cannot_enforce_in_any_way(cast: Cast) -> None:
    path = f"{SHOP}/tried"
    enforce = policy("tried", mode="Enforce", approval=approval("ben"))
    refused(cast.ana.create(SHOP, enforce), *MAY_NOT)
    refused(cast.ana.apply(path, enforce), *MAY_NOT)
    refused(cast.ana.create(SHOP, policy("tried", approval=approval("ben"))), *MAY_NOT)
    trial = {"confirmBefore": "2030-01-01T00:00:00Z"}
    refused(cast.ana.create(SHOP, policy("tried", **trial)), *MAY_NOT)
    accepted(cast.ana.create(SHOP, policy("tried")))
    refused(cast.ana.merge(path, {"spec": {"approval": approval("ana")}}), *MAY_NOT)
    refused(cast.ana.merge(path, {"spec": {"approval": approval("ben")}}), *MAY_NOT)
    refused(cast.ana.merge(path, {"spec": trial}), *MAY_NOT)
    refused(cast.ana.merge(path, {"spec": {"mode": "Enforce"}}), "needs an approval", code=422)
    # Delete and create again is no way round.
    accepted(cast.ana.delete(path))
    refused(cast.ana.create(SHOP, enforce), *MAY_NOT)
    generated = deepcopy(enforce)
    generated["metadata"] = {"generateName": "tried-"}
    refused(cast.ana.create(SHOP, generated), *MAY_NOT)


def test_what_is_enforced_is_the_approvers(cast: Cast) -> None:
    path = cast.enforced("kept")
    for change in (
        {"spec": {"mode": "Audit"}},
        {"spec": {"ingress": OTHER}},
        {"spec": {"ingress": None}},
        {"spec": {"established": "Keep"}},
        {"spec": {"expiresAt": "2020-01-01T00:00:00Z"}},
        {"spec": {"author": "abe"}},
        {"spec": {"approval": {"at": "2026-11-25T13:00:00Z"}}},
        {"spec": {"confirmBefore": "2020-01-01T00:00:00Z"}},
        {"metadata": {"annotations": {"portforge.dev/mode": "Audit"}}},
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"finalizers": ["portforge.dev/mine"]}},
        {
            "metadata": {
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "gone"}
                ]
            }
        },
    ):
        for analyst in (cast.ana, cast.abe):
            refused(analyst.merge(path, change), *MAY_NOT)
    refused(cast.ana.apply(path, policy("kept", mode="Audit")), *MAY_NOT)
    whole = cast.ana.get(path).body
    whole["spec"]["mode"] = "Record"
    refused(cast.ana.send("PUT", path, whole), *MAY_NOT)
    refused(cast.ana.delete(path), *MAY_NOT)
    refused(cast.ana.delete(path, propagationPolicy="Foreground"), *MAY_NOT)
    refused(cast.ana.send("DELETE", SHOP), "cannot deletecollection")
    refused(cast.ana.send("DELETE", f"{SHOP}?fieldSelector=metadata.name=kept"))
    # A second policy for the workload, milder: the API takes it, the nodes' rule decides.
    second = policy("kept-again", workload={"kind": "Deployment", "name": "kept"}, ingress=None)
    second["spec"].pop("ingress")
    accepted(cast.ana.create(SHOP, second))
    assert cast.vic.get(path).body["spec"]["mode"] == "Enforce"


def test_right_on_a_collection_does_not_help(cast: Cast) -> None:
    """Whoever was given deletecollection by another role still needs enforce, per object."""
    path = cast.enforced("collected")
    kubectl(
        cast.plane, "create", "role", "collector", "-n", "shop",
        "--verb=deletecollection", "--resource=portpolicies.portforge.dev",
    )  # fmt: skip
    kubectl(
        cast.plane, "create", "rolebinding", "collector", "-n", "shop",
        "--role=collector", "--user=ana",
    )  # fmt: skip
    until("the right", lambda: cast.ana.send("DELETE", f"{SHOP}?dryRun=All").code == 403, 10)
    refused(cast.ana.send("DELETE", SHOP), *MAY_NOT)
    accepted(cast.vic.get(path))


def test_the_status_is_the_agents(cast: Cast) -> None:
    path = cast.enforced("told")
    status = {"status": {"appliedNodes": 3, "nodes": 3}}
    refused(cast.ana.merge(f"{path}/status", status), 'User "ana" cannot patch')
    refused(cast.ben.merge(f"{path}/status", status), 'User "ben" cannot patch')
    refused(cast.admin.merge(f"{path}/status", status), "written by the agents only")
    assert "status" not in accepted(cast.ben.merge(path, status)).body
    accepted(cast.agent.merge(f"{path}/status", status))
    # Through status nothing else changes, not even the generation.
    before = cast.vic.get(path).body
    through = {"spec": {"mode": "Audit"}, "metadata": {"labels": {"a": "b"}}} | status
    after = accepted(cast.agent.merge(f"{path}/status", through)).body
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert "labels" not in after["metadata"]


def test_everybody_writes_in_their_own_name(cast: Cast) -> None:
    path = f"{SHOP}/named"
    refused(cast.ana.create(SHOP, policy("named", None)), "spec.author is missing", code=422)
    refused(
        cast.ana.create(SHOP, policy("named", "abe")),
        "spec.author is abe, but ana makes this change",
    )
    accepted(cast.ana.create(SHOP, policy("named")))
    refused(cast.abe.merge(path, {"spec": {"ingress": OTHER}}), "author is ana, but abe makes")
    refused(cast.abe.apply(path, policy("named", ingress=OTHER)), "author is ana, but abe makes")
    accepted(cast.abe.merge(path, {"spec": {"ingress": OTHER, "author": "abe"}}))
    accepted(cast.abe.merge(path, {"spec": {"mode": "Record"}}))
    refused(cast.ben.merge(path, {"spec": {"approval": approval("bea")}}), "approval.by is bea")
    refused(cast.ana.merge(path, {"spec": {"author": None}}), "author is missing", code=422)
    refused(
        cast.ana.merge(path, {"spec": {"workload": {"name": "other"}, "author": "ana"}}),
        "a policy stays with its workload",
        code=422,
    )


def test_nobody_approves_what_they_wrote(cast: Cast) -> None:
    path = f"{SHOP}/own"
    enforced = {"mode": "Enforce", "approval": approval("ben")}
    refused(cast.ben.create(SHOP, policy("own", "ben", **enforced)), "ben wrote this policy and")
    refused(cast.ben.create(SHOP, policy("own", "ana", **enforced)), "author is ana, but ben makes")
    accepted(cast.ben.create(SHOP, policy("own", "ben")))
    refused(cast.ben.merge(path, {"spec": enforced}), "ben wrote this policy and cannot approve it")
    refused(cast.ben.merge(path, {"spec": {"author": "ana"} | enforced}), "but ben makes")
    accepted(cast.bea.merge(path, {"spec": enforced | {"approval": approval("bea")}}))
    # Changed after the approval: bea may, but not under her own approval.
    widened = {"spec": {"ingress": OTHER, "author": "bea"}}
    refused(cast.bea.merge(path, widened), "bea wrote this policy and cannot approve it")
    # ben may, in his name; the digest then does not hold and each node judges it in Audit.
    accepted(cast.ben.merge(path, {"spec": {"established": "Keep"}}))


def test_gitops_brings_what_others_wrote_and_approved(cast: Cast) -> None:
    path = f"{SHOP}/git"
    accepted(cast.argo.apply(path, policy("git", "ana", mode="Enforce", approval=approval("ben"))))
    changed = policy("git", "abe", mode="Enforce", approval=approval("bea"), ingress=OTHER)
    accepted(cast.argo.apply(path, changed))
    own = policy("git", "ben", mode="Enforce", approval=approval("ben"))
    refused(cast.argo.apply(path, own), "ben wrote this policy and cannot approve it")
    refused(cast.argo.create(SHOP, policy("git2", None)), "spec.author is missing", code=422)
    accepted(cast.argo.delete(path))
    # Trusted with names is not trusted with enforcing.
    flux = person(cast.plane, "flux")
    kubectl(
        cast.plane, "create", "rolebinding", "flux", "-n", "shop",
        "--clusterrole=portforge-analyst", "--user=flux",
    )  # fmt: skip
    until("the right", lambda: flux.create(f"{SHOP}?dryRun=All", policy("f")).code == 201, 10)
    refused(flux.create(SHOP, policy("f", mode="Enforce", approval=approval("ben"))), *MAY_NOT)


def test_break_glass(cast: Cast) -> None:
    path = f"{GROUP}/breakglasses"
    refused(cast.ana.create(path, glass("g", "ana")), 'User "ana" cannot create')
    refused(cast.ben.create(path, glass("g", "ben")), 'User "ben" cannot create')
    refused(cast.rita.create(path, glass("g", "ana")), "spec.by must be rita")
    refused(cast.rita.create(path, glass("g", None)), "spec.by must be rita")
    accepted(cast.rita.create(path, glass("g", "rita")))
    refused(cast.rita.merge(f"{path}/g", {"spec": {"nodes": ["n"]}}), "cannot patch")
    refused(
        cast.admin.merge(f"{path}/g", {"spec": {"nodes": ["n"]}}), "cannot be changed", code=422
    )
    refused(cast.agent.delete(f"{path}/g"), "cannot delete")
    accepted(cast.rita.delete(f"{path}/g"))


def test_a_compromised_agent_speaks_for_its_own_node_only(cast: Cast) -> None:
    path = f"{GROUP}/nodereports"

    def report(node: str) -> dict[str, Any]:
        return kind("NodeReport") | {"metadata": {"name": node}}

    accepted(cast.agent.create(path, report("node-a")))
    status = {"status": {"agent": "0.1.0", "synced": True, "canary": None, "breakGlass": None}}
    accepted(cast.agent.apply(f"{path}/node-a/status", report("node-a") | status))
    accepted(cast.agent.merge(f"{path}/node-a", {"metadata": {"labels": {"a": "b"}}}))
    words = ("the report of node node-b is written by the agent on that node only", "on node-a")
    refused(cast.agent.create(path, report("node-b")), *words)
    refused(cast.agent.apply(f"{path}/node-b", report("node-b")), *words)
    refused(cast.unbound.create(path, report("node-b")), words[0])
    refused(cast.admin.create(path, report("node-b")), words[0], "this is admin")
    node_b = bearer(cast.plane, cast.token(HOME, "portforge-agent", other_agent(cast)))
    accepted(node_b.create(path, report("node-b")))
    refused(cast.agent.merge(f"{path}/node-b/status", status), *words)
    refused(cast.agent.merge(f"{path}/node-b", {"metadata": {"labels": {"a": "b"}}}), *words)
    refused(cast.agent.delete(f"{path}/node-b"), "cannot delete")


def other_agent(cast: Cast) -> str:
    """A second agent's pod, on node-b."""
    pod = deepcopy(AGENT_POD)
    pod["metadata"]["name"], pod["spec"]["nodeName"] = "agent-b", "node-b"  # type: ignore[index]
    kubectl(cast.plane, "apply", "-f", "-", stdin=json.dumps(pod))
    return "agent-b"


def test_a_compromised_agent_changes_no_policy(cast: Cast) -> None:
    path = cast.enforced("agents")
    refused(cast.agent.merge(path, {"spec": {"mode": "Audit"}}), "cannot patch")
    refused(cast.agent.delete(path), "cannot delete")
    refused(cast.agent.create(SHOP, policy("agents2")), "cannot create")
    refused(cast.agent.create(f"{GROUP}/breakglasses", glass("a", "x")), "cannot create")
    for elsewhere in (
        "/api/v1/secrets",
        "/api/v1/configmaps",
        f"/api/v1/namespaces/{HOME}/serviceaccounts",
        "/apis/apps/v1/daemonsets",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    ):
        refused(cast.agent.get(elsewhere), "cannot list")
    refused(cast.agent.delete(f"/api/v1/namespaces/{HOME}/pods/agent-a"), "cannot delete")
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{HOME}/leases"
    accepted(cast.agent.create(leases, lease | {"metadata": {"name": "portforge-aggregator"}}))
    accepted(cast.agent.merge(f"{leases}/portforge-aggregator", {"spec": {"holderIdentity": "a"}}))
    refused(cast.agent.merge(f"{leases}/another", {"spec": {"holderIdentity": "a"}}))
    refused(cast.agent.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"))


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/pods",
        "/api/v1/services",
        "/api/v1/nodes",
        "/api/v1/namespaces",
        "/apis/discovery.k8s.io/v1/endpointslices",
        "/apis/apps/v1/replicasets",
        "/apis/batch/v1/jobs",
        "/apis/networking.k8s.io/v1/servicecidrs",
        f"{GROUP}/portpolicies",
        f"{GROUP}/nodereports",
        f"{GROUP}/breakglasses",
    ],
)
def test_what_an_agent_reads(cast: Cast, path: str) -> None:
    accepted(cast.agent.get(path))


def test_two_rights_in_one_namespace_pull_the_capture(cast: Cast) -> None:
    accounts = f"/api/v1/namespaces/{HOME}/serviceaccounts"
    wanted = {"spec": {"audiences": ["portforge"], "expirationSeconds": 600}}
    for reader in (cast.ana, cast.ben):
        accepted(reader.get(f"/api/v1/namespaces/{HOME}/pods"))
        accepted(reader.create(f"{accounts}/portforge-reader/token", wanted))
        refused(reader.create(f"{accounts}/portforge-agent/token", wanted), "cannot create")
        refused(reader.create(f"/api/v1/namespaces/{HOME}/pods/agent-a/exec", {}), "cannot create")
    refused(cast.vic.create(f"{accounts}/portforge-reader/token", wanted), "cannot create")
    refused(cast.ana.get("/api/v1/namespaces/kube-system/pods"), "cannot list")


def test_namespaces_and_owners_go_without_the_verb_where_all_goes(cast: Cast) -> None:
    """A namespace that is deleted takes enforced policies along; a lost owner does not."""
    kubectl(cast.plane, "create", "namespace", "leaving")
    leaving = f"{GROUP}/namespaces/leaving/portpolicies"
    body = policy("last", mode="Audit")
    body["metadata"]["namespace"] = "leaving"
    body["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "11111111"}
    ]
    enforce = {"spec": {"mode": "Enforce", "approval": approval("ben")}}
    accepted(cast.argo.create(leaving, {**body, "spec": body["spec"] | enforce["spec"]}))
    # The garbage collector tries to delete it, for its owner is not there, and is refused. It hears
    # of a new kind within half a minute.
    log = cast.plane.processes.log("controller-manager")
    collector = "system:serviceaccount:kube-system:generic-garbage-collector may not enforce"
    until("the garbage collector", lambda: collector in log.read_text(), 90)
    accepted(cast.vic.get(f"{leaving}/last"))
    kubectl(cast.plane, "delete", "namespace", "leaving", "--timeout=60s")
    assert cast.admin.get("/api/v1/namespaces/leaving").code == 404


def test_a_deletion_in_the_foreground_comes_to_its_end(cast: Cast) -> None:
    path = cast.enforced("foreground")
    accepted(cast.ben.delete(path, propagationPolicy="Foreground"))
    until("the deletion", lambda: cast.vic.get(path).code == 404, 30)


def test_self_approval_where_values_allow_it(cast: Cast, tmp_path_factory: Any) -> None:
    """Last: it changes the admission policy for good."""
    values = tmp_path_factory.mktemp("values") / "values.json"
    values.write_text(json.dumps(VALUES | {"admission": {"allowSelfApproval": True}}))
    kubectl(cast.plane, "apply", "-f", "-", stdin=rendered(values, "admission"))
    own = policy("self", "ben", mode="Enforce", approval=approval("ben"))
    until("the change", lambda: cast.ben.create(f"{SHOP}?dryRun=All", own).code == 201, 30)
    refused(cast.ana.create(SHOP, policy("self", mode="Enforce", approval=approval("ana"))))
