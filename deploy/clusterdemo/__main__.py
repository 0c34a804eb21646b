"""``make demo-cluster``: on a cluster of its own, or on the one that KUBECONFIG names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from localcluster import binaries, images
from localcluster.cluster import Cluster
from localcluster.processes import LocalClusterError
from rich.console import Console

from clusterdemo import shop
from clusterdemo.story import PEOPLE, Story
from portforge.demo.telling import interruptible
from portforge.errors import PortforgeError


@click.command()
@click.option("--seconds", default=75.0, show_default=True, help="How long to watch.")
@click.option("--output", default="out/demo-cluster", type=click.Path(path_type=Path))
@click.option("--keep", is_flag=True, help="Leave the local cluster running.")
@click.option(
    "--images",
    "prefix",
    default="localhost/",
    show_default=True,
    help="Where the cluster of KUBECONFIG finds portforge-agent, portforge-loader and shop:1.",
)
@click.option("--set", "values", multiple=True, help="Further values for the chart.")
def main(seconds: float, output: Path, keep: bool, prefix: str, values: tuple[str, ...]) -> None:
    """Watch, learn, audit, be refused, enforce, go back, confirm: on a real cluster."""
    console = Console(highlight=False)
    output.mkdir(parents=True, exist_ok=True)
    own = os.environ.pop("KUBECONFIG", "")
    good = False
    with interruptible():
        try:
            binaries.build(console.print)
            os.environ["PATH"] = f"{binaries.BINARIES}:{os.environ['PATH']}"
            place = (
                _own_cluster(Path(own), console, output, prefix)
                if own
                else _local_cluster(console, output, keep)
            )
            with place as story:
                story.seconds = seconds
                story.values += values
                good = story.tell()
        except (LocalClusterError, PortforgeError, OSError, RuntimeError) as problem:
            console.print(f"demo-cluster: {problem}", style="red", markup=False)
        except subprocess.CalledProcessError as failed:
            console.print(f"demo-cluster: {failed}", style="red", markup=False)
    sys.exit(0 if good else 1)


@contextmanager
def _local_cluster(console: Console, output: Path, keep: bool) -> Iterator[Story]:
    """Three nodes on this machine, gone afterwards unless ``keep``."""
    cluster = Cluster(say=lambda text: console.print(text, style="dim"))
    try:
        cluster.up()
        console.print("Building and loading images: minutes the first time.", style="dim")
        cluster.load(*images.portforge(), shop.image())
        people = {name: cluster.plane.pki.kubeconfig(name) for name in PEOPLE.values()}
        yield Story(
            console,
            output,
            binaries.BINARIES / "helm",
            cluster.kubectl,
            people | {"admin": cluster.kubeconfig},
            cluster.chart_values,
            pins=tuple(Path("/sys/fs/bpf/portforge") / node.name for node in cluster.nodes),
        )
    finally:
        if not keep:
            cluster.down()


@contextmanager
def _own_cluster(admin: Path, console: Console, output: Path, prefix: str) -> Iterator[Story]:
    """The reader's: ana, ben and olga are its administrator, who acts in their names."""
    kubectl = shop.kubectl(binaries.BINARIES / "kubectl", admin)
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    people = {"admin": admin}
    for name in PEOPLE.values():
        config["users"][0]["user"]["as"] = name
        people[name] = output / f"{name}.kubeconfig"
        people[name].touch(mode=0o600)
        people[name].write_text(json.dumps(config))
    values = (
        f"image.agent.repository={prefix}portforge-agent",
        f"image.loader.repository={prefix}portforge-loader",
    )
    helm = binaries.BINARIES / "helm"
    yield Story(console, output, helm, kubectl, people, values, image=f"{prefix}shop:1")


if __name__ == "__main__":
    main()
