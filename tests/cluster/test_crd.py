"""The CRD and the Python model accept and refuse the same policies; the API server is the judge.

The API server takes the canonical spelling only; the model takes others and spells them anew.
A peer named twice is found by lint only.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from localcluster.control import ControlPlane
from localcluster.processes import until
from policy_strategies import policies

from portforge.errors import PolicyError
from portforge.policy import PortPolicy, lint
from portforge.policy._model import MOST_PEERS, MOST_RULES, Mode
from portforge.policy._read import parse
from portforge.policy._yaml import canonical

from .people import GROUP, Answer, Person, install_crds, kubectl, person

COLLECTION = f"{GROUP}/namespaces/{{}}/portpolicies?dryRun=All&fieldValidation=Strict"
TRIED = settings(
    deadline=None,
    max_examples=100,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def admin(api_server: ControlPlane) -> Person:
    """The administrator of an API server that has the CRDs and the strategies' namespaces."""
    install_crds(api_server)
    names = ["web", "cart", "on", "no", "null", "true", "1", "0x10", "1e3", "2027-01-01", "x-9"]
    lists = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in names]
    body = {"apiVersion": "v1", "kind": "List", "items": lists}
    kubectl(api_server, "apply", "-f", "-", stdin=json.dumps(body))
    who = person(api_server, "admin", "system:masters")
    until("the CRDs", lambda: who.get(f"{GROUP}/portpolicies").code == 200, 30)
    return who


def written(policy: PortPolicy) -> dict[str, Any]:
    """The canonical object as the cluster takes it: every value as in the file."""
    return json.loads(json.dumps(canonical(policy)))  # type: ignore[no-any-return]


def model_says(data: dict[str, Any]) -> str:
    """Empty where the model and lint accept ``data``, and an Enforce has its approval."""
    try:
        (policy,) = parse(json.dumps(data, ensure_ascii=False))
    except PolicyError as refused:
        return str(refused)
    if policy.mode == Mode.ENFORCE and policy.approval is None:
        return "is not approved"
    return "; ".join(lint([policy]))


def server_says(admin: Person, data: dict[str, Any]) -> Answer:
    namespace = data["metadata"]["namespace"]
    answer = admin.create(COLLECTION.format(namespace), data)
    assert answer.code in (201, 400, 422), answer.body
    return answer


def agreed(admin: Person, data: dict[str, Any]) -> bool:
    """Are both of one mind? And is that yes?"""
    model, server = model_says(data), server_says(admin, data)
    assert (model == "") == (server.code == 201), (data, model, server.message)
    return model == ""


@given(policies())
@TRIED
def test_every_canonical_policy(admin: Person, policy: PortPolicy) -> None:
    data = written(policy)
    accepted = agreed(admin, data)
    assert accepted == (policy.mode != Mode.ENFORCE or policy.approval is not None)
    if accepted:
        kept = server_says(admin, data).body
        assert kept["spec"] == data["spec"]


VALUES: list[Any] = [
    None, "", " ", "a", "A", "a b", "a_b", "-a", "a-", "a.b", "é", "x" * 64, "x" * 254, 0, 1, -1,
    65535, 65536, 1.5, True, [], {}, "80", "TCP", "UDP", "SCTP", "ICMP", "tcp", "Enforce", "Keep",
    "Node", "node", "10.0.0.0/8", "10.1.0.0/8", "10.0.0.0", "0.0.0.0/0", "::/0", "::1/128",
    "::ffff:0:0/96", "::ffff:10.0.0.0/104", "fe80::1%eth0/128", "10.0.0.0/33", "1.2.3/24",
    "10.0.0.0/08", "010.0.0.0/8", "::1.2.3.4/128", "2027-01-01T00:00:00Z", "2027-01-01",
    "2027-01-01T00:00:00", "2027-13-01T00:00:00Z", "1767225600", "sha256:" + "0" * 64,
    "sha256:" + "0" * 63, "sha256:" + "A" * 64, "md5:0",
    {"workload": {"namespace": "shop", "kind": "Pod", "name": "a"}}, {"entity": "Node"},
    {"cidr": "10.0.0.0/8"}, {"cidr": "10.0.0.0/8", "entity": "Node"}, {"unknown": 1},
    {"namespace": "shop"}, {"namespace": "shop", "cidr": "10.0.0.0/8"}, {"namespace": "*"},
]  # fmt: skip


def paths(data: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in ``data`` below the top."""
    if not isinstance(data, dict | list):
        return []
    found: list[tuple[str | int, ...]] = []
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        found += [(*at, key), *paths(value, (*at, key))]
    return found


def noncanonical(data: dict[str, Any]) -> bool:
    """Accepted by the model in a spelling that is not its own, or null for absent."""
    (policy,) = parse(json.dumps(data, ensure_ascii=False))
    own = written(policy)["spec"]

    def normal(spec: dict[str, Any]) -> dict[str, Any]:
        spec = {"mode": "Audit", "established": "Rejudge"} | copy.deepcopy(spec)
        for direction in ("ingress", "egress"):
            if spec.get(direction) is not None:
                for rule in spec[direction]:
                    if rule.get("peers"):
                        rule["peers"].sort(key=json.dumps)
                spec[direction].sort(key=lambda rule: str(rule["id"]))
        return spec

    return json.dumps(normal(own), sort_keys=True) != json.dumps(
        normal(data["spec"]), sort_keys=True
    )


@given(policies(), st.data())
@settings(TRIED, max_examples=300)
def test_one_thing_wrong(admin: Person, policy: PortPolicy, data: st.DataObject) -> None:
    """A canonical policy with one value replaced, removed or doubled, anywhere in its spec."""
    body = written(policy)
    path = data.draw(st.sampled_from(paths(body["spec"], ("spec",))))
    parent: Any = body
    for key in path[:-1]:
        parent = parent[key]
    key: Any = path[-1]
    match data.draw(st.sampled_from(["replace", "replace", "replace", "remove", "double"])):
        case "remove":
            parent.pop(key)
        case "double" if isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        case _:
            parent[key] = data.draw(st.sampled_from(VALUES))
    server = server_says(admin, body)
    if server.code == 201:
        # The server leaves out null where it means nothing: what it keeps is what nodes read.
        model = model_says(body | {"spec": server.body["spec"]})
        assert model == "" or "is named twice" in model, (path, body, model)
    else:
        model = model_says(body)
        assert model or noncanonical(body), (path, body, server.message)


RULE = {"id": "a", "protocol": "TCP", "port": 80}


def body(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "portforge.dev/v1alpha1",
        "kind": "PortPolicy",
        "metadata": {"namespace": "web", "name": "web"},
        "spec": {"workload": {"kind": "Deployment", "name": "web"}} | spec,
    }


REFUSED = {
    "ids across directions": (
        body(ingress=[RULE], egress=[RULE | {"port": 81}]),
        "a rule in ingress and one in egress have the same id",
    ),
    "ids in a direction": (
        body(ingress=[RULE, RULE | {"port": 81}]),
        "two rules have the same id; give each rule an id of its own",
    ),
    "ports that overlap": (
        body(ingress=[RULE | {"endPort": 90}, RULE | {"id": "b", "port": 85}]),
        "two rules of one protocol have ports that overlap",
    ),
    "range downwards": (body(egress=[RULE | {"endPort": 79}]), "must be above port"),
    "SCTP": (body(egress=[RULE | {"protocol": "SCTP"}]), 'supported values: "TCP", "UDP"'),
    "no peer": (body(egress=[RULE | {"peers": []}]), "should have at least 1 items"),
    "two kinds of peer": (
        body(egress=[RULE | {"peers": [{"cidr": "10.0.0.0/8", "entity": "Node"}]}]),
        "needs exactly one of workload, namespace, cidr, entity",
    ),
    "a namespace and another kind of peer": (
        body(egress=[RULE | {"peers": [{"namespace": "shop", "entity": "Node"}]}]),
        "needs exactly one of workload, namespace, cidr, entity",
    ),
    "a namespace that is none": (
        body(egress=[RULE | {"peers": [{"namespace": "team-*"}]}]),
        "spec.egress[0].peers[0].namespace",
    ),
    "no kind of peer": (
        body(egress=[RULE | {"peers": [{}]}]),
        "needs exactly one of workload, namespace, cidr, entity",
    ),
    "bits after the prefix": (
        body(egress=[RULE | {"peers": [{"cidr": "10.1.0.0/8"}]}]),
        "is not a CIDR in canonical spelling",
    ),
    "IPv4 in IPv6": (
        body(egress=[RULE | {"peers": [{"cidr": "::ffff:10.0.0.0/104"}]}]),
        "is not a CIDR in canonical spelling",
    ),
    "Enforce without approval": (body(mode="Enforce"), "Enforce needs an approval; review it"),
    "digest": (
        body(approval={"by": "ana", "at": "2026-11-25T12:00:00Z", "digest": "md5:0"}),
        "spec.approval.digest",
    ),
    "no time zone": (body(expiresAt="2027-01-01T00:00:00"), "spec.expiresAt"),
    "blank author": (body(author=" "), "has spaces before or after the name"),
    "unknown field": (body(moed="Enforce"), 'unknown field "spec.moed"'),
    "too many rules": (
        body(egress=[RULE | {"id": f"a{i}", "port": i} for i in range(1, MOST_RULES + 2)]),
        "Too many",
    ),
    "too many peers": (
        body(
            egress=[
                RULE
                | {
                    "peers": [
                        {"cidr": f"10.{i // 256}.{i % 256}.0/32"} for i in range(MOST_PEERS + 1)
                    ]
                }
            ]
        ),
        "Too many",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_both_refuse(admin: Person, case: str) -> None:
    data, expected = REFUSED[case]
    assert model_says(data)
    answer = server_says(admin, data)
    assert answer.code in (400, 422), answer.body
    assert expected in answer.message
    print(answer.message)


SPELLINGS = {
    "IPv6 in capitals": body(egress=[RULE | {"peers": [{"cidr": "FD00:0::/8"}]}]),
    "a range of one port": body(egress=[RULE | {"endPort": 80}]),
    "spaces around a name": body(author=" ana "),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_the_cluster_takes_one_spelling(admin: Person, case: str) -> None:
    """What the model reads in another spelling and writes in this one."""
    assert model_says(SPELLINGS[case]) == ""
    assert server_says(admin, SPELLINGS[case]).code == 422
    (policy,) = parse(json.dumps(SPELLINGS[case]))
    assert agreed(admin, written(policy))


def test_long_policies_are_affordable(admin: Person) -> None:
    """The CRD's rules have a price limit at run time too."""
    peers = [{"cidr": f"2001:db8:{i:x}:ffff:ffff:ffff:ffff:ffff/128"} for i in range(1, 257)]
    assert len(peers) == MOST_PEERS
    rules = [RULE | {"id": f"a{i}", "port": i} for i in range(1, MOST_RULES + 1)]
    others = [rule | {"id": f"b{rule['port']}"} for rule in rules]
    assert agreed(admin, body(ingress=rules, egress=others))
    assert agreed(admin, body(ingress=[RULE | {"peers": peers}]))


def test_a_peer_named_twice_is_lints_alone(admin: Person) -> None:
    """It means the same as once, and comparing all peers costs the API server seconds."""
    twice = body(egress=[RULE | {"peers": [{"entity": "Node"}, {"entity": "Node"}]}])
    assert "is named twice; remove one" in model_says(twice)
    assert server_says(admin, twice).code == 201


def test_what_people_see(admin: Person, api_server: ControlPlane) -> None:
    accepted = admin.create(f"{GROUP}/namespaces/web/portpolicies", body(author="ana"))
    assert accepted.code == 201
    assert accepted.body["spec"]["mode"] == "Audit"
    assert accepted.body["spec"]["established"] == "Rejudge"
    status = {
        "status": {
            "nodes": 3,
            "appliedNodes": 2,
            "denied": 0,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "False",
                    "reason": "Waiting",
                    "message": "node-b lags",
                    "lastTransitionTime": "2026-11-25T12:00:00Z",
                }
            ],
        }
    }
    path = f"{GROUP}/namespaces/web/portpolicies/web"
    assert admin.merge(f"{path}/status", status).code == 200
    shown = kubectl(api_server, "get", "pp", "-n", "web").splitlines()
    assert shown[0].split() == [
        "NAME",
        "WORKLOAD",
        "MODE",
        "APPLIED",
        "NODES",
        "DENIED",
        "READY",
        "AGE",
    ]
    assert shown[1].split()[:7] == ["web", "web", "Audit", "2", "3", "0", "False"]
    assert "web" in kubectl(api_server, "get", "portforge", "-n", "web")
    moved = admin.merge(path, {"spec": {"workload": {"name": "other"}}})
    assert "a policy stays with its workload" in moved.message
    told = kubectl(api_server, "explain", "portpolicies.spec.confirmBefore")
    assert "The policy is on trial until then" in " ".join(told.split())
    admin.delete(path)
