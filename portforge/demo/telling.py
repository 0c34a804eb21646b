"""How a demo tells its story: headings, commands as one would type them, promises checked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from portforge.errors import PortforgeError

__all__ = ["PORTFORGE", "Telling", "counted", "delete", "interruptible"]

PORTFORGE = str(Path(sys.executable).with_name("portforge"))


@dataclass
class Telling:
    """A story told on ``console``, and what came of its promises."""

    console: Console
    checks: list[tuple[str, str, bool]] = field(default_factory=list, init=False)

    def environment(self) -> dict[str, str]:
        """What the commands of the story are run with."""
        return {**os.environ, "COLUMNS": str(self.console.width)}

    def say(self, title: str, text: str = "") -> None:
        """A heading, and what is about to happen."""
        self.console.print(f"\n[bold cyan]{title}[/]")
        if text:
            self.console.print(text)

    def run(self, *words: str, expect: int = 0) -> None:
        """Run a ``portforge`` command as the reader would, and show it."""
        self.console.print(f"[dim]$ portforge {' '.join(words)}[/]", soft_wrap=True)
        sys.stdout.flush()
        done = subprocess.run([PORTFORGE, *words], env=self.environment(), check=False)
        if done.returncode != expect:
            raise PortforgeError(f"portforge {words[0]} ended with exit code {done.returncode}")

    def check(self, what: str, counts: str, good: bool) -> None:
        """Write down a promise, what came of it, and whether it was kept."""
        self.checks.append((what, counts, good))
        mark = "[green]✓[/]" if good else "[red]✗[/]"
        self.console.print(f"  {mark} {what}: {counts}")

    def summary(self) -> None:
        """Every promise, and what came of it."""
        self.say("What was promised, and what came of it")
        table = Table("", "promise", "counted", box=None)
        for what, counts, good in self.checks:
            table.add_row("[green]✓[/]" if good else "[red]✗[/]", what, counts)
        self.console.print(table)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM cleans up as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def delete(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def counted(counts: dict[str, Any]) -> str:
    """``{"ok": 23, "failed": 0}`` as ``23 ok, 0 failed``."""
    shown = {k: v for k, v in counts.items() if not isinstance(v, list | dict) and k != "at"}
    return ", ".join(
        f"{value} {name}" if isinstance(value, int) and not isinstance(value, bool)
        else f"{name} {str(value).lower()}"
        for name, value in shown.items()
    )  # fmt: skip
