"""The way from a capture to a recommendation: asks the capture, calls the pure steps in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import pandas as pd
from pydantic import ValidationError

from portforge.capture import Capture, Window
from portforge.capture._times import iso
from portforge.errors import CaptureError
from portforge.policy import Established, Mode, PortPolicy
from portforge.recommend._admitted import say_admitted
from portforge.recommend._beacons import find_beacons, looked_at
from portforge.recommend._decide import Decided, decide, decide_rules
from portforge.recommend._decisions import Decision, Verb
from portforge.recommend._dynamic import split_dynamic
from portforge.recommend._edges import Edge, edges_of
from portforge.recommend._evidence import evidence_frame, evidence_row
from portforge.recommend._findings import KINDS, Left, findings_frame
from portforge.recommend._lives import life_of, unrestarted
from portforge.recommend._marks import Around, around_of
from portforge.recommend._options import Options
from portforge.recommend._outliers import find_outliers
from portforge.recommend._phases import Lives, lives_of
from portforge.recommend._ranges import propose_ranges
from portforge.recommend._recommendation import Recommendation
from portforge.recommend._report import finding_counts, losses_of, workload_report
from portforge.recommend._rules import Learned, learn_rules, ordered, withheld
from portforge.recommend._seen import Seen
from portforge.recommend._sort import sort_edges
from portforge.recommend._status import status_of
from portforge.schema import Direction, PeerKind, Verdict, Workload

__all__ = ["recommend"]

REPORT_SCHEMA = 1
MADE_BY = "portforge recommend"


def recommend(
    capture: Capture,
    *,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    namespaces: Sequence[str] | None = None,
    workloads: Sequence[str] | None = None,
    options: Options | None = None,
    decisions: Sequence[Decision] = (),
    progress: Callable[[str], None] = lambda step: None,  # noqa: ARG005
) -> Recommendation:
    """One policy in Audit for each workload, from what it did in the window.

    Parameters
    ----------
    since, until: as in :meth:`portforge.capture.Capture.flows`.
    namespaces, workloads: names to recommend for; all when None. The other workloads' records
        are still used as witnesses.
    options: thresholds.
    decisions: what the analyst said must be learned, and what never may: see
        :func:`portforge.recommend.read_decisions`.
    progress: called with the name of each step.

    Raises
    ------
    CaptureError: nothing in the window, no such workload, or more than one cluster.
    """
    options = options or Options()
    if len(capture.clusters) > 1:
        raise CaptureError(
            f"the capture holds {len(capture.clusters)} clusters: {', '.join(capture.clusters)}",
            place=str(capture.files.root),
            remedy="give a folder with one v1/cluster=<name>/ only",
        )
    window = capture.window(since, until)
    progress("summing up connections")
    edges = edges_of(capture.aggregated(since, until))
    pods, losses = capture.pods(since, until), capture.losses(since, until)
    progress("sorting out what may be learned")
    beacons = find_beacons(capture, edges, since, until)
    decided = decide(*sort_edges(edges, options, beacons), decisions)
    learned, left = decided.learned, decided.left
    left += [
        Left(e, kind, KINDS[kind], learned=True) for e in learned if (kind := _worth_saying(e))
    ]
    left += [
        Left(e, "beacon", beacons[e].reason, True, decided.edges.get(e))
        for e in learned
        if e in beacons and not beacons[e].strong
    ]
    odd = find_outliers([e for e in learned if e not in decided.edges], pods, window, options)
    left += [Left(edge, "outlier", reason, learned=True) for edge, reason in odd.items()]
    subjects = _subjects(edges, namespaces, workloads, capture)
    lives = lives_of(pods)
    quiet = unrestarted(pods, window)
    around = around_of(edges, {*pods["node"]}, decisions)
    own = pods.groupby(["namespace", "workload_kind", "workload"]).indices
    progress(f"writing rules for {len(subjects)} workloads")
    made = [
        _one(
            workload,
            edges,
            learned,
            left,
            decided,
            pods.iloc[own.get(tuple(workload), [])],
            quiet,
            losses,
            window,
            options,
            around,
            lives,
        )
        for workload, edges, learned, left in _by_workload(subjects, edges, learned, left)
    ]
    everything = [one for each in made for one in each.left]
    everything += [one for one in left if one.edge.workload is None or one.kind == "host_network"]
    findings = findings_frame(everything, window)
    report = {
        "schema": REPORT_SCHEMA,
        "made_by": MADE_BY,
        "cluster": capture.clusters[0],
        "window": {
            "start": iso(window.start),
            "end": iso(window.end),
            "hours": round(window.hours, 4),
        },
        "workloads": [each.report for each in made],
        "findings": finding_counts(findings),
        "rhythms": looked_at(edges),
        "decisions": decided.report(),
        "losses": losses_of(losses),
        "rows": {
            "read": sum(edge.rows for edge in edges),
            "learned": sum(edge.rows for edge in learned),
            "unattributed": sum(edge.rows for edge in edges if edge.workload is None),
        },
    }
    rows = [row for each in made for row in each.evidence]
    return Recommendation([each.policy for each in made], evidence_frame(rows), findings, report)


class _Made:
    """What was made of one workload."""

    def __init__(
        self,
        policy: PortPolicy,
        evidence: list[dict[str, Any]],
        left: list[Left],
        report: dict[str, Any],
    ) -> None:
        self.policy, self.evidence, self.left, self.report = policy, evidence, left, report


def _one(
    workload: Workload,
    edges: list[Edge],
    learned: list[Edge],
    left: list[Left],
    decided: Decided,
    pods: pd.DataFrame,
    quiet: list[Workload],
    losses: pd.DataFrame,
    window: Window,
    options: Options,
    around: Around,
    lives: Lives,
) -> _Made:
    own_decisions = [
        one
        for one in decided.matched
        if one.workload == workload and one.decision != Verb.SENSITIVE
    ]
    as_decided = [edge for edge in learned if edge in decided.edges] if own_decisions else []
    seen_so = [edge for edge in learned if edge not in decided.edges] if as_decided else learned
    stays, changes = split_dynamic(seen_so, options)
    stays += as_decided
    never = [one.door for one in own_decisions if one.decision == Verb.NEVER and one.door]
    ranges, changes = propose_ranges(changes, stays, never, options, around)
    left = left + changes
    listening = frozenset(
        (str(e.protocol), e.port) for e in edges if e.verdict == Verdict.LISTENING
    )
    rules = ordered([*learn_rules(stays, listening, options, around), *ranges])
    if own_decisions:
        rules = decide_rules(rules, decided, own_decisions)
    left = withheld(left, rules, around)
    life = life_of(workload, edges, rules, pods, losses)
    others = ["/".join(w) for w in quiet if w.namespace == workload.namespace and w != workload]
    seen = Seen(rules, left, life, frozenset(as_decided), others)
    status = status_of(seen, window, options)
    pods_total = pods["pod"].nunique()
    policy = _policy(workload, rules)
    return _Made(
        policy,
        [
            evidence_row(workload, rule, pods_total, window, options, lives, around)
            for rule in rules
        ],
        say_admitted(left, policy),
        workload_report(workload, rules, status, pods_total),
    )


def _policy(workload: Workload, rules: list[Learned]) -> PortPolicy:
    try:
        return PortPolicy(
            namespace=workload.namespace,
            name=workload.slug,
            workload=workload,
            mode=Mode.AUDIT,
            established=Established.REJUDGE,
            ingress=tuple(r.rule for r in rules if r.direction == Direction.INGRESS),
            egress=tuple(r.rule for r in rules if r.direction == Direction.EGRESS),
        )
    except ValidationError as wrong:
        raise CaptureError(
            f"no policy can be written for it: {wrong.errors()[0]['msg']}",
            place="/".join(workload),
            remedy="its name is not one Kubernetes gives: check the recorder's inventory",
        ) from None


def _worth_saying(edge: Edge) -> str | None:
    """Learned all the same, but the analyst must know."""
    if edge.peer.ip is None:
        return "lost_peer"
    return "unknown_peer" if edge.peer.kind == PeerKind.UNKNOWN else None


def _subjects(
    edges: list[Edge],
    namespaces: Sequence[str] | None,
    workloads: Sequence[str] | None,
    capture: Capture,
) -> list[Workload]:
    known = {e.workload for e in edges if e.workload is not None and e.workload.kind != "Node"}
    chosen = sorted(
        w
        for w in known
        if (not namespaces or w.namespace in namespaces) and (not workloads or w.name in workloads)
    )
    if not chosen:
        seen = ", ".join(sorted({f"{w.namespace}/{w.name}" for w in known})[:10]) or "none"
        raise CaptureError(
            "no such workload in the window",
            place=str(capture.files.root),
            remedy=f"the capture knows: {seen}",
        )
    return chosen


def _by_workload(
    subjects: list[Workload], edges: list[Edge], learned: list[Edge], left: list[Left]
) -> list[tuple[Workload, list[Edge], list[Edge], list[Left]]]:
    all_of: defaultdict[Workload | None, list[Edge]] = defaultdict(list)
    learned_of: defaultdict[Workload | None, list[Edge]] = defaultdict(list)
    left_of: defaultdict[Workload | None, list[Left]] = defaultdict(list)
    for edge in edges:
        all_of[edge.workload].append(edge)
    for edge in learned:
        learned_of[edge.workload].append(edge)
    for one in left:
        left_of[one.edge.workload].append(one)
    return [(w, all_of[w], learned_of[w], left_of[w]) for w in subjects]
