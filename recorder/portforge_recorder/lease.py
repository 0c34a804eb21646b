"""Who aggregates: one agent at a time, by a Lease. Does not block and starts no thread.

The client's leaderelection waits in a loop of its own; here a tick takes, renews or looks on.
When a holder has not renewed for a while is measured with our own clock, never by comparing
clocks of two nodes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from portforge.errors import ClusterError
from portforge.kube.client import request

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = ["Lease"]

NAME = "portforge-aggregator"


@dataclass
class Lease:
    """The Lease ``portforge-aggregator`` in ``namespace``, as ``holder`` sees it."""

    api: ApiClient
    namespace: str
    holder: str
    seconds: int = 20

    def __post_init__(self) -> None:
        self._seen: tuple[str, str] | None = None
        self._since = 0.0

    @property
    def _path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    def tick(self) -> bool:
        """Take it, renew it, or leave it; whether we hold it now.

        Raises
        ------
        ClusterError: the API server cannot be asked.
        """
        try:
            lease = request(self.api, "GET", f"{self._path}/{NAME}")
        except ClusterError as missing:
            if missing.status != 404:
                raise
            return self._write("POST", self._path, {"metadata": {"name": NAME}})
        spec = lease.get("spec") or {}
        if spec.get("holderIdentity") not in (self.holder, "", None):
            seen = (str(spec["holderIdentity"]), str(spec.get("renewTime")))
            if seen != self._seen:
                self._seen, self._since = seen, time.monotonic()
            if time.monotonic() - self._since < int(spec.get("leaseDurationSeconds") or 0):
                return False
        return self._write("PUT", f"{self._path}/{NAME}", lease)

    def release(self) -> None:
        """Let another take it at once, where we hold it."""
        lease = request(self.api, "GET", f"{self._path}/{NAME}")
        if (lease.get("spec") or {}).get("holderIdentity") == self.holder:
            lease["spec"]["holderIdentity"] = ""
            request(self.api, "PUT", f"{self._path}/{NAME}", body=lease)

    def _write(self, method: str, path: str, lease: dict[str, Any]) -> bool:
        """Write ourselves in; False where another was faster (the resourceVersion tells)."""
        before = lease.get("spec") or {}
        ours = before.get("holderIdentity") == self.holder
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": self.seconds,
            "acquireTime": before.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (not ours),
        }
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": lease["metadata"],
            "spec": spec,
        }
        try:
            request(self.api, method, path, body=body)
        except ClusterError as refused:
            if refused.status == 409:
                return False
            raise
        return True
