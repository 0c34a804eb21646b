"""A node's own word, its NodeReport; and, while it holds the Lease, every policy's status.

Writes to the API server and to nothing else; enforcement does not wait for it. What it says comes
from :mod:`portforge_recorder.policies`; what the status says is ``aggregate``'s.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from portforge.errors import ClusterError
from portforge.kube.client import request
from portforge.schema import Workload
from portforge_recorder.aggregate import aggregate
from portforge_recorder.in_force import Decision
from portforge_recorder.lease import Lease
from portforge_recorder.policies import GROUP, Counts

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = ["Aggregator", "Reporter", "policy_entries"]

_MERGE = {"Content-Type": "application/merge-patch+json"}
_HEARTBEAT_SECONDS = 15.0
_LOOK_SECONDS = 1.0
_AGGREGATE_SECONDS = 5.0
_MOST_ENTRIES = 5000
_log = logging.getLogger(__name__)

Object = dict[str, Any]


def stamp(at: datetime) -> str:
    """A moment as the API server writes it.

    >>> stamp(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05Z'
    """
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def policy_entries(
    decision: Decision, counts: Counts, pods: Mapping[Workload, int], unapplied: str = ""
) -> list[Object]:
    """What the report says of each policy.

    Parameters
    ----------
    pods: pods of this node by workload.
    unapplied: why the kernel does not agree with the decision, where it does not.
    """
    entries = []
    for said in decision.states[:_MOST_ENTRIES]:
        # What was counted for a workload belongs to the policy that speaks for it.
        speaks = said.digest and said.workload
        entry: Object = {
            "namespace": said.namespace,
            "name": said.name,
            "generation": said.generation,
            "mode": str(said.mode),
            "pods": pods.get(said.workload, 0) if said.workload else 0,
            "denied": counts.denied.get(speaks, 0) if speaks else 0,
            "audited": counts.audited.get(speaks, 0) if speaks else 0,
            "state": str(said.state),
            "problem": "; ".join(t for t in (said.problem, unapplied) if t)[:4096],
        }
        if said.digest:
            entry["digest"] = said.digest
        entries.append(entry)
    return entries


class _Loop(ABC):
    """A thread that calls ``turn`` until it is stopped, and lives through every refusal."""

    name = "loop"
    seconds = 1.0

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._complained = ""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it a little."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    @abstractmethod
    def turn(self) -> None:
        """One turn."""

    def _run(self) -> None:
        while not self._stop.wait(self.seconds):
            try:
                self.turn()
                self._complained = ""
            except ClusterError as problem:
                if str(problem) != self._complained:
                    _log.warning("%s", problem)
                self._complained = str(problem)
                self._stop.wait(2.0)
            except Exception:
                _log.exception("%s failed; it goes on", self.name)
                self._stop.wait(10.0)


class Reporter(_Loop):
    """Writes this node's NodeReport: soon after a change, and as a heartbeat.

    Parameters
    ----------
    status: what to say now, without the heartbeat.
    """

    name = "report"
    seconds = _LOOK_SECONDS

    def __init__(self, api: ApiClient, node: str, status: Callable[[], Object]) -> None:
        super().__init__()
        self._api, self._node, self._status = api, node, status
        self._said: object = None
        self._at = float("-inf")

    def turn(self) -> None:
        """Write, where there is something to say."""
        status = self._status()
        telling = {k: v for k, v in status.items() if k not in ("losses", "canary")}
        telling["policies"] = [
            {k: v for k, v in p.items() if k not in ("denied", "audited")}
            for p in status.get("policies", ())
        ]
        if telling == self._said and time.monotonic() - self._at < _HEARTBEAT_SECONDS:
            return
        self.write(status)
        self._said, self._at = telling, time.monotonic()

    def write(self, status: Object) -> None:
        """Write the report; make the object where there is none."""
        body = {"status": {**status, "heartbeat": stamp(datetime.now(UTC))}}
        path = f"{GROUP}/nodereports/{self._node}/status"
        try:
            request(self._api, "PATCH", path, headers=_MERGE, body=body)
        except ClusterError as missing:
            if missing.status != 404:
                raise
            report = {
                "apiVersion": "portforge.dev/v1alpha1",
                "kind": "NodeReport",
                "metadata": {"name": self._node, "ownerReferences": self._owner()},
            }
            try:
                request(self._api, "POST", f"{GROUP}/nodereports", body=report)
            except ClusterError as there:
                if there.status != 409:  # made meanwhile
                    raise
            request(self._api, "PATCH", path, headers=_MERGE, body=body)

    def _owner(self) -> list[Object]:
        """The Node object, so that the report of a node that is removed goes with it."""
        try:
            node = request(self._api, "GET", f"/api/v1/nodes/{self._node}")
        except ClusterError as problem:
            _log.info("the report has no owner: %s", problem)
            return []
        uid = node["metadata"]["uid"]
        return [{"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": uid}]


class Aggregator(_Loop):
    """Writes PortPolicy.status from all reports, while this agent holds the Lease."""

    name = "aggregate"
    seconds = _AGGREGATE_SECONDS

    def __init__(self, api: ApiClient, lease: Lease) -> None:
        super().__init__()
        self._api, self._lease = api, lease
        self.leads = False

    def turn(self) -> None:
        """Take or renew the Lease; with it, write what changed."""
        self.leads = False
        self.leads = self._lease.tick()
        if not self.leads:
            return
        policies, reports = self._list("portpolicies"), self._list("nodereports")
        statuses = aggregate(policies, reports, datetime.now(UTC))
        for policy in policies:
            meta = policy["metadata"]
            status = statuses[f"{meta['namespace']}/{meta['name']}"]
            if policy.get("status") == status or self._stop.is_set():
                continue
            path = f"{GROUP}/namespaces/{meta['namespace']}/portpolicies/{meta['name']}/status"
            try:
                request(self._api, "PATCH", path, headers=_MERGE, body={"status": status})
            except ClusterError as gone:
                if gone.status != 404:
                    raise

    def stop(self) -> None:
        """End, and let another take the Lease at once."""
        super().stop()
        if self.leads:
            with suppress(ClusterError):
                self._lease.release()

    def _list(self, plural: str) -> list[Object]:
        items: list[Object] = request(self._api, "GET", f"{GROUP}/{plural}")["items"]
        return items
