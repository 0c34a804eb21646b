"""``python -m localcluster build|up|down|status|load``."""

from __future__ import annotations

from pathlib import Path

import click

from localcluster import binaries, images
from localcluster.cluster import Cluster
from localcluster.processes import LocalClusterError


@click.group()
@click.option("--name", default="lab", show_default=True, help="Up to 5 letters.")
@click.option("--number", default=0, show_default=True, help="Keeps clusters' addresses apart.")
@click.option("--nodes", default=3, show_default=True)
@click.option("--proxy-mode", default="nftables", type=click.Choice(["nftables", "iptables"]))
@click.pass_context
def main(context: click.Context, name: str, number: int, nodes: int, proxy_mode: str) -> None:
    """A real Kubernetes of several nodes on this machine."""
    context.obj = Cluster(name, number, nodes, proxy_mode)


@main.command()
def build() -> None:
    """Build what is missing, and start nothing."""
    binaries.build(click.echo)
    for image in (images.pause, images.coredns):
        image()


@main.command()
@click.pass_obj
def up(cluster: Cluster) -> None:
    """Build what is missing and start."""
    cluster.up()
    click.echo(f"\n  export KUBECONFIG={cluster.kubeconfig}\n")


@main.command()
@click.pass_obj
def down(cluster: Cluster) -> None:
    """Stop and leave nothing but the cache."""
    cluster.down()
    click.echo(f"Cluster {cluster.name} is gone; its binaries and images are kept.")


@main.command()
@click.pass_obj
def status(cluster: Cluster) -> None:
    """Which of its processes run."""
    for place in (cluster.plane, *cluster.nodes):
        for name in place.processes.names():
            state = "runs" if place.processes.running(name) else "ended"
            click.echo(f"{place.folder.name:15} {name:20} {state}")


@main.command()
@click.argument("archives", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.pass_obj
def load(cluster: Cluster, archives: tuple[Path, ...]) -> None:
    """Import image archives on every node."""
    cluster.load(*archives)


if __name__ == "__main__":
    try:
        main(standalone_mode=True)
    except LocalClusterError as problem:
        raise SystemExit(f"localcluster: {problem}") from None
