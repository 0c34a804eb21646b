"""Bring the cluster's capture to this machine, through the API server's pod proxy.

It needs two rights in the release's namespace: to reach the pods' proxy and to ask for a token
of the ServiceAccount portforge-reader. Serving the files is the agent's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from portforge.errors import ClusterError, WriteError
from portforge.kube._refused import RefusedError, ask, open_stream
from portforge.kube.reports import moment

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = ["Agent", "Listed", "Pull", "agents", "listed", "missing"]

PORT = 9464
ACCOUNT = "portforge-reader"
_SELECTOR = "app.kubernetes.io/name=portforge,app.kubernetes.io/component=agent"
_PATH = re.compile(r"v1/cluster=[^/]+/date=(?P<date>\d{4}-\d\d-\d\d)/[^/.][^/]*\.parquet")
_PIECE = 1 << 18
_TOKEN_SECONDS = 600


@dataclass(frozen=True)
class Agent:
    """One agent's pod. ``problem`` says why it cannot be asked; empty where it can."""

    node: str
    pod: str
    problem: str = ""


@dataclass(frozen=True)
class Listed:
    """One file of an agent's capture: its path in the capture, size in bytes, last change."""

    path: str
    size: int
    modified: datetime | None


def _agent(pod: dict[str, Any]) -> Agent:
    status = pod.get("status") or {}
    node = (pod.get("spec") or {}).get("nodeName") or "no node yet"
    ready = {c["type"]: c["status"] for c in status.get("conditions") or ()}.get("Ready")
    name = str(pod["metadata"]["name"])
    if status.get("phase") != "Running":
        return Agent(node, name, f"its agent is {status.get('phase', 'not running')}")
    # An agent that is not ready, say because it cannot reach the API server, may well answer.
    return Agent(node, name, "" if ready == "True" else "its agent is not ready")


def agents(api: ApiClient, namespace: str) -> list[Agent]:
    """Every agent of the release in ``namespace``, sorted by node.

    Raises
    ------
    ClusterError: there is none, or they may not be listed.
    """
    answer = ask(
        api,
        "GET",
        f"/api/v1/namespaces/{quote(namespace, safe='')}/pods",
        place=f"namespace {namespace}",
        params={"labelSelector": _SELECTOR},
    )
    found = sorted(map(_agent, answer["items"]), key=lambda agent: (agent.node, agent.pod))
    if not found:
        raise ClusterError(
            "no agent runs here",
            place=f"namespace {namespace}",
            remedy="give -n with the namespace of the Helm release",
        )
    return found


def listed(answer: dict[str, Any], place: str) -> list[Listed]:
    """The files in an agent's answer. A path that leads out of a capture is refused, not mended.

    >>> file = {"path": "v1/cluster=c/date=2026-01-01/n-1-0.parquet", "size": 4}
    >>> listed({"files": [file]}, "node-a")[0].size
    4
    """
    found = []
    for entry in answer.get("files") or ():
        path = str(entry.get("path"))
        if not _PATH.fullmatch(path) or "\\" in path or "\0" in path:
            raise ClusterError(
                f"the agent names a file that no capture has: {path!r}",
                place=place,
                remedy="look at that agent; nothing of its answer was written",
            )
        found.append(Listed(path, int(entry["size"]), moment(entry.get("modified"))))
    return sorted(found, key=lambda file: file.path)


def missing(
    files: Iterable[Listed], folder: Path, since: datetime | None, until: datetime | None
) -> list[Listed]:
    """Those that ``folder`` does not have in full and that may hold rows from since to until.

    What ``portforge compact`` has merged there, it has.
    """
    merged: dict[Path, frozenset[str]] = {}
    found = []
    for file in files:
        place = folder / file.path
        if _within(file, since, until) and _size(place) != file.size:
            if place.parent not in merged:
                merged[place.parent] = _merged(place.parent)
            if place.name not in merged[place.parent]:
                found.append(file)
    return found


def _merged(folder: Path) -> frozenset[str]:
    from portforge.capture._merged import merged_in

    held = merged_in(folder.glob("*.parquet")).values()
    return frozenset(name for names in held for name in names)


def _within(file: Listed, since: datetime | None, until: datetime | None) -> bool:
    found = _PATH.fullmatch(file.path)
    day = date.fromisoformat(found["date"]) if found else None
    # A file was written after its last row; the rows of a folder are not older than its date.
    late = since is None or file.modified is None or file.modified >= since
    early = until is None or day is None or day <= until.astimezone(UTC).date()
    return late and early


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


@dataclass
class Pull:
    """One pull from the release in ``namespace``: holds the token, asks agents, writes files."""

    api: ApiClient
    namespace: str
    _token: str = field(default="", repr=False)
    _asked_at: float = 0.0

    def _headers(self) -> dict[str, str]:
        if not self._token or time.monotonic() - self._asked_at > _TOKEN_SECONDS / 2:
            place = f"ServiceAccount {self.namespace}/{ACCOUNT}"
            base = f"/api/v1/namespaces/{quote(self.namespace, safe='')}/serviceaccounts"
            answer = ask(
                self.api,
                "POST",
                f"{base}/{ACCOUNT}/token",
                place=place,
                body={
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenRequest",
                    "spec": {"audiences": ["portforge"], "expirationSeconds": _TOKEN_SECONDS},
                },
            )
            self._token, self._asked_at = str(answer["status"]["token"]), time.monotonic()
        return {"X-Portforge-Token": self._token}

    def _path(self, agent: Agent, file: str) -> str:
        pod = f"{quote(agent.pod, safe='')}:{PORT}"
        inside = quote(file, safe="/=")
        return (
            f"/api/v1/namespaces/{quote(self.namespace, safe='')}/pods/{pod}/proxy/capture/{inside}"
        )

    def files(self, agent: Agent) -> list[Listed]:
        """What the agent has. Raises ClusterError where it does not answer."""
        place = f"node {agent.node}"
        answer = ask(self.api, "GET", self._path(agent, ""), place=place, headers=self._headers())
        return listed(answer, place)

    def fetch(self, agent: Agent, file: Listed, folder: Path, told: Callable[[int], None]) -> None:
        """Write one file, whole or not at all; ``told`` hears of every piece, in bytes.

        Raises
        ------
        ClusterError: the agent stopped answering, or sent another size than it said.
        WriteError: the disk does not take it.
        """
        target = folder / PurePosixPath(file.path)
        unfinished = target.with_name(f".{target.name}.part")
        response = open_stream(
            self.api,
            self._path(agent, file.path),
            place=f"node {agent.node}: {file.path}",
            headers=self._headers(),
        )
        try:
            self._write(response, unfinished, told)
            if (got := _size(unfinished)) != file.size:
                raise ClusterError(
                    f"{got} bytes came of {file.size}",
                    place=f"node {agent.node}: {file.path}",
                    remedy="pull again; what came whole is kept",
                )
            unfinished.replace(target)
        except OSError as wrong:
            raise WriteError(
                f"cannot be written ({wrong.strerror or wrong})",
                place=str(target),
                remedy="make room, or give another folder with -o",
            ) from wrong
        finally:
            response.release_conn()
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def _write(self, response: Any, unfinished: Path, told: Callable[[int], None]) -> None:
        from urllib3.exceptions import HTTPError

        unfinished.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as out:
            try:
                for piece in response.stream(_PIECE):
                    out.write(piece)
                    told(len(piece))
            except HTTPError as wrong:
                raise ClusterError(
                    f"the connection broke ({wrong})",
                    place=str(unfinished),
                    remedy="pull again; what came whole is kept",
                ) from wrong

    def refused(self, error: ClusterError) -> bool:
        """Whether the API server itself said no, which the next node would not change."""
        return isinstance(error, RefusedError) and (
            error.is_about_rights or error.by_api_server(401) or ACCOUNT in error.place
        )


def gone(error: ClusterError) -> bool:
    """Whether the file vanished between the listing and the fetch: an agent removes old files."""
    return isinstance(error, RefusedError) and error.status == 404
