"""What the API server and kube-proxy know of a test cluster: inventory and Service translation.

Pure but for :func:`write`; takes pods as they are and makes none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ruamel.yaml import YAML

from portforge.apply.inventory import Service
from portforge.schema import Workload

__all__ = ["POD_CIDRS", "SERVICE_CIDR", "describe", "translation", "write"]

POD_CIDRS = ("10.77.0.0/24", "fd77::/64")
SERVICE_CIDR = "10.96.0.0/16"


class Listed(Protocol):
    """What is asked of a pod here."""

    uid: str
    name: str
    workload: Workload
    address: str
    address6: str
    host_network: bool


def describe(
    cluster: str,
    node: str,
    addresses: Sequence[str],
    pods: Sequence[Listed],
    services: Sequence[Service],
) -> dict[str, Any]:
    """The cluster in the shape of the inventory file."""
    return {
        "cluster": cluster,
        "node": node,
        "nodes": [{"name": node, "addresses": list(addresses)}],
        "cidrs": [*POD_CIDRS, SERVICE_CIDR],
        "pods": [
            {
                "uid": p.uid,
                "namespace": p.workload.namespace,
                "name": p.name,
                "workload": {"kind": p.workload.kind, "name": p.workload.name},
                "node": node,
                "addresses": [] if p.host_network else [p.address, p.address6],
                "hostNetwork": p.host_network,
            }
            for p in pods
        ],
        "services": [
            {
                "namespace": s.namespace,
                "name": s.name,
                "addresses": list(s.addresses),
                "ports": [
                    {"protocol": p.protocol, "port": p.port, "targetPort": p.target_port}
                    for p in s.ports
                ],
                **(
                    {"workload": {"kind": s.workload.kind, "name": s.workload.name}}
                    if s.workload
                    else {}
                ),
            }
            for s in services
        ],
    }


def translation(services: Sequence[Service], backends: Mapping[tuple[str, str], Listed]) -> str:
    """The nftables ruleset of all Services, replacing the one before in one transaction.

    ``backends`` is keyed by the Service's namespace and name. A pod that reaches itself through
    a Service is masqueraded, or its answer would not come back.

    >>> print(translation([], {}).splitlines()[1])
    delete table ip services
    """
    rules = [
        f"ip daddr {service.addresses[0]} {port.protocol.lower()} dport {port.port} "
        f"dnat to {backend.address}:{port.target_port}"
        for service in services
        if (backend := backends.get((service.namespace, service.name)))
        for port in service.ports
    ]
    hairpins = sorted(
        {
            f"ip saddr {p.address} ip daddr {p.address} ct status dnat masquerade"
            for p in backends.values()
        }
    )
    hooks = {
        "prerouting priority -100": rules,
        "output priority -100": rules,
        "postrouting priority 100": hairpins,
    }
    chains = "\n".join(
        "\n".join([f"chain {hook.split()[0]} {{", f"type nat hook {hook};", *body, "}"])
        for hook, body in hooks.items()
    )
    return f"table ip services\ndelete table ip services\ntable ip services {{\n{chains}\n}}\n"


def write(path: Path, inventory: Mapping[str, Any]) -> None:
    """Replace the inventory file as a whole."""
    yaml = YAML(typ="safe")
    yaml.default_flow_style = None
    yaml.width = 200
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    draft = path.with_name(f".{path.name}.new")
    with draft.open("w", encoding="utf-8") as file:
        yaml.dump(dict(inventory), file)
    draft.replace(path)
