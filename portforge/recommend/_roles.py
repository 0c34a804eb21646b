"""Which workloads behave alike: their roles, who differs in one, and one policy for each role.

Works on recommended policies, so that scans and all else that is never learned have no part in
it. Enforces and approves nothing.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from portforge.capture import Capture
from portforge.policy import PeerSelector, PortPolicy
from portforge.recommend._decisions import Decision
from portforge.recommend._profiles import Door, Profile, cluster, kind_of, profile_of
from portforge.recommend._recommend import recommend
from portforge.recommend._recommendation import Recommendation
from portforge.recommend._role_policies import needed, shared_policy
from portforge.schema import Direction, Workload

__all__ = ["DISTANCE", "Roles", "roles"]

DISTANCE = 0.3
"""Two that serve the same are one role when they have two fifths of all that either calls in
common, and the other way round. Two that call nothing, and have one of two served ports in common
(each its own, and the one for metrics), are at 1/3: they are not."""

_SHOWN = 3
_VERB = {Direction.INGRESS: "serves", Direction.EGRESS: "calls"}
_MEMBERS = [
    "namespace", "workload_kind", "workload", "role", "size", "distance", "differs", "over_grant",
    "note",
]  # fmt: skip


@dataclass(frozen=True)
class Roles:
    """The roles of a cluster.

    Attributes
    ----------
    members: one row for each workload: ``role``; ``size``, how many are in it; ``distance``, the
        mean one to the others; ``differs``, what it does that no other does, or does not and all
        others do; ``over_grant``, port-peers that the policy of its role admits and its own does
        not; ``note``, what of the role's policy it does not get, and why.
    profile: one row for each workload and door of its role: ``door``, as in ``serves TCP 80``, and
        ``state``: ``shared`` with another member, ``alone``, or ``missing`` where all others have
        it.
    distances: of each workload from each, from 0 to 1; see ``portforge.recommend._profiles``.
    threshold: no two members of a role are further apart.
    policies: one for each workload, in Audit: what any member of its role needs.
    """

    members: pd.DataFrame
    profile: pd.DataFrame = field(repr=False)
    distances: pd.DataFrame = field(repr=False)
    threshold: float
    policies: list[PortPolicy] = field(repr=False)

    def __str__(self) -> str:
        lines = []
        for name, own in self.members.groupby("role", sort=False):
            count = len(own)
            lines.append(f"{name}: {count} workload" + ("s" if count > 1 else ""))
            for one in own.to_dict("records"):
                who = f"{one['namespace']}/{one['workload_kind']}/{one['workload']}"
                said = [one["differs"]] if one["differs"] else []
                if one["over_grant"]:
                    said.append(f"the role's policy admits {one['over_grant']:,} port-peers more")
                said += [one["note"]] if one["note"] else []
                lines.append(f"  {'!' if one['differs'] else ' '} {who}" + "".join(
                    f"\n      {text}" for text in said
                ))  # fmt: skip
        lines.append(f"No two members of a role are further apart than {self.threshold:.3g}.")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return str(self.members.to_html(index=False))

    def to_json(self) -> str:
        """For programs: the members, and the threshold."""
        rows = self.members.to_dict("records")
        content = {"schema": 1, "threshold": self.threshold, "members": rows}
        return json.dumps(content, indent=2, ensure_ascii=False)


def roles(
    source: Capture | Recommendation,
    *,
    distance: float = DISTANCE,
    decisions: Sequence[Decision] = (),
) -> Roles:
    """Group the workloads that behave alike.

    Parameters
    ----------
    source: a capture, from which policies are recommended first; or a recommendation.
    distance: the largest distance between two members of a role, from 0 (all the same) to 1.
    decisions: the analyst's. Those that a recommendation was made with hold in any case.

    Raises
    ------
    CaptureError: as :func:`portforge.recommend.recommend`.
    """
    if not 0 <= distance <= 1:
        raise ValueError(f"a distance is from 0 to 1, not {distance}")
    made = recommend(source, decisions=decisions) if isinstance(source, Capture) else source
    known = [*dict.fromkeys([*decisions, *_decisions(made.report)])]
    policies = {p.workload: p for p in sorted(made.policies, key=lambda policy: policy.workload)}
    profiles = {workload: profile_of(policy) for workload, policy in policies.items()}
    number, apart = cluster(profiles, distance)
    together: defaultdict[int, list[Workload]] = defaultdict(list)
    for workload, role in number.items():
        together[role].append(workload)
    names = _names(together, profiles)
    names_of = {workload: names[role] for workload, role in number.items()}
    frame = pd.DataFrame(apart, index=["/".join(w) for w in profiles])
    frame.columns = frame.index
    rows, doors, shared = [], [], {}
    inside, workloads = _unnamed(made), _workloads(made)
    place = {workload: n for n, workload in enumerate(profiles)}
    for role, members in together.items():
        wanted = needed(policies[one] for one in members)
        for one in members:
            others = [other for other in members if other != one]
            doors += _doors(one, others, profiles, names[role])
            given = shared_policy(policies[one], wanted, known, inside, workloads)
            shared[one] = given.policy
            away = [float(apart[place[one], place[other]]) for other in others]
            rows.append([
                *one, names[role], len(members), sum(away) / len(away) if away else 0.0,
                _differs(one, others, profiles, names_of), given.over_grant, given.note,
            ])  # fmt: skip
    columns = ["namespace", "workload_kind", "workload", "role", "door", "state"]
    return Roles(
        pd.DataFrame(rows, columns=_MEMBERS),
        pd.DataFrame(doors, columns=columns),
        frame,
        distance,
        [shared[workload] for workload in policies],
    )


def _unnamed(made: Recommendation) -> set[str]:
    """The addresses of the cluster that the recommendation found no workload for."""
    unknown = made.findings.loc[made.findings["kind"] == "unknown_peer", "peer"]
    texts = [*unknown.dropna(), *made.evidence["peers"].dropna()]
    return {ip for text in texts for ip in re.findall(r"\b(?:unknown|service) ([0-9a-f.:]+)", text)}


def _workloads(made: Recommendation) -> dict[str, set[Workload]]:
    """By namespace, the workloads that have a policy or are named in one."""
    found: defaultdict[str, set[Workload]] = defaultdict(set)
    for policy in made.policies:
        rules = (rule for direction in Direction for rule in policy.rules(direction) or ())
        peers = (peer.workload for rule in rules for peer in rule.peers or ())
        for workload in (policy.workload, *peers):
            if workload is not None:
                found[workload.namespace].add(workload)
    return found


def _decisions(report: Mapping[str, Any]) -> list[Decision]:
    """The decisions that a recommendation says it was made with."""
    found = []
    for one in report.get("decisions", ()):
        fields = {k: v for k, v in one.items() if k not in ("workload_kind", "edges") and v}
        if one["workload"]:
            del fields["namespace"]
            owner = (one["namespace"], one["workload_kind"], one["workload"])
            fields["workload"] = "/".join(owner)
        found.append(Decision.model_validate(fields))
    return found


def _names(
    together: Mapping[int, Sequence[Workload]], profiles: Mapping[Workload, Profile]
) -> dict[int, str]:
    """What more than half of the members do: serve, else call; both where that tells apart."""
    short: dict[int, str] = {}
    whole: dict[int, str] = {}
    for role, members in together.items():
        texts = []
        for direction in Direction:
            doors = _common([profiles[w] for w in members], direction)
            texts.append(f"{_VERB[direction]} {_some(doors)}" if doors else "")
        job = sorted({w.kind for w in members} & {"CronJob", "Job"})
        said = [text for text in texts if text] or ["needs nothing"]
        if job:
            said.insert(0, " and ".join(job))
        whole[role] = ", ".join(said)
        short[role] = said[0] if not job else ", ".join(said[:2])
    names: dict[int, str] = {}
    for role in together:
        name = short[role]
        if list(short.values()).count(name) > 1:
            name = whole[role]
        same = [other for other in names if names[other].partition(" (")[0] == name]
        names[role] = f"{name} ({len(same) + 1})" if same else name
    return names


def _common(profiles: Sequence[Profile], direction: Direction) -> list[Door]:
    every = {door for profile in profiles for door in profile if door.direction == direction}
    count = {door: sum(door in profile for profile in profiles) for door in every}
    return sorted((d for d in every if 2 * count[d] > len(profiles)), key=_order)


def _order(door: Door) -> tuple[int, str, int]:
    return list(Direction).index(door.direction), door.protocol, int(door.ports.split("-")[0])


def _some(doors: Sequence[Door]) -> str:
    more = len(doors) - _SHOWN
    text = ", ".join(map(str, doors[:_SHOWN]))
    return f"{text} and {more} more" if more > 0 else text


def _doors(
    one: Workload, others: Sequence[Workload], profiles: Mapping[Workload, Profile], role: str
) -> list[list[str]]:
    rows = []
    for door in sorted({d for w in (one, *others) for d in profiles[w]}, key=_order):
        having = sum(door in profiles[other] for other in others)
        if door in profiles[one]:
            state = "shared" if having or not others else "alone"
        elif len(others) >= 2 and having == len(others):
            state = "missing"
        else:
            continue
        rows.append([*one, role, f"{_VERB[door.direction]} {door}", state])
    return rows


def _differs(
    one: Workload,
    others: Sequence[Workload],
    profiles: Mapping[Workload, Profile],
    names: Mapping[Workload, str],
) -> str:
    """What one member does and no other, and what all others do and it does not."""
    if not others:
        return ""
    own = profiles[one]
    said = []
    for door in sorted(own, key=_order):
        having = [profiles[other][door] for other in others if door in profiles[other]]
        verb = _VERB[door.direction]
        if not having:
            said.append(f"alone {verb} {door} ({_listed(_each(own[door]))})")
            continue
        kinds = {_kind(peer, names) for peers in having for peer in _each(peers)}
        new = [peer for peer in _each(own[door]) if _kind(peer, names) not in kinds]
        if new:
            to = "to" if door.direction == Direction.INGRESS else "at"
            said.append(f"alone {verb} {door} {to} {_listed(new)}")
    if len(others) >= 2:
        common = set.intersection(*(set(profiles[other]) for other in others)) - set(own)
        said += [f"alone {_VERB[door.direction]} no {door}" for door in sorted(common, key=_order)]
    return "; ".join(said)


def _each(peers: frozenset[PeerSelector] | None) -> Sequence[PeerSelector | None]:
    return [None] if peers is None else [*sorted(peers, key=lambda peer: peer.sort_key)]


def _kind(peer: PeerSelector | None, names: Mapping[Workload, str]) -> str:
    if peer is not None and peer.workload is not None:
        return names.get(peer.workload, "workload")
    return kind_of(peer, {})


def _listed(peers: Sequence[PeerSelector | None]) -> str:
    text = ", ".join("any peer" if peer is None else str(peer) for peer in peers[:_SHOWN])
    return f"{text} and {len(peers) - _SHOWN} more" if len(peers) > _SHOWN else text
