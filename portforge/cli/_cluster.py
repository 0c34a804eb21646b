"""What the commands against the cluster share: which cluster, and which namespace."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = ["cluster_options", "lasting", "open_cluster", "short_age"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def cluster_options(command: _Command) -> _Command:
    """``--kubeconfig`` and ``--context``."""
    command = click.option("--context", help="Context of the kubeconfig, else its current one.")(
        command
    )
    return click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path),
        help="Else $KUBECONFIG, ~/.kube/config, or the pod's own account.",
    )(command)


def open_cluster(kubeconfig: Path | None, context: str | None) -> ApiClient:
    """A client of the cluster until the command ends; ClusterError says what is missing."""
    from portforge.kube.client import connect

    api = connect(kubeconfig, context)
    if (command := click.get_current_context(silent=True)) is not None:
        command.call_on_close(api.close)
    return api


class Lasting(click.ParamType[timedelta]):
    """A length of time: ``90s``, ``10m``, ``2h``, ``1d``."""

    name = "duration"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """The length; the command line is wrong where it is none or not above zero."""
        number, unit = value[:-1], value[-1:]
        if unit not in _UNITS or not number.isdecimal() or int(number) == 0:
            self.fail(f"{value!r} is not a length of time: write 90s, 10m, 2h or 1d", param, ctx)
        return timedelta(seconds=int(number) * _UNITS[unit])


lasting = Lasting()


def short_age(then: datetime | None, now: datetime) -> str:
    """How long ago, as people say it.

    >>> now = datetime(2026, 1, 1)
    >>> short_age(now - timedelta(seconds=75), now), short_age(None, now)
    ('1m', 'never')
    """
    if then is None:
        return "never"
    seconds = max(0, int((now - then).total_seconds()))
    for unit in ("d", "h", "m"):
        if seconds >= _UNITS[unit]:
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"
