"""A policy in sentences, with what was seen for each rule."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from portforge.errors import CaptureError
from portforge.policy import PortPolicy, approve, explain
from portforge.schema import Workload

WEB = PortPolicy.model_validate(
    {
        "namespace": "shop",
        "name": "deployment-web",
        "workload": Workload("shop", "Deployment", "web"),
        "mode": "Enforce",
        "ingress": [
            {
                "id": "in-tcp-80",
                "protocol": "TCP",
                "port": 80,
                "endPort": 81,
                "peers": [{"entity": "World"}, {"cidr": "10.0.0.0/8"}],
                "expiresAt": "2027-01-01T00:00:00Z",
            },
            {"id": "in-tcp-90", "protocol": "TCP", "port": 90},
        ],
        "egress": [],
    }
)
EVIDENCE: dict[str, Any] = {
    "namespace": "shop",
    "policy": "deployment-web",
    "rule": "in-tcp-80",
    "workload_kind": "Deployment",
    "workload": "web",
    "direction": "ingress",
    "protocol": "TCP",
    "port": 80,
    "peers": "World 3",
    "connections": 10007,
    "bytes": 1234567,
    "hours": 5,
    "days": 2,
    "pods": 2,
    "pods_total": 3,
    "first_seen": pd.Timestamp("2026-03-02T08:00:00Z"),
    "last_seen": pd.NaT,
    "confidence": "medium",
    "over_grant": "",
    "reason": None,
}


def test_in_sentences() -> None:
    assert explain(WEB).splitlines() == [
        "Deployment web in shop (Enforce: traffic that no rule allows is denied)",
        "When the policy changes, open connections are judged again, maybe cut.",
        "ingress: only what follows (and its own node, for probes).",
        "  in-tcp-80: addresses in 10.0.0.0/8 or anything outside the cluster may connect to TCP "
        "ports 80 to 81, until 2027-01-01T00:00:00Z",
        "  in-tcp-90: any peer may connect to TCP port 90",
        "egress: nothing.",
        "Not approved.",
    ]


def test_with_evidence() -> None:
    other = EVIDENCE | {"workload": "else", "connections": 1}
    told = explain(WEB, pd.DataFrame([other, EVIDENCE])).splitlines()
    assert told[4] == (
        "    seen: 10,007 connections, 1,234,567 bytes, in 5 hours of 2 days, in 2 of 3 pods; "
        "peers World 3; first seen 2026-03-02 08:00:00Z; confidence medium"
    )
    assert told[6] == "    seen: no evidence for this rule"


def test_evidence_of_something_else() -> None:
    with pytest.raises(CaptureError, match="evidence lacks the columns bytes, connections"):
        explain(WEB, pd.DataFrame({"rule": ["a"]}))


def test_whether_the_approval_holds() -> None:
    approved = approve(WEB, "ana", datetime(2026, 11, 25, tzinfo=UTC))
    assert explain(approved).endswith("\nApproved by ana at 2026-11-25T00:00:00Z.")
    changed = approved.model_copy(update={"egress": None})
    assert explain(changed).endswith("but changed since: it needs approval again.")


def test_a_namespace_in_a_sentence() -> None:
    peers = [{"namespace": "team-b"}, {"cidr": "10.0.0.0/8"}]
    rule = {"id": "in-tcp-90", "protocol": "TCP", "port": 90, "peers": peers}
    told = explain(PortPolicy.model_validate(dict(WEB) | {"ingress": [rule]})).splitlines()
    assert told[3] == (
        "  in-tcp-90: anything in namespace team-b or addresses in 10.0.0.0/8 may connect to TCP "
        "port 90"
    )
