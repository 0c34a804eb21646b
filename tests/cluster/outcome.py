"""What a fault did, as a row of a table; measures nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Probe:
    """One attempt of the intruder's to connect, and how it ended; ``open`` is a connection."""

    at: float
    target: str
    said: str


@dataclass
class Row:
    """What one fault did; a line of the table."""

    fault: str
    forbidden: int = 0
    probes: int = 0
    started: float = 0
    ended: float = 0
    ok: int = 0
    failed: int = 0
    denied: int | None = None
    agent: float | None = None
    converged: float | None = None

    def line(self) -> str:
        """As Markdown."""
        held = "yes" if self.probes and not self.forbidden else "no"
        seconds = ["—" if s is None else f"{s:.1f}" for s in (self.agent, self.converged)]
        counts = f"{self.forbidden} of {self.probes}", f"{self.ok} / {self.failed}"
        denied = "?" if self.denied is None else str(self.denied)
        return "| " + " | ".join([self.fault, held, counts[0], *seconds, counts[1], denied]) + " |"


HEADER = (
    "| fault | enforced throughout | forbidden connections that opened | s until the agent is ready"
    " | s until a change is enforced on all nodes | requests ok / failed"
    " | allowed connections denied |\n|---|---|---|---|---|---|---|"
)


def tell(rows: list[Row], path: Path) -> None:
    """Print the table, and write it to ``path``."""
    table = "\n".join([HEADER, *(row.line() for row in rows)])
    print(f"\n{table}")
    path.parent.mkdir(exist_ok=True)
    path.write_text(table + "\n")
