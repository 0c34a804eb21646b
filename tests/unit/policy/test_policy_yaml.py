"""A policy written and read again is the same policy, and the same bytes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from policy_strategies import policies
from pydantic import TypeAdapter

from portforge.policy import (
    PortPolicy,
    Rule,
    digest,
    lint,
    read_policies,
    to_yaml,
    write_policies,
)

CONTRACT = """\
apiVersion: portforge.dev/v1alpha1
kind: PortPolicy
metadata: {namespace: shop, name: deployment-cart}
spec:
  workload: {kind: Deployment, name: cart}
  mode: Audit
  established: Rejudge
  ingress:
  - id: in-tcp-7070
    protocol: TCP
    port: 7070
    peers:
    - workload: {namespace: shop, kind: Deployment, name: frontend}
    - cidr: 10.0.0.0/8
    - entity: Node
  - id: in-tcp-8000
    protocol: TCP
    port: 8000
    endPort: 8010
    expiresAt: 2027-01-01T00:00:00Z
  egress: []
  expiresAt: 2027-01-01T00:00:00Z
  author: ana@example.org
  confirmBefore: 2026-11-25T12:10:00Z
  approval:
    by: Ana Lima
    at: 2026-11-25T12:00:00Z
    digest: sha256:0000000000000000000000000000000000000000000000000000000000000000
"""


@given(policies())
def test_round_trip_is_the_identity_and_byte_stable(policy: PortPolicy) -> None:
    text = to_yaml(policy)
    with TemporaryDirectory() as folder:
        file = Path(folder, "policy.yaml")
        file.write_text(text, encoding="utf-8", newline="")
        assert lint([policy]) == []
        assert read_policies(file) == [policy]
        assert to_yaml(read_policies(file)[0]) == text


def test_the_contracts_example_is_canonical(tmp_path: Path) -> None:
    file = tmp_path / "cart.yaml"
    file.write_text(CONTRACT)
    (policy,) = read_policies(file)
    assert to_yaml(policy) == CONTRACT
    assert policy.egress == ()
    assert policy.ingress is not None
    peers = policy.ingress[0].peers or ()
    assert [str(peer) for peer in peers] == ["shop/Deployment/frontend", "10.0.0.0/8", "Node"]


def test_policies_without_a_namespace_as_peer_keep_their_digest(tmp_path: Path) -> None:
    """Computed before a namespace could be a peer: no approval was lost by it."""
    file = tmp_path / "cart.yaml"
    file.write_text(CONTRACT)
    assert digest(read_policies(file)[0]) == (
        "sha256:b94737fcbaa6d90c6062a5e120966ce56d9f57b2f849889a0a9afd10a2671d82"
    )


def test_a_namespace_stands_behind_workloads_and_before_addresses(tmp_path: Path) -> None:
    teams = "    - namespace: team-a\n    - namespace: team-b\n"
    before = "    - cidr: 10.0.0.0/8\n"
    canonical = CONTRACT.replace(before, teams + before)
    (tmp_path / "canonical.yaml").write_text(canonical)
    mixed = CONTRACT.replace(before, before + "".join(reversed(teams.splitlines(keepends=True))))
    (tmp_path / "mixed.yaml").write_text(mixed)
    (policy,) = read_policies(tmp_path / "mixed.yaml")
    assert to_yaml(policy) == canonical
    assert read_policies(tmp_path / "canonical.yaml") == [policy]
    assert digest(policy) != digest(policy.model_copy(update={"ingress": ()}))


def test_order_and_spelling_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(CONTRACT)
    text = CONTRACT.replace("2027-01-01T00:00:00Z", '"2027-01-01T02:00:00+02:00"')
    text = text.replace(
        "    - cidr: 10.0.0.0/8\n    - entity: Node\n",
        "    - entity: Node\n    - cidr: 10.0.0.0/8\n",
    )
    (tmp_path / "b.yaml").write_text(f"# reviewed\n{text}status: {{nodes: 3}}\n")
    assert read_policies(tmp_path / "a.yaml") == read_policies(tmp_path / "b.yaml")


def test_files_are_named_after_namespace_and_name(tmp_path: Path) -> None:
    (tmp_path / "in.yaml").write_text(CONTRACT)
    policies_read = read_policies(tmp_path / "in.yaml")
    assert write_policies(policies_read, tmp_path / "out") == [
        tmp_path / "out" / "shop" / "deployment-cart.yaml"
    ]
    assert (tmp_path / "out/shop/deployment-cart.yaml").read_text() == CONTRACT
    assert [p.name for p in (tmp_path / "out/shop").iterdir()] == ["deployment-cart.yaml"]


def test_a_folder_is_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b", "a"):
        text = CONTRACT.replace("deployment-cart", f"deployment-{name}").replace(
            "{kind: Deployment, name: cart}", f"{{kind: Deployment, name: {name}}}"
        )
        (tmp_path / f"{name}.yml").write_text(text)
    (tmp_path / ".hidden.yaml").write_text("nonsense: [")
    (tmp_path / "evidence.parquet").write_bytes(b"")
    assert [p.workload.name for p in read_policies(tmp_path)] == ["a", "b"]


def test_several_documents_in_one_file(tmp_path: Path) -> None:
    other = CONTRACT.replace("name: deployment-cart", "name: other").replace(
        "name: cart", "name: o"
    )
    (tmp_path / "both.yaml").write_text(f"---\n{CONTRACT}---\n{other}...\n")
    assert [p.name for p in read_policies(tmp_path)] == ["deployment-cart", "other"]


def test_a_range_of_one_port_is_a_port() -> None:
    rule = TypeAdapter(Rule).validate_python(
        {"id": "a", "protocol": "TCP", "port": 80, "endPort": 80}
    )
    assert rule == Rule(id="a", protocol="TCP", port=80)  # type: ignore[arg-type]
