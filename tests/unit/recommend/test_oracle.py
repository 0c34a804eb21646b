"""Recommendation and oracle agree: what was learned is allowed, what was left out is not."""

from __future__ import annotations

from pathlib import Path

from flow_rows import row, write_capture

from portforge.capture import open_capture
from portforge.policy import Mode, judge
from portforge.recommend import recommend
from portforge.recommend._edges import edges_of
from portforge.recommend._options import Options
from portforge.recommend._sort import sort_edges

ROWS = [
    row("web", "ingress", "TCP", 80, "client"),
    row("web", "ingress", "TCP", 80, "node-a"),
    row("web", "ingress", "TCP", 80, "node-b"),
    row("web", "ingress", "TCP", 22, "client", verdict="refused"),
    row("web", "egress", "UDP", 53, "dns", peer_kind="service"),
    row("web", "egress", "UDP", 514, "192.0.2.9", bytes_received=0),
    row("web", "egress", "TCP", 443, "10.96.0.1", peer_kind="service"),
    row("web", "egress", "TCP", 8443, "10.77.0.99", peer_kind="unknown"),
    row("web", "egress", "TCP", 9443, None),
    row("web", "egress", "TCP", 587, "2001:db8::1"),
    row("web", "egress", "TCP", 25, "192.0.2.1", verdict="failed"),
    *(row("web", "egress", "TCP", 993, f"192.0.2.{i}") for i in range(20)),
]


def test_learned_is_allowed_and_left_out_is_denied(tmp_path: Path) -> None:
    capture = open_capture(write_capture(tmp_path, ROWS))
    policy = recommend(capture).policies[0].model_copy(update={"mode": Mode.ENFORCE})
    learned, left = sort_edges(edges_of(capture.aggregated()), Options())
    assert len(learned) == len(ROWS) - 4
    for edge in learned:
        said = judge(policy, edge.direction, edge.protocol, edge.port, edge.peer, "node-a")
        assert said.verdict == "allowed", (edge, said)
        assert said.rule is not None
    for one in left:
        edge = one.edge
        said = judge(policy, edge.direction, edge.protocol, edge.port, edge.peer, "node-a")
        # The rule for node-b says Node: it allows the own node too, which needs none.
        assert said.verdict == ("allowed" if one.kind == "own_node" else "denied"), (edge, said)
