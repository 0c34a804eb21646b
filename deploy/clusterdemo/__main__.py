"""``make demo-cluster``: on a cluster of its own, or on the one that KUBECONFIG names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
from localcluster import binaries, images
from localcluster.cluster import Cluster
from localcluster.processes import LocalClusterError
from rich.console import Console

from clusterdemo import shop
from clusterdemo.story import Story
from portforge.demo.telling import interruptible
from portforge.errors import PortforgeError


@click.command()
@click.option("--seconds", default=75.0, show_default=True, help="How long to watch.")
@click.option("--output", default="out/demo-cluster", type=click.Path(path_type=Path))
@click.option("--keep", is_flag=True, help="Leave the local cluster running.")
def main(seconds: float, output: Path, keep: bool) -> None:
    """Watch, learn, audit, be refused, enforce, go back, confirm: on a real cluster."""
    console = Console(highlight=False)
    cluster = Cluster(say=lambda text: console.print(f"[dim]{text}[/]"))
    if os.environ.get("KUBECONFIG"):
        raise click.UsageError(
            "on a cluster of your own follow docs/install.md; unset KUBECONFIG for the local one"
        )
    with interruptible():
        try:
            cluster.up()
            console.print("[dim]Building and loading images: minutes the first time.[/]")
            cluster.load(*images.portforge(), shop.image())
            people = {name: cluster.plane.pki.kubeconfig(name) for name in ("ana", "ben", "olga")}
            people["admin"] = cluster.kubeconfig
            os.environ["PATH"] = f"{binaries.BINARIES}:{os.environ['PATH']}"
            helm = binaries.BINARIES / "helm"
            story = Story(
                console, output, helm, cluster.kubectl, people, cluster.chart_values, seconds
            )
            good = story.tell()
        except (LocalClusterError, PortforgeError, subprocess.CalledProcessError) as problem:
            console.print(f"[red]demo-cluster: {problem}[/]", markup=True)
            good = False
        finally:
            if not keep:
                cluster.down()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
