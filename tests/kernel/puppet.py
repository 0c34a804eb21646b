"""A long-lived process in a test pod that sends and receives as told, within milliseconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from portforge.demo.machine import Machine

Result = dict[str, Any]
_PROGRAM = Path(__file__).with_name("puppet_inside.py")


class Puppet:
    """Started in ``machine``; ends with it. Ports given are served, TCP and UDP."""

    def __init__(self, machine: Machine, *ports: int, cgroup: Path | None = None) -> None:
        self.machine = machine
        self._process: subprocess.Popen[str] = machine.run(
            [sys.executable, "-I", "-S", "-u", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cgroup=cgroup,
        )
        if ports:
            self("serve", ports=ports)

    def __call__(self, do: str, **order: Any) -> Result:
        """One order, its result; see ``puppet_inside.py`` for what there is."""
        self.begin(do, **order)
        return self.end()

    def begin(self, do: str, **order: Any) -> None:
        """Give an order and do not wait for its result."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([{"do": do, **order}]) + "\n")
        self._process.stdin.flush()

    def end(self) -> Result:
        """The result of what was begun."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"the puppet in {self.machine.name} died"
        return cast(Result, json.loads(line)[0])

    def connect(self, to: str, port: int, **order: Any) -> str:
        """``ok``, or the name of the error of a TCP connection."""
        return str(self("connect", protocol="TCP", to=to, port=port, **order).get("error", "ok"))

    def ask(self, to: str, port: int, text: str = "echo", **order: Any) -> str:
        """``ok`` when a datagram came back, else the name of the error."""
        order = {"protocol": "UDP", "to": to, "port": port, "text": text, "answer": True, **order}
        result = self("send", **order)
        return "ok" if result.get("answer") == text else str(result.get("error", "foreign answer"))
