"""PortPolicy, contract 2, as frozen models. Not its YAML (``_yaml``) nor its meaning (``_judge``).

Models are canonical from birth: rules and peers are sorted, CIDRs and instants are in one
spelling. So two policies that mean the same are equal, however they were written.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from portforge.schema import Protocol, Workload

__all__ = [
    "API_VERSION",
    "KIND",
    "Approval",
    "Entity",
    "Established",
    "Mode",
    "PeerSelector",
    "PortPolicy",
    "Rule",
]

API_VERSION = "portforge.dev/v1alpha1"
KIND = "PortPolicy"
# In a direction, and in a rule: the API server prices a CRD's rules by the longest lists.
MOST_RULES, MOST_PEERS = 128, 256


class Mode(StrEnum):
    """What a policy does with traffic no rule allows: nothing, mark it, or deny it."""

    RECORD = "Record"
    AUDIT = "Audit"
    ENFORCE = "Enforce"


class Established(StrEnum):
    """What a change of the policy does to open connections."""

    REJUDGE = "Rejudge"
    KEEP = "Keep"


class Entity(StrEnum):
    """A class of peers that has no name of its own."""

    NODE = "Node"
    CLUSTER = "Cluster"
    WORLD = "World"


def _utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


def _instant_text(value: object) -> object:
    """Refuse numbers: pydantic would take them for seconds since the epoch."""
    if isinstance(value, str | datetime) and not (isinstance(value, str) and value.isdecimal()):
        return value
    raise ValueError("is not a moment in time: write it as 2027-01-01T00:00:00Z")


def _network(value: str) -> str:
    try:
        network: IPv4Network | IPv6Network = ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is not a CIDR: write it as 10.0.0.0/8 or fd00::/8") from None
    if "/" not in value:
        raise ValueError(f"{value!r} has no prefix length: write {network}")
    if isinstance(network, IPv6Network):
        if network.network_address.scope_id is not None:
            raise ValueError(f"{value!r} has a zone: leave out what follows the %")
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            raise ValueError(f"{value!r} is IPv4 in IPv6: write {mapped}/{network.prefixlen - 96}")
    address = value.partition("/")[0]
    if ip_network(address).network_address != network.network_address:
        raise ValueError(f"{value!r} has bits set after its prefix: write {network}")
    return str(network)


Instant = Annotated[AwareDatetime, BeforeValidator(_instant_text), AfterValidator(_utc)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Cidr = Annotated[str, AfterValidator(_network)]
# Kubernetes names: RFC 1123 labels and subdomains. They become file names: no slash, no "..".
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
Namespace = Annotated[str, StringConstraints(pattern=rf"^{_LABEL}$", max_length=63)]
Name = Annotated[str, StringConstraints(pattern=rf"^{_LABEL}(\.{_LABEL})*$", max_length=253)]
Kind = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z0-9]*$", max_length=63)]
RuleId = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$", max_length=63)
]
Who = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=253)]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class Model(BaseModel):
    """Frozen; unknown fields are refused; YAML's names (``endPort``) and Python's both work."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class _WorkloadFields(Model):
    namespace: Namespace
    kind: Kind
    name: Name


class _WorkloadSchema:
    """Validates a :class:`~portforge.schema.Workload` or a mapping of its three fields."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def mapping(value: object) -> object:
            return value._asdict() if isinstance(value, Workload) else value

        def workload(fields: _WorkloadFields) -> Workload:
            return Workload(fields.namespace, fields.kind, fields.name)

        return core_schema.no_info_before_validator_function(
            mapping,
            core_schema.no_info_after_validator_function(
                workload, handler.generate_schema(_WorkloadFields)
            ),
        )


WorkloadField = Annotated[Workload, _WorkloadSchema]


class PeerSelector(Model):
    """Who is meant: exactly one of a workload, a namespace, a CIDR, or an entity.

    A namespace means its pods, whoever owns them, and its Services. As of a workload, pods on
    the host's network are not meant: their address is the node's.

    >>> PeerSelector(cidr="FD00:0::/8").cidr
    'fd00::/8'
    >>> str(PeerSelector(workload=Workload("shop", "Deployment", "cart")))
    'shop/Deployment/cart'
    >>> str(PeerSelector(namespace="shop"))
    'shop/*'
    """

    workload: WorkloadField | None = None
    namespace: Namespace | None = None
    cidr: Cidr | None = None
    entity: Entity | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        kinds = ("workload", "namespace", "cidr", "entity")
        named = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(named) != 1:
            found = " and ".join(named) or "none of them"
            raise ValueError(f"needs exactly one of {', '.join(kinds)}; found {found}")
        return self

    @property
    def sort_key(self) -> tuple[Any, ...]:
        """Workloads by name, then namespaces, then CIDRs by address, then entities."""
        if self.workload is not None:
            return (0, *self.workload)
        if self.namespace is not None:
            return (1, self.namespace)
        if self.cidr is not None:
            network = ip_network(self.cidr)
            return (2, network.version, int(network.network_address), network.prefixlen)
        return (3, str(self.entity))

    def __str__(self) -> str:
        if self.workload is not None:
            return "/".join(self.workload)
        return f"{self.namespace}/*" if self.namespace else str(self.cidr or self.entity)


class Rule(Model):
    """One port, or one range, open to its peers; ``peers`` None means any.

    >>> str(Rule(id="in-tcp-80", protocol=Protocol.TCP, port=80))
    'TCP 80 any peer'
    """

    id: RuleId
    protocol: Protocol
    port: Port
    end_port: Annotated[Port | None, Field(alias="endPort")] = None
    peers: tuple[PeerSelector, ...] | None = None
    expires_at: Annotated[Instant | None, Field(alias="expiresAt")] = None

    @field_validator("end_port")
    @classmethod
    def _a_range(cls, value: int | None, info: ValidationInfo) -> int | None:
        port = info.data.get("port")
        if value is None or port is None or value > port:
            return value
        if value < port:
            raise ValueError(f"{value} is below port {port}: a range goes upwards")
        return None

    @field_validator("peers")
    @classmethod
    def _sorted(cls, value: tuple[PeerSelector, ...] | None) -> tuple[PeerSelector, ...] | None:
        if value is None:
            return None
        if not value:
            raise ValueError("names no peer: leave peers out to allow any, or remove the rule")
        if len(value) > MOST_PEERS:
            raise ValueError(
                f"names {len(value)} peers, {MOST_PEERS} at most: "
                "name a namespace, wider CIDRs or an entity"
            )
        return tuple(sorted(value, key=lambda peer: peer.sort_key))

    @property
    def last_port(self) -> int:
        """The last port of the range; ``port`` where the rule has one."""
        return self.end_port or self.port

    @property
    def ports(self) -> str:
        """``80`` or ``8000-8010``."""
        return f"{self.port}-{self.end_port}" if self.end_port else str(self.port)

    def __str__(self) -> str:
        peers = "any peer" if self.peers is None else ", ".join(map(str, self.peers))
        return f"{self.protocol} {self.ports} {peers}"


class Approval(Model):
    """Who approved, when, and the digest of what was approved."""

    by: Who
    at: Instant
    digest: Digest


def _few_enough(value: tuple[Rule, ...]) -> tuple[Rule, ...]:
    if len(value) > MOST_RULES:
        raise ValueError(f"has {len(value)} rules, {MOST_RULES} at most: join ports to ranges")
    return value


Rules = Annotated[tuple[Rule, ...], AfterValidator(_few_enough)]


class PortPolicy(Model):
    """What one workload may be reached on and may reach.

    Parameters
    ----------
    namespace, name: the object's metadata; the file is ``<namespace>/<name>.yaml``.
    workload: whom it is for; lives in ``namespace``.
    mode, established: see :class:`Mode`, :class:`Established`.
    ingress, egress: rules, sorted by protocol and port. None: this direction is not
        restricted. Empty: nothing is allowed.
    expires_at: from then on the policy restricts nothing.
    author: who wrote it, as the API server calls them. Required in the cluster only.
    confirm_before: on trial until then; past it each node goes back to what was confirmed last.
    approval: see :func:`portforge.policy.approve`.
    """

    namespace: Namespace
    name: Name
    workload: WorkloadField
    mode: Mode = Mode.AUDIT
    established: Established = Established.REJUDGE
    ingress: Rules | None = None
    egress: Rules | None = None
    expires_at: Instant | None = None
    author: Who | None = None
    confirm_before: Instant | None = None
    approval: Approval | None = None

    @field_validator("ingress", "egress")
    @classmethod
    def _sorted(cls, value: Rules | None) -> Rules | None:
        if value is None:
            return None
        return tuple(sorted(value, key=lambda r: (r.protocol, r.port, r.last_port, r.id)))

    @model_validator(mode="after")
    def _at_home(self) -> Self:
        if self.workload.namespace != self.namespace:
            raise ValueError(
                f"workload is in namespace {self.workload.namespace!r}, the policy in "
                f"{self.namespace!r}: a policy lives beside its workload"
            )
        return self

    def rules(self, direction: str) -> Rules | None:
        """The rules of one direction, ``ingress`` or ``egress``."""
        return self.ingress if direction == "ingress" else self.egress
