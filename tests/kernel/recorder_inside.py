"""A recorder in a process of its own, to be ended by signals. Started by test_agent.py.

argv: inventory capture kubepods state interval ticks flows [where to die]. Writes a line of JSON
to the file ``ticks`` at every drain. Dies by SIGKILL at the first drain with rows, where told.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from portforge.apply.node import NodeMaps
from portforge.errors import PortforgeError
from portforge_recorder.agent import Recorder, Tick
from portforge_recorder.identity import StaticSource
from portforge_recorder.load import Sizes
from portforge_recorder.writer import Writer


def die() -> None:
    """As the out-of-memory killer does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def break_at(place: str) -> None:
    """Make this process die at ``place`` of a drain that brought traffic."""
    add, drained = Writer.add, NodeMaps.drained
    seen = {"rows": 0}

    def breaking_add(self: Writer, flows: Any, losses: Any, epoch: int) -> None:
        seen["rows"] = sum(flows.column("connections").to_pylist())
        if place == "before writing" and seen["rows"]:
            die()
        add(self, flows, losses, epoch)

    def breaking_drained(self: NodeMaps) -> None:
        if place == "before clearing" and seen["rows"]:
            die()
        if place == "half cleared" and seen["rows"]:
            idle = 1 - self.config()["active"]
            keys, _ = self.read(f"flows_{idle}")
            self.remove(f"flows_{idle}", keys[0].tobytes())
            die()
        drained(self)
        if place == "after clearing" and seen["rows"]:
            die()

    Writer.add = breaking_add  # type: ignore[method-assign]
    NodeMaps.drained = breaking_drained  # type: ignore[method-assign]


def main() -> int:
    inventory, capture, kubepods, state, interval, ticks, flows, *place = sys.argv[1:]
    for where in place:
        break_at(where)

    def tell(tick: Tick) -> None:
        said = {"connections": tick.connections, "problem": tick.problem and str(tick.problem)}
        with Path(ticks).open("a") as file:
            file.write(json.dumps(said) + "\n")

    show: Callable[[Tick], None] = tell
    recorder = Recorder(
        StaticSource(inventory),
        Path(capture),
        Path(kubepods),
        interval=float(interval),
        sizes=Sizes(flows=int(flows)),
        state_folder=Path(state),
        on_tick=show,
    )
    recorder.handle_signals()
    try:
        recorder.run()
    except PortforgeError as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
