"""Who is who on this node: identity sources.

Reads a static file of pods; :mod:`portforge_recorder.kubernetes` asks the API server. Not for
attributing rows (:mod:`portforge_recorder.attribute`), not for walking cgroups (the loader does).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from portforge.apply.cgroups import UID
from portforge.apply.inventory import Inventory, Node, Pod, Service, ServicePort
from portforge.errors import PortforgeError
from portforge.schema import Workload

__all__ = ["IdentitySource", "StaticSource"]


class IdentitySource(Protocol):
    """Knows the cluster's pods, Services and nodes at any moment."""

    def inventory(self) -> Inventory:
        """The cluster as known now; raises PortforgeError when it cannot be known."""
        ...


class StaticSource:
    """An inventory read from a YAML file, and read again only when the file has changed.

    Parameters
    ----------
    path: the file: ``cluster``, ``node``, ``nodes``, ``cidrs``, ``pods`` and ``services``, with the
        field names of Kubernetes. A pod without ``workload`` is its own (kind Pod).
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._read: tuple[tuple[int, int, int], Inventory] | None = None

    def inventory(self) -> Inventory:
        """The file's inventory; raises PortforgeError with file and field when it is wrong."""
        try:
            with self.path.open(encoding="utf-8") as file:
                about = os.fstat(file.fileno())
                version = (about.st_mtime_ns, about.st_size, about.st_ino)
                if self._read and self._read[0] == version:
                    return self._read[1]
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise PortforgeError(
                f"the inventory cannot be read ({reason})",
                place=str(self.path),
                remedy="check the path, its permissions and its encoding",
            ) from error
        self._read = (version, _parse(text, self.path))
        return self._read[1]


def _address(text: str) -> str:
    address = ip_address(text)
    return str(getattr(address, "ipv4_mapped", None) or address)


def _network(text: str) -> str:
    return str(ip_network(text))


def _uid(text: str) -> str:
    if not re.fullmatch(UID, text):
        raise ValueError("a pod UID is 36 characters with dashes, or 32 hexadecimal digits")
    return text.replace("_", "-")


_Text = Annotated[str, Field(min_length=1)]
_Addresses = tuple[Annotated[str, AfterValidator(_address)], ...]
_Port = Annotated[int, Field(ge=1, le=65535)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class _Owner(_Entry):
    kind: _Text
    name: _Text


class _Pod(_Entry):
    uid: Annotated[str, AfterValidator(_uid)]
    namespace: _Text
    name: _Text
    node: _Text
    workload: _Owner | None = None
    addresses: _Addresses = ()
    host_network: bool = False


class _ServicePort(_Entry):
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    port: _Port
    target_port: _Port


class _Service(_Entry):
    namespace: _Text
    name: _Text
    addresses: _Addresses = ()
    ports: tuple[_ServicePort, ...] = ()
    workload: _Owner | None = None


class _Node(_Entry):
    name: _Text
    addresses: _Addresses = ()


class _File(_Entry):
    cluster: _Text
    node: _Text
    nodes: tuple[_Node, ...] = ()
    cidrs: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    pods: tuple[_Pod, ...] = ()
    services: tuple[_Service, ...] = ()


def _parse(text: str, path: Path) -> Inventory:
    try:
        content = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        line = f":{mark.line + 1}" if mark else ""
        what = error.problem if isinstance(error, MarkedYAMLError) else "bad YAML"
        raise PortforgeError(
            f"not YAML: {what}", place=f"{path}{line}", remedy="correct the file"
        ) from error
    except (ValueError, RecursionError) as error:  # such as a date with month 99
        raise PortforgeError(
            f"not YAML: {error}", place=str(path), remedy="correct the file; quote what is text"
        ) from error
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        others = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise PortforgeError(
            f"{first['msg'].removeprefix('Value error, ')}{others}",
            place=f"{path}: {_field(first['loc'])}",
            remedy="correct the field; quote a value that is text but looks like a number",
        ) from error
    _check(file, path)
    return _inventory(file)


def _field(location: tuple[int | str, ...]) -> str:
    """``("pods", 3, "uid")`` as ``pods[3].uid``."""
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location)
    return text.lstrip(".") or "the file"


def _check(file: _File, path: Path) -> None:
    """What no single field can be blamed for."""
    if file.nodes and file.node not in {n.name for n in file.nodes}:
        raise PortforgeError(
            f"node {file.node!r} is not among the nodes",
            place=f"{path}: node",
            remedy="list it under nodes with its addresses",
        )
    owned = (a for p in file.pods if not p.host_network for a in p.addresses)
    for what, values in (("UID", (p.uid for p in file.pods)), ("address", owned)):
        twice = [value for value, n in Counter(values).items() if n > 1]
        if twice:
            raise PortforgeError(
                f"two pods have the {what} {twice[0]}",
                place=f"{path}: pods",
                remedy="leave only the pod that has it now",
            )


def _inventory(file: _File) -> Inventory:
    def owner(namespace: str, entry: _Owner | None) -> Workload | None:
        return Workload(namespace, entry.kind, entry.name) if entry else None

    pods = tuple(
        Pod(
            uid=p.uid,
            namespace=p.namespace,
            name=p.name,
            workload=owner(p.namespace, p.workload) or Workload(p.namespace, "Pod", p.name),
            node=p.node,
            addresses=p.addresses,
            host_network=p.host_network,
        )
        for p in file.pods
    )
    services = tuple(
        Service(
            namespace=s.namespace,
            name=s.name,
            addresses=s.addresses,
            ports=tuple(ServicePort(p.protocol, p.port, p.target_port) for p in s.ports),
            workload=owner(s.namespace, s.workload),
        )
        for s in file.services
    )
    nodes = tuple(Node(n.name, n.addresses) for n in file.nodes)
    return Inventory(file.cluster, file.node, pods, services, nodes, file.cidrs)
