"""``portforge agent``: the main process of the node agent in a cluster. People start the chart."""

from __future__ import annotations

from pathlib import Path

import click

from portforge.cli._cluster import cluster_options, open_cluster
from portforge.cli._node import agent_installed

EPILOG = """\b
Example, as the chart's DaemonSet starts it:
  portforge agent --node worker-1 --pod-uid $POD_UID --cluster-name prod --cgroups /host/cgroup

\b
The programs must be loaded: portforge load, which the init container runs. Killed, it leaves the
kernel counting and enforcing. Logs one JSON object a line. Exit codes: 0 stopped; 1 bad input;
4 this host cannot record; 5 no way to an API server is configured.
"""


def _listen(text: str) -> tuple[str, int]:
    """``:9464``, ``127.0.0.1:9464`` or ``[::1]:9464``."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not HOST:PORT or :PORT", param_hint="--listen")
    return host.strip("[]"), int(port)


@click.command(epilog=EPILOG)
@click.option(
    "--node", required=True, envvar="PORTFORGE_NODE", show_envvar=True, help="This node's name."
)
@click.option(
    "--pod-uid",
    envvar="PORTFORGE_POD_UID",
    show_envvar=True,
    help="UID of the pod this runs in: shows where kubepods is, and whose canary to look for.",
)
@click.option(
    "--cluster-name",
    default="cluster",
    show_default=True,
    envvar="PORTFORGE_CLUSTER",
    show_envvar=True,
    help="Stands in the capture.",
)
@click.option(
    "--namespace",
    default="portforge",
    show_default=True,
    envvar="PORTFORGE_NAMESPACE",
    show_envvar=True,
    help="Of the release: of the Lease, and of the ServiceAccount that may read the capture.",
)
@click.option(
    "--capture",
    default="/var/lib/portforge/capture",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder to write to.",
)
@click.option(
    "--state",
    default="/var/lib/portforge/state",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder with what is in force.",
)
@click.option(
    "--cgroups",
    type=click.Path(path_type=Path),
    help="The host's cgroup v2 mount as seen here; by default where it is mounted.",
)
@click.option(
    "--kubepods", type=click.Path(path_type=Path), help="This node's kubepods cgroup, when known."
)
@click.option("--listen", default=":9464", show_default=True, help="Where HTTP is served.")
@click.option("--interval", default=10.0, show_default=True, help="Seconds between drains.")
@click.option("--rotate", default=300.0, show_default=True, help="Seconds until a new file.")
@click.option(
    "--ship",
    envvar="PORTFORGE_SHIP",
    show_envvar=True,
    metavar="URL",
    help="Bring finished files there, too: s3://bucket/prefix. AWS_… say how to get in.",
)
@click.option(
    "--keep-hours",
    default=0.0,
    show_default=True,
    envvar="PORTFORGE_KEEP_HOURS",
    show_envvar=True,
    type=click.FloatRange(min=0),
    help="Remove files so old from --capture once they are shipped; 0 keeps them.",
)
@click.option(
    "--trial-denials",
    default=50,
    show_default=True,
    type=click.IntRange(min=1),
    help="So many denials of a policy on this node end its trial.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    envvar="PORTFORGE_LOG_LEVEL",
    show_envvar=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Events are info and warning.",
)
@cluster_options
def command(
    node: str,
    pod_uid: str | None,
    cluster_name: str,
    namespace: str,
    capture: Path,
    state: Path,
    cgroups: Path | None,
    kubepods: Path | None,
    listen: str,
    interval: float,
    rotate: float,
    ship: str | None,
    keep_hours: float,
    trial_denials: int,
    log_level: str,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Record and enforce on this node of a cluster, until stopped."""
    from portforge.store import store_url

    if interval <= 0 or rotate <= 0:
        raise click.UsageError("--interval and --rotate are seconds, more than 0")
    if ship and not store_url(ship):
        raise click.BadParameter(f"{ship!r} is not a URL: s3://bucket/prefix", param_hint="--ship")
    address = _listen(listen)
    with agent_installed():
        from portforge_recorder import load
        from portforge_recorder.daemon import Agent, Settings, log_as_json
    log_as_json(log_level)
    settings = Settings(
        node=node,
        cluster=cluster_name,
        kubepods=kubepods or load.find_kubepods(root=cgroups, pod_uid=pod_uid),
        capture=capture,
        state=state,
        namespace=namespace,
        listen=address,
        pod_uid=pod_uid,
        interval=interval,
        rotate=rotate,
        trial_denials=trial_denials,
        ship=ship or None,
        keep_hours=keep_hours,
    )
    Agent(open_cluster(kubeconfig, context), settings).run()
