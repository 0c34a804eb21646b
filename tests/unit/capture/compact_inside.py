"""Compacts copies of a capture in processes of their own, each killed one step later than the last.

argv: capture, folder for the copies. Prints a JSON list: how each ended (-9 or 0) and its steps.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from portforge.capture import compact

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


def child(folder: Path, die: int) -> None:
    """Compact; die after step number ``die``."""
    steps = folder.with_suffix(".steps").open("w")
    taken = 0

    def step(name: str) -> None:
        nonlocal taken
        steps.write(name + "\n")
        steps.flush()
        if taken == die:
            os.kill(os.getpid(), signal.SIGKILL)
        taken += 1

    compact(folder, now=NOW, step=step)


def main() -> None:
    """One child after the other, until one comes to its end."""
    told = []
    while not told or told[-1]["code"] != 0:
        folder = Path(sys.argv[2]) / f"killed-{len(told):02d}"
        shutil.copytree(sys.argv[1], folder)
        pid = os.fork()
        if not pid:
            try:
                child(folder, len(told))
                os._exit(0)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in {0, -9}, code
        steps = folder.with_suffix(".steps").read_text().splitlines()
        told.append({"folder": str(folder), "code": code, "steps": steps})
    print(json.dumps(told))


if __name__ == "__main__":
    main()
