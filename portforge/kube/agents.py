"""The agents of a cluster as a whole: is every node recording; take them out of every kernel.

For ``portforge doctor --cluster`` and ``--clean-cluster``. Not for what a single policy's state
is: that is ``portforge status --cluster``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from portforge.errors import ClusterError
from portforge.kube.client import request

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = ["FRESH", "ailing", "clean_nodes", "examine"]

AGENTS = "app.kubernetes.io/part-of=portforge,app.kubernetes.io/component=agent"
"""Label selector of the agents' pods, as the chart sets it."""
FRESH = timedelta(seconds=180)
"""How old a report or its canary may be."""
_LOOK_SECONDS = 2.0
_STEP = "portforge.dev/uninstall"
_REST = "import signal; signal.pause()"
"""The image has no shell and no sleep."""

Json = dict[str, Any]


def ailing(
    pods: Iterable[Json], reports: Iterable[Json], now: datetime, fresh: timedelta = FRESH
) -> list[str]:
    """One sentence for every node that does not record, or does not say that it does.

    Parameters
    ----------
    pods: the agents' pods. reports: the NodeReports. Both as the API server gives them.

    >>> pod = {"spec": {"nodeName": "node-a"}, "status": {"phase": "Running"}}
    >>> ailing([pod], [], datetime(2026, 1, 1, tzinfo=UTC))
    ['node-a: no report']
    """
    known = {r["metadata"]["name"]: r.get("status") or {} for r in reports}
    found = []
    for node in sorted({p["spec"].get("nodeName") or "(no node yet)" for p in pods}):
        status = known.get(node)
        if not status:
            found.append(f"{node}: no report")
            continue
        for what in ("heartbeat", "canary"):
            at = status.get(what)
            if not at:
                found.append(f"{node}: no {what} yet")
            elif now - datetime.fromisoformat(at) > fresh:
                found.append(f"{node}: the last {what} is of {at}")
        if not status.get("synced", False):
            found.append(f"{node}: the agent has not read the API server's objects yet")
    return found


def examine(api: ApiClient, namespace: str, wait: float = 0) -> tuple[int, list[str]]:
    """How many nodes run an agent, and what is wrong with them. Waits until nothing is.

    Raises
    ------
    ClusterError: no agent in ``namespace``, or the API server refuses.
    """
    until = time.monotonic() + wait
    while True:
        pods = _pods(api, namespace, AGENTS)
        if not pods:
            raise ClusterError(
                "no agent runs here",
                place=f"namespace {namespace}",
                remedy="give --namespace, or install the chart",
            )
        reports = request(api, "GET", "/apis/portforge.dev/v1alpha1/nodereports")["items"]
        wrong = ailing(pods, reports, datetime.now(UTC))
        if not wrong or time.monotonic() >= until:
            return len({p["spec"].get("nodeName") for p in pods}), wrong
        time.sleep(_LOOK_SECONDS)


def cleaning_patch(at: datetime, state: str | None) -> Json:
    """What makes of the agents' DaemonSet one that cleans each node and then rests.

    The init container has the capabilities and the volumes already; only its words change.
    """
    words = ["doctor", "--clean=$(PORTFORGE_NODE)", "--wait=60"]
    loader = {"name": "loader", "args": [*words, f"--state={state}"] if state else words}
    resting = {"command": ["/usr/bin/python3", "-c", _REST], "args": None}
    probes = dict.fromkeys(("startupProbe", "livenessProbe", "readinessProbe"))
    return {
        "spec": {
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": "100%", "maxSurge": 0},
            },
            "template": {
                "metadata": {"annotations": {_STEP: f"{at:%Y-%m-%dT%H:%M:%SZ}"}},
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "initContainers": [loader],
                    "containers": [{"name": "agent", **resting, **probes}],
                },
            },
        }
    }


def clean_nodes(
    api: ApiClient,
    namespace: str,
    name: str,
    state: str | None,
    wait: float,
    say: Callable[[str], None],
) -> int:
    """Take the programs out of the kernel of every node of the DaemonSet ``name``; says how many.

    The agents end for good: the DaemonSet is to be deleted, or applied again, after it.

    Raises
    ------
    ClusterError: not every node was clean after ``wait`` seconds; names them.
    """
    place = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}"
    now = datetime.now(UTC)
    patched = request(
        api,
        "PATCH",
        place,
        headers={"Content-Type": "application/strategic-merge-patch+json"},
        body=cleaning_patch(now, state),
    )
    generation = patched["metadata"]["generation"]
    until, told = time.monotonic() + wait, -1
    while True:
        status = request(api, "GET", place)["status"]
        nodes, done = status.get("desiredNumberScheduled", 0), 0
        if status.get("observedGeneration", 0) >= generation:
            done = min(status.get("updatedNumberScheduled", 0), status.get("numberReady", 0))
        if done != told:
            say(f"{done} of {nodes} nodes are clean")
            told = done
        if done >= nodes and status.get("observedGeneration", 0) >= generation:
            return int(nodes)
        if time.monotonic() >= until:
            labels = patched["spec"]["selector"]["matchLabels"]
            pods = _pods(api, namespace, ",".join(f"{k}={v}" for k, v in labels.items()))
            left = ", ".join(sorted(p["spec"].get("nodeName", "?") for p in pods if _waits(p)))
            raise ClusterError(
                f"not clean after {wait:.0f} s: {left or 'unknown nodes'}",
                place=f"daemonset {namespace}/{name}",
                remedy="look at their pods; for nodes that are gone, helm uninstall --no-hooks",
            )
        time.sleep(_LOOK_SECONDS)


def _pods(api: ApiClient, namespace: str, selector: str) -> list[Json]:
    path = f"/api/v1/namespaces/{namespace}/pods"
    items: list[Json] = request(api, "GET", path, params={"labelSelector": selector})["items"]
    return items


def _waits(pod: Json) -> bool:
    """Whether this pod has not cleaned its node yet."""
    conditions = pod.get("status", {}).get("conditions") or []
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return not ready or _STEP not in (pod["metadata"].get("annotations") or {})
