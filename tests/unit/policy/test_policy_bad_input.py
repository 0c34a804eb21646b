"""Everything that can be wrong with a policy file is told in one sentence with its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_policy_yaml import CONTRACT

from portforge.errors import PolicyError
from portforge.policy import read_policies
from portforge.policy._model import MOST_PEERS, MOST_RULES

RULE = "  - id: in-tcp-7070\n    protocol: TCP\n    port: 7070\n"
CASES = {
    "unknown field": (
        ("  mode: Audit\n", "  mode: Audit\n  moed: Enforce\n"),
        "7: spec.moed: unknown field; known here: workload, mode, established, ingress",
    ),
    "unknown field in a rule": (
        ("    endPort: 8010\n", "    end_prt: 8010\n"),
        "19: spec.ingress[1].end_prt: unknown field; known here: id, protocol, port, endPort",
    ),
    "unknown field in a peer": (
        ("    - entity: Node\n", "    - entiti: Node\n"),
        "15: spec.ingress[0].peers[2].entiti: unknown field; known here: workload, namespace, "
        "cidr, entity",
    ),
    "unknown field in a peer's workload": (
        ("{namespace: shop, kind: Deployment, name: frontend}", "{ns: shop, kind: Pod, name: a}"),
        "13: spec.ingress[0].peers[0].workload.ns: unknown field; known here: namespace, kind",
    ),
    "python's name of a field": (
        ("    endPort: 8010\n", "    end_port: 8010\n"),
        "19: spec.ingress[1].end_port: unknown field; known here: id, protocol, port, endPort",
    ),
    "field twice": (
        ("  mode: Audit\n", "  mode: Audit\n  mode: Enforce\n"),
        "7: field 'mode' is written twice; remove one",
    ),
    "missing field": (
        ("    protocol: TCP\n    port: 7070\n", "    port: 7070\n"),
        "9: spec.ingress[0].protocol: required field is missing; add it",
    ),
    "duplicate rule": (
        (RULE, RULE + RULE),
        "14: spec.ingress[1].port: TCP 7070 has the same ports as rule in-tcp-7070 (TCP 7070); "
        "write one rule for each port and list all its peers there",
    ),
    "duplicate id": (
        ("id: in-tcp-8000", "id: in-tcp-7070"),
        "16: spec.ingress[1].id: a second rule is called in-tcp-7070",
    ),
    "overlapping ranges": (
        ("    port: 7070\n", "    port: 7070\n    endPort: 8005\n"),
        "19: spec.ingress[1].port: TCP 8000-8010 has ports that overlap those of rule in-tcp-7070 "
        "(TCP 7070-8005)",
    ),
    "peer twice": (
        ("    - entity: Node\n", "    - cidr: 10.0.0.0/8\n    - entity: Node\n"),
        "15: spec.ingress[0].peers[2]: peer 10.0.0.0/8 is named twice; remove one",
    ),
    "no peers": (
        ("    port: 7070\n", "    port: 7070\n    peers: []\n"),
        None,
    ),
    "bad cidr": (
        ("10.0.0.0/8", "10.0.0.256/8"),
        "14: spec.ingress[0].peers[1].cidr: '10.0.0.256/8' is not a CIDR; write it as 10.0.0.0/8",
    ),
    "cidr with host bits": (
        ("10.0.0.0/8", "10.1.0.0/8"),
        "14: spec.ingress[0].peers[1].cidr: '10.1.0.0/8' has bits set after its prefix; "
        "write 10.0.0.0/8",
    ),
    "address without prefix": (
        ("10.0.0.0/8", "10.0.0.1"),
        "14: spec.ingress[0].peers[1].cidr: '10.0.0.1' has no prefix length; write 10.0.0.1/32",
    ),
    "mapped cidr": (
        ("10.0.0.0/8", "::ffff:10.0.0.0/104"),
        "is IPv4 in IPv6; write 10.0.0.0/8",
    ),
    "two kinds of peer in one": (
        ("    - entity: Node\n", "    - entity: Node\n      cidr: 10.0.0.0/8\n"),
        "15: spec.ingress[0].peers[2]: needs exactly one of workload, namespace, cidr, entity; "
        "found cidr and entity",
    ),
    "a namespace and a workload in one": (
        ("    - entity: Node\n", "    - namespace: shop\n      cidr: 10.0.0.0/8\n"),
        "15: spec.ingress[0].peers[2]: needs exactly one of workload, namespace, cidr, entity; "
        "found namespace and cidr",
    ),
    "a namespace with a star": (
        ("    - entity: Node\n", "    - namespace: team-*\n"),
        "15: spec.ingress[0].peers[2].namespace: 'team-*' is not a name that can be used",
    ),
    "a namespace twice": (
        ("    - entity: Node\n", "    - namespace: team-b\n    - namespace: team-b\n"),
        "16: spec.ingress[0].peers[3]: peer team-b/* is named twice; remove one",
    ),
    "port too high": (
        ("port: 7070", "port: 70000"),
        "11: spec.ingress[0].port: 70000 should be less than or equal to 65535; "
        "ports go from 1 to 65535",
    ),
    "port zero": (("port: 7070", "port: 0"), "11: spec.ingress[0].port: 0 should be greater"),
    "port as text": (
        ("port: 7070", 'port: "7070"'),
        "11: spec.ingress[0].port: '7070' should be a valid integer; write a whole number",
    ),
    "range downwards": (
        ("endPort: 8010", "endPort: 10"),
        "19: spec.ingress[1].endPort: 10 is below port 8000; a range goes upwards",
    ),
    "SCTP": (
        ("protocol: TCP\n    port: 7070", "protocol: SCTP\n    port: 7070"),
        "10: spec.ingress[0].protocol: SCTP passes unjudged in v1alpha1",
    ),
    "unknown protocol": (
        ("protocol: TCP\n    port: 7070", "protocol: tcp\n    port: 7070"),
        "10: spec.ingress[0].protocol: 'tcp' is not known here; write 'TCP', 'UDP'",
    ),
    "unknown mode": (
        ("mode: Audit", "mode: enforce"),
        "6: spec.mode: 'enforce' is not known here; write 'Record', 'Audit' or 'Enforce'",
    ),
    "another kind": (
        ("kind: PortPolicy", "kind: NetworkPolicy"),
        "2: kind: 'NetworkPolicy' is not known here; write 'PortPolicy'",
    ),
    "another version": (
        ("v1alpha1", "v9"),
        "1: apiVersion: 'portforge.dev/v9' is not known here; write 'portforge.dev/v1alpha1'",
    ),
    "no time zone": (
        ("  expiresAt: 2027-01-01T00:00:00Z\n  aut", "  expiresAt: 2027-01-01T00:00:00\n  aut"),
        "22: spec.expiresAt: '2027-01-01T00:00:00' should have timezone info; add the time zone",
    ),
    "a number as a time": (
        ("  expiresAt: 2027-01-01T00:00:00Z\n  aut", "  expiresAt: 1767225600\n  aut"),
        "22: spec.expiresAt: is not a moment in time; write it as 2027-01-01T00:00:00Z",
    ),
    "author is a number": (
        ("author: ana@example.org", "author: 7"),
        "23: spec.author: 7 should be a valid string; write a name",
    ),
    "author is blank": (
        ("author: ana@example.org", 'author: " "'),
        "23: spec.author: string should have at least 1 character",
    ),
    "confirmBefore without time zone": (
        ("confirmBefore: 2026-11-25T12:10:00Z", "confirmBefore: 2026-11-25T12:10:00"),
        "24: spec.confirmBefore: '2026-11-25T12:10:00' should have timezone info; add the time",
    ),
    "python's name of confirmBefore": (
        ("confirmBefore", "confirm_before"),
        "24: spec.confirm_before: unknown field; known here: workload, mode, established, ingress",
    ),
    "digest not a digest": (
        ("sha256:0000", "md5:0000"),
        "28: spec.approval.digest: 'md5:00",
    ),
    "a name that is a path": (
        ("namespace: shop, name: deployment-cart", "namespace: ../.., name: deployment-cart"),
        "3: metadata.namespace: '../..' is not a name that can be used; it must match",
    ),
    "an anchor": (("ingress:\n", "ingress: &rules\n"), "anchor or alias 'rules'"),
    "not YAML": (("metadata: {", "metadata: {["), "3: not YAML: "),
    "text for a list": (("egress: []", "egress: none"), "21: spec.egress: 'none' should be a"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_with_file_line_field_and_remedy(case: str, tmp_path: Path) -> None:
    (old, new), expected = CASES[case]
    assert old in CONTRACT
    file = tmp_path / "cart.yaml"
    text = CONTRACT.replace(old, new, 1)
    if case == "no peers":
        text = CONTRACT.replace("    expiresAt: 2027", "    peers: []\n    expiresAt: 2027", 1)
        expected = "20: spec.ingress[1].peers: names no peer; leave peers out to allow any"
    file.write_text(text)
    with pytest.raises(PolicyError) as caught:
        read_policies(file)
    told = (*caught.value.problems, str(caught.value))
    assert expected is not None
    assert any(expected in sentence for sentence in told), told
    for sentence in told:
        assert sentence.startswith(f"{file}:")
        assert "; " in sentence
        assert "\n" not in sentence


def test_every_problem_is_told(tmp_path: Path) -> None:
    text = CONTRACT.replace("mode: Audit", "mode: x").replace("10.0.0.0/8", "nowhere")
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text("a: 1")
    with pytest.raises(PolicyError, match=r"\(and \d more\)") as caught:
        read_policies(tmp_path)
    assert [p.split(": ")[0] for p in caught.value.problems[:2]] == [
        f"{tmp_path}/a.yaml:6",
        f"{tmp_path}/a.yaml:14",
    ]
    assert all("b.yaml" in p for p in caught.value.problems[2:])


def test_two_policies_for_one_workload(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(CONTRACT)
    (tmp_path / "b.yaml").write_text(CONTRACT.replace("name: deployment-cart", "name: again"))
    with pytest.raises(PolicyError, match=r"b.yaml:5: spec.workload: shop/Deployment/cart has a"):
        read_policies(tmp_path)
    (tmp_path / "b.yaml").write_text(CONTRACT)
    with pytest.raises(PolicyError, match=r"b.yaml:3: metadata.name: a second policy is called"):
        read_policies(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "holds no policy; remove the file or write a policy"),
        (b"# nothing\n", "holds no policy"),
        (b"\x80\x81", ":1: is not text; write it as UTF-8"),
        (b"a\x00b", ":1: not YAML: "),
        (b"- 1\n", ":1: is not a policy; a policy begins with apiVersion"),
        (b"[" * 5000, "nested too deeply"),
    ],
)
def test_files_that_are_something_else(content: bytes, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        read_policies(file)
    assert expected in str(caught.value)


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no such file or folder; check the path"):
        read_policies(tmp_path / "nowhere")
    with pytest.raises(PolicyError, match="no policy files"):
        read_policies(tmp_path)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cart.yaml"
    file.write_text(CONTRACT)
    file.chmod(0)
    if os.geteuid() == 0:  # root reads everything: let the system call answer as for others

        def refuse(self: Path) -> bytes:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PolicyError) as caught:
        read_policies(file)
    assert str(caught.value) == f"{file}: cannot be read: permission denied; check its permissions"


def test_no_permission_for_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cart.yaml").write_text(CONTRACT)
    closed = tmp_path / "closed"
    closed.mkdir()
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if str(folder) == str(closed):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PolicyError, match=f"{closed}: cannot be read: permission denied"):
        read_policies(tmp_path)


def test_longer_than_the_cluster_takes(tmp_path: Path) -> None:
    rules = "".join(
        f"  - id: a{i}\n    protocol: TCP\n    port: {i}\n" for i in range(1, MOST_RULES + 2)
    )
    peers = "".join(f"    - cidr: 10.{i // 256}.{i % 256}.0/32\n" for i in range(MOST_PEERS + 1))
    text = CONTRACT.replace("  egress: []\n", f"  egress:\n{rules}").replace(
        "    - entity: Node\n", peers
    )
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(PolicyError) as caught:
        read_policies(tmp_path)
    assert [p.partition("a.yaml:")[2] for p in caught.value.problems] == [
        "12: spec.ingress[0].peers: names 259 peers, 256 at most; "
        "name a namespace, wider CIDRs or an entity",
        "277: spec.egress: has 129 rules, 128 at most; join ports to ranges",
    ]
