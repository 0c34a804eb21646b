"""PortPolicy to its one canonical YAML text. Reading it back is ``_read``.

The same policy is the same bytes: fields in contract order, rules and peers sorted by the model.
"""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from portforge.policy._model import API_VERSION, KIND, PeerSelector, PortPolicy, Rule

__all__ = ["canonical", "emitter", "instant_text", "to_yaml"]


class _Instant(str):
    """Text YAML would quote, because it looks like what it is: a moment in time."""

    __slots__ = ()


class _Representer(RoundTripRepresenter):
    pass


def _represent_instant(representer: _Representer, data: _Instant) -> ScalarNode:
    node = representer.represent_scalar("tag:yaml.org,2002:timestamp", str(data))
    assert isinstance(node, ScalarNode)  # noqa: S101
    return node


_Representer.add_representer(_Instant, _represent_instant)


def emitter() -> YAML:
    """The writer every policy file is written with: two spaces, no wrapping, no anchors."""
    yaml = YAML(typ="rt", pure=True)
    yaml.Representer = _Representer
    yaml.width = 1_000_000
    yaml.indent(mapping=2, sequence=2, offset=0)
    return yaml


def instant_text(moment: datetime) -> str:
    """RFC 3339 in UTC, ending in Z.

    >>> instant_text(datetime(2027, 1, 1, tzinfo=UTC))
    '2027-01-01T00:00:00Z'
    """
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _flow(**fields: Any) -> CommentedMap:
    written = CommentedMap(fields)
    written.fa.set_flow_style()
    return written


def _peer(selector: PeerSelector) -> dict[str, Any]:
    if selector.workload is not None:
        return {"workload": _flow(**selector.workload._asdict())}
    if selector.namespace is not None:
        return {"namespace": selector.namespace}
    if selector.cidr is not None:
        return {"cidr": selector.cidr}
    return {"entity": str(selector.entity)}


def _rule(rule: Rule) -> dict[str, Any]:
    written: dict[str, Any] = {
        "id": rule.id,
        "protocol": str(rule.protocol),
        "port": rule.port,
    }
    if rule.end_port is not None:
        written["endPort"] = rule.end_port
    if rule.peers is not None:
        written["peers"] = [_peer(peer) for peer in rule.peers]
    if rule.expires_at is not None:
        written["expiresAt"] = _Instant(instant_text(rule.expires_at))
    return written


def canonical(policy: PortPolicy) -> dict[str, Any]:
    """The whole object as plain data, fields in the order of contract 2."""
    spec: dict[str, Any] = {
        "workload": _flow(kind=policy.workload.kind, name=policy.workload.name),
        "mode": str(policy.mode),
        "established": str(policy.established),
    }
    if policy.ingress is not None:
        spec["ingress"] = [_rule(rule) for rule in policy.ingress]
    if policy.egress is not None:
        spec["egress"] = [_rule(rule) for rule in policy.egress]
    if policy.expires_at is not None:
        spec["expiresAt"] = _Instant(instant_text(policy.expires_at))
    if policy.author is not None:
        spec["author"] = policy.author
    if policy.confirm_before is not None:
        spec["confirmBefore"] = _Instant(instant_text(policy.confirm_before))
    if policy.approval is not None:
        spec["approval"] = {
            "by": policy.approval.by,
            "at": _Instant(instant_text(policy.approval.at)),
            "digest": policy.approval.digest,
        }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": _flow(namespace=policy.namespace, name=policy.name),
        "spec": spec,
    }


def to_yaml(policy: PortPolicy) -> str:
    """The canonical text of ``policy``; the same policy gives the same bytes.

    >>> from portforge.schema import Workload
    >>> print(to_yaml(PortPolicy(namespace="shop", name="deployment-web",
    ...     workload=Workload("shop", "Deployment", "web"),
    ...     ingress=[{"id": "in-tcp-80", "protocol": "TCP", "port": 80}])), end="")
    apiVersion: portforge.dev/v1alpha1
    kind: PortPolicy
    metadata: {namespace: shop, name: deployment-web}
    spec:
      workload: {kind: Deployment, name: web}
      mode: Audit
      established: Rejudge
      ingress:
      - id: in-tcp-80
        protocol: TCP
        port: 80
    """
    text = StringIO()
    emitter().dump(canonical(policy), text)
    return text.getvalue()
