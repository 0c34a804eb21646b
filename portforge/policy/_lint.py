"""What no single field shows: rules or policies that clash. Pure; ``_read`` adds places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

from portforge.policy._model import PeerSelector, PortPolicy, Rule
from portforge.schema import Direction, Protocol

__all__ = ["Finding", "findings", "lint"]

Subject = PortPolicy | Rule | PeerSelector


@dataclass(frozen=True)
class Finding:
    """One problem; ``subject`` is the very object it was found in, ``field`` its field there."""

    policy: PortPolicy
    subject: Subject
    where: str
    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        owner = f"{self.policy.namespace}/{self.policy.name}"
        place = f"{owner}: {self.where}" if self.where else owner
        return f"{place}: {self.problem}; {self.remedy}"


def _rule_findings(
    policy: PortPolicy, direction: str, rules: tuple[Rule, ...]
) -> Iterator[Finding]:
    def found(subject: Rule | PeerSelector, rule: Rule, field: str, what: str, do: str) -> Finding:
        return Finding(policy, subject, f"{direction} rule {rule.id}", field, what, do)

    for rule in rules:
        if rule.protocol not in (Protocol.TCP, Protocol.UDP):
            yield found(
                rule,
                rule,
                "protocol",
                f"{rule.protocol} passes unjudged in v1alpha1, so a rule for it would "
                "promise what is not kept",
                "remove the rule",
            )
        for one, other in pairwise(rule.peers or ()):
            if one == other:
                yield found(other, rule, "", f"peer {other} is named twice", "remove one")
    by_protocol = sorted(rules, key=lambda r: r.protocol)
    for protocol, same in groupby(by_protocol, key=lambda r: r.protocol):
        widest: Rule | None = None
        for rule in same:
            if widest is not None and rule.port <= widest.last_port:
                what = "the same ports as" if rule.ports == widest.ports else "ports that overlap"
                joint = "" if rule.ports == widest.ports else " those of"
                yield found(
                    rule,
                    rule,
                    "port",
                    f"{protocol} {rule.ports} has {what}{joint} rule {widest.id} "
                    f"({protocol} {widest.ports})",
                    "write one rule for each port and list all its peers there",
                )
            if widest is None or rule.last_port > widest.last_port:
                widest = rule


def _policy_findings(policy: PortPolicy) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for direction in Direction:
        rules = policy.rules(direction) or ()
        yield from _rule_findings(policy, direction, rules)
        for rule in rules:
            if rule.id in seen:
                yield Finding(
                    policy,
                    rule,
                    f"{direction} rule {rule.id}",
                    "id",
                    f"a second rule is called {rule.id} (the first is in {seen[rule.id]})",
                    "give each rule of a policy an id of its own, or remove one",
                )
            seen.setdefault(rule.id, direction)


def findings(policies: Iterable[PortPolicy]) -> Iterator[Finding]:
    """Every problem, in the order of the policies."""
    names: dict[tuple[str, str], PortPolicy] = {}
    workloads: dict[object, PortPolicy] = {}
    for policy in policies:
        yield from _policy_findings(policy)
        name = (policy.namespace, policy.name)
        if name in names:
            yield Finding(
                policy,
                policy,
                "",
                "metadata.name",
                f"a second policy is called {policy.namespace}/{policy.name}",
                "rename or remove one",
            )
        elif policy.workload in workloads:
            yield Finding(
                policy,
                policy,
                "",
                "spec.workload",
                f"{'/'.join(policy.workload)} has a policy already, "
                f"{workloads[policy.workload].name}",
                "keep one policy for each workload",
            )
        names.setdefault(name, policy)
        workloads.setdefault(policy.workload, policy)


def lint(policies: Iterable[PortPolicy]) -> list[str]:
    """Every problem in ``policies``, one sentence each; empty when there is none.

    >>> from portforge.schema import Workload
    >>> lint([PortPolicy(
    ...     namespace="shop", name="deployment-web", workload=Workload("shop", "Deployment", "web"),
    ...     ingress=[
    ...         {"id": "a", "protocol": "TCP", "port": 80, "end_port": 90},
    ...         {"id": "b", "protocol": "TCP", "port": 85},
    ...     ],
    ... )])[0].split(";")[0]
    'shop/deployment-web: ingress rule b: TCP 85 has ports that overlap those of rule a (TCP 80-90)'
    """
    return [str(finding) for finding in findings(policies)]
