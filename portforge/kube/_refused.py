"""Ask the API server; its refusals become sentences for people. ``client`` does the asking."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from portforge.errors import ClusterError
from portforge.kube.client import content, send

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from urllib3 import BaseHTTPResponse

__all__ = ["GROUP", "RefusedError", "ask", "open_stream"]

GROUP = "/apis/portforge.dev/v1alpha1"
APPLY = "application/apply-patch+yaml"

_INSTALL = "install portforge in the cluster: helm install portforge deploy/helm/portforge"
_RIGHT = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)"'
    r' in API group "(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]*)")?'
)
_ADMISSION = re.compile(
    r"ValidatingAdmissionPolicy '[^']+' with binding '[^']+' denied request: (?P<said>.*)", re.S
)
_STALE = "has been modified"
_MANAGER = re.compile(r'conflict with "(?P<manager>[^"]+)"')


class RefusedError(ClusterError):
    """The API server's no. ``answer`` is the Status object that it sent."""

    def __init__(self, code: int, answer: Mapping[str, Any], place: str) -> None:
        self.answer = answer
        problem, remedy = _told(code, answer)
        super().__init__(problem, place=place, remedy=remedy, status=code)

    def explain(self, remedy: str) -> None:
        """Say what to do, where the refusal itself does not."""
        if remedy and not self.remedy:
            ClusterError.__init__(
                self, self.problem, place=self.place, remedy=remedy, status=self.status
            )

    @property
    def is_about_rights(self) -> bool:
        """Whether whoever asks lacks a right."""
        return _RIGHT.search(str(self.answer.get("message"))) is not None

    def by_api_server(self, code: int) -> bool:
        """Whether it was the API server that said ``code``, not a pod behind its proxy."""
        return self.status == code and self.answer.get("kind") == "Status"

    @property
    def by_admission(self) -> bool:
        """Whether an admission policy said no: the rights were there, the object was not fit."""
        return _ADMISSION.search(str(self.answer.get("message"))) is not None

    @property
    def stale(self) -> bool:
        """The object is no longer the version that was to be changed."""
        return self.status == 409 and _STALE in str(self.answer.get("message"))

    @property
    def managers(self) -> tuple[str, ...]:
        """The field managers that own what was to be changed; empty where that is not why."""
        return tuple(sorted(_owners(self.answer)))


def _owners(answer: Mapping[str, Any]) -> dict[str, list[str]]:
    owners: dict[str, list[str]] = {}
    for cause in (answer.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "FieldManagerConflict":
            found = _MANAGER.search(str(cause.get("message")))
            manager = found["manager"] if found else "another manager"
            owners.setdefault(manager, []).append(str(cause.get("field", "")).lstrip("."))
    return owners


def _told(code: int, answer: Mapping[str, Any]) -> tuple[str, str]:
    message = str(answer.get("message") or answer.get("reason") or f"HTTP status {code}").strip()
    if owners := _owners(answer):
        who = "; ".join(f"{m} owns {', '.join(fields)}" for m, fields in sorted(owners.items()))
        return f"another field manager decides here: {who}", (
            "change it there, or take it over with --force-conflicts"
        )
    if said := _ADMISSION.search(message):
        return f"the cluster refuses it: {said['said'].strip().rstrip('.')}", ""
    if right := _RIGHT.search(message):
        what = right["resource"] + (f".{right['group']}" if right["group"] else "")
        where = f" in namespace {right['namespace']}" if right["namespace"] else ""
        return f"{right['user']} may not {right['verb']} {what}{where}", (
            "ask for that right; the chart's roles are portforge-viewer, -analyst, -approver "
            "and -responder"
        )
    if code in (401, 403) and answer.get("kind") != "Status":  # passed on by the pod proxy
        return f"the agent refuses the token ({message.rstrip('.')})", "look at its log"
    if code == 401:
        return "the API server does not accept these credentials", "log in to the cluster again"
    if code == 404 and not (answer.get("details") or {}).get("name"):
        return "the cluster does not know this kind of object", _INSTALL
    if code == 409 and _STALE in message:
        return "somebody else changed it just now", "look at it and try again"
    return message.rstrip("."), "check the name and the namespace" if code == 404 else ""


def ask(
    api: ApiClient,
    method: str,
    path: str,
    *,
    place: str = "",
    params: Mapping[str, str] | None = None,
    body: object = None,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What the API server answered; ``place`` says to whom a refusal belongs.

    Raises
    ------
    RefusedError: it said no.
    ClusterError: it could not be reached.
    """
    typed = {"Content-Type": content_type} if body is not None else {}
    response = send(
        api, method, path, params=params, headers={**typed, **(headers or {})}, body=body
    )
    data = content(api, response)
    _check(response.status, data, place)
    try:
        answer: dict[str, Any] = json.loads(data)
    except ValueError as wrong:
        raise ClusterError(
            "the answer is not JSON",
            place=place or path,
            remedy="check that the address is that of an API server",
        ) from wrong
    return answer


def open_stream(
    api: ApiClient, path: str, *, place: str, headers: Mapping[str, str]
) -> BaseHTTPResponse:
    """An answer to be read piece by piece; the caller releases it. Raises as :func:`ask`."""
    response = send(api, "GET", path, headers={"Accept": "*/*", **headers})
    if response.status >= 300:
        _check(response.status, content(api, response), place)
    return response


def _check(code: int, data: bytes, place: str) -> None:
    if 200 <= code < 300:
        return
    try:
        answer = json.loads(data)
    except ValueError:
        answer = {"message": data.decode(errors="replace").strip()[:300]}
    raise RefusedError(code, answer if isinstance(answer, dict) else {}, place)
