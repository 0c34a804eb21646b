"""Connect to a cluster's API server and ask it. Knows no kind of object.

The Kubernetes client brings credentials, TLS and token refresh. Its typed models are not used:
at thousands of pods they cost hundreds of megabytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from portforge.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubernetes.client import ApiClient
    from urllib3 import BaseHTTPResponse

__all__ = ["connect", "content", "refusal", "request", "send", "unreachable", "username"]

_TIMEOUT = (5.0, 30.0)
_REMEDIES = {
    401: "log in again, or name another context",
    403: "ask for a role: portforge-viewer, -analyst, -approver or -responder",
    404: "check the name; where the kind is unknown, install the CRDs",
    409: "read it again and repeat",
    429: "the API server is busy: try again",
}


def connect(kubeconfig: Path | None = None, context: str | None = None) -> ApiClient:
    """A client of the cluster that a kubeconfig names, else of the one this pod runs in.

    Parameters
    ----------
    kubeconfig: the file; by default ``$KUBECONFIG``, else ``~/.kube/config``.
    context: its context; by default the current one.

    Raises
    ------
    ClusterError: no kubeconfig, no such context, and no pod's service account either.
    """
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
    from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

    configuration = Configuration()
    configuration.keep_alive = True
    configuration.retries = False  # urllib3 would try thrice at once, and log each time
    configuration.connection_pool_maxsize = 16
    wanted = kubeconfig or context
    try:
        if not wanted and not _any_exists(KUBE_CONFIG_DEFAULT_LOCATION):
            load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            load_kube_config(  # type: ignore[no-untyped-call]
                str(kubeconfig) if kubeconfig else None,
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
    except (ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        raise ClusterError(
            f"no usable kubeconfig ({str(error).rstrip('. ')})",
            place=str(kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION),
            remedy="give --kubeconfig or --context, or set KUBECONFIG",
        ) from error
    return ApiClient(configuration)


def _any_exists(places: str) -> bool:
    """Whether one of the paths, separated as in PATH, is a file."""
    import os

    return any(Path(p).expanduser().is_file() for p in places.split(os.pathsep) if p)


def username(api: ApiClient) -> str:
    """Who the API server takes us for; raises ClusterError when it cannot be asked."""
    review = request(
        api,
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        body={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
    )
    return str(review["status"]["userInfo"]["username"])


def request(
    api: ApiClient,
    method: str,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: object = None,
) -> dict[str, Any]:
    """The API server's answer as plain JSON.

    Raises
    ------
    ClusterError: no answer, or a refusal; ``status`` says which.
    """
    response = send(api, method, path, params=params, headers=headers, body=body)
    data = content(api, response)
    if response.status >= 400:
        raise refusal(response.status, data, path)
    try:
        answer: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise ClusterError(
            "the answer is not JSON",
            place=path,
            remedy="check that the address is that of an API server",
            status=response.status,
        ) from error
    return answer


def send(
    api: ApiClient,
    method: str,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: object = None,
    timeout: tuple[float, float] = _TIMEOUT,
) -> BaseHTTPResponse:
    """The response, its body not read yet. ``timeout``: seconds to connect, between two reads.

    Raises ClusterError when there is no answer. A refusal is a response: see ``status``.
    """
    from kubernetes.client.exceptions import OpenApiException
    from urllib3.exceptions import HTTPError

    call = api.param_serialize(
        method,
        path,
        query_params=list((params or {}).items()),
        header_params={"Accept": "application/json", **(headers or {})},
        body=body,
        auth_settings=["BearerToken"],
    )
    try:
        response: BaseHTTPResponse = api.call_api(*call, _request_timeout=timeout).response
    except (HTTPError, OpenApiException, OSError) as error:
        raise unreachable(api, error) from error
    return response


def content(api: ApiClient, response: BaseHTTPResponse) -> bytes:
    """The whole body; raises ClusterError when the connection is cut in it."""
    from urllib3.exceptions import HTTPError

    try:
        return response.data
    except (HTTPError, OSError) as error:
        raise unreachable(api, error) from error


def unreachable(api: ApiClient, error: Exception) -> ClusterError:
    """What the analyst is told when there is no answer."""
    reason = getattr(error, "reason", None) or error
    return ClusterError(
        f"the API server cannot be reached ({reason})",
        place=str(api.configuration.host),
        remedy="check the address, the certificate and the network",
    )


def refusal(status: int, data: bytes, path: str) -> ClusterError:
    """What the analyst is told when the API server says no, in its own words.

    >>> print(refusal(403, b'{"message": "pods is forbidden"}', "/api/v1/pods"))
    /api/v1/pods: pods is forbidden; ask for a role: portforge-viewer, -analyst, -approver or \
-responder
    """
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        message = data[:200].decode(errors="replace").strip() or "no reason given"
    return ClusterError(
        message.rstrip("."),
        place=path,
        remedy=_REMEDIES.get(status, f"HTTP status {status}"),
        status=status,
    )
