"""``portforge record``: run the recorder on this node until it is stopped."""

from __future__ import annotations

from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

import click
from rich.console import Console

from portforge.cli._node import agent_installed, inventory_option

if TYPE_CHECKING:
    from portforge_recorder.agent import Drain, Tick

EPILOG = """\b
Examples:
  portforge record --inventory pods.yaml --capture /var/lib/portforge/capture
  portforge record --inventory pods.yaml --capture capture --for 60 --interval 1

\b
Killed, it leaves the kernel counting and enforcing; started again, it goes on with what the
kernel counted meanwhile. Exit codes: 0 stopped; 1 bad input; 4 this host cannot record.
"""


@click.command(epilog=EPILOG)
@inventory_option
@click.option(
    "--capture", required=True, type=click.Path(path_type=Path), help="Folder to write to."
)
@click.option(
    "--kubepods",
    type=click.Path(path_type=Path),
    help="This node's kubepods cgroup; found when the kubelet's layout is the usual one.",
)
@click.option("--interval", default=10.0, show_default=True, help="Seconds between drains.")
@click.option("--rotate", default=300.0, show_default=True, help="Seconds until a new file.")
@click.option("--for", "seconds", type=float, help="Stop after so many seconds.")
@click.option(
    "--unload", is_flag=True, help="At the end take the programs out: nothing is enforced then."
)
def command(
    inventory: Path,
    capture: Path,
    kubepods: Path | None,
    interval: float,
    rotate: float,
    seconds: float | None,
    unload: bool,
) -> None:
    """Watch the pods of this node, write what they do, enforce what was applied."""
    if interval <= 0 or rotate <= 0 or (seconds is not None and seconds <= 0):
        raise click.UsageError("--interval, --rotate and --for are seconds, more than 0")
    with agent_installed():
        from portforge_recorder import load
        from portforge_recorder.agent import Recorder
        from portforge_recorder.identity import StaticSource
    console = Console(stderr=True, highlight=False)
    source = StaticSource(inventory)
    node = source.inventory().node
    rows = connections = losses = unheard = 0
    with console.status(f"loading the programs for {node}") as status:

        def show(tick: Tick) -> None:
            nonlocal rows, connections, losses
            rows, connections, losses = (
                rows + tick.rows,
                connections + tick.connections,
                losses + tick.losses,
            )
            status.update(
                f"{node}: {connections:,} connections, {rows:,} rows, {losses:,} lost; "
                f"{tick.pods} pods under a policy"
            )
            if tick.problem:
                console.print(f"portforge: {tick.problem}", style="yellow", markup=False)

        def count(drain: Drain) -> None:
            nonlocal unheard
            unheard += drain.heard.dropped

        recorder = Recorder(
            source,
            capture,
            kubepods or load.find_kubepods(),
            interval=interval,
            max_seconds=rotate,
            on_tick=show,
            on_drain=count,
            unload=unload,
        )
        recorder.handle_signals()
        timer = Timer(seconds or 0, recorder.stop.set)
        timer.daemon = True
        if seconds:
            timer.start()
        try:
            recorder.run()
        finally:
            timer.cancel()
    console.print(f"{node}: {connections:,} connections in {rows:,} rows, {losses:,} lost.")
    if unheard:
        console.print(f"{node}: {unheard:,} DNS answers not read: outside peers may lack names.")
