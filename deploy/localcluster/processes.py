"""Processes that outlive the command that started them: by name, with a log and a pid file."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["LocalClusterError", "Processes", "until"]


class LocalClusterError(Exception):
    """The local cluster cannot be built, started or stopped, with the reason."""


def until(what: str, check: Callable[[], object], seconds: float = 60, each: float = 0.1) -> None:
    """Wait until ``check`` is true; it may fail meanwhile. The last failure is told."""
    last: object = ""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if check():
                return
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            output = getattr(error, "stderr", "") or ""
            last = f": {error} {output}".rstrip()
        time.sleep(each)
    raise LocalClusterError(f"waited {seconds:.0f} s in vain for {what}{last}")


class Processes:
    """The processes of one cluster below ``folder``: ``<name>.pid`` and ``<name>.log``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: Sequence[str | Path], **environment: str) -> int:
        """Start ``command`` in a session of its own and remember its pid."""
        if self.running(name):
            raise LocalClusterError(f"{name} runs already (pid {self.pid(name)})")
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | environment,
            )
        process.returncode = 0  # It outlives this object: nothing to warn of.
        (self.folder / f"{name}.pid").write_text(f"{process.pid} {_started(process.pid)}")
        return process.pid

    def log(self, name: str) -> Path:
        """Where ``name`` writes what it has to say."""
        return self.folder / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """Its pid, None when it does not run; a pid that another process took does not count."""
        try:
            pid, started = (self.folder / f"{name}.pid").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if _started(int(pid)) == started else None

    def running(self, name: str) -> bool:
        """Does it run?"""
        return self.pid(name) is not None

    def names(self) -> list[str]:
        """Everything ever started here and not stopped, in the order of their names."""
        return sorted(path.stem for path in self.folder.glob("*.pid"))

    def stop(self, name: str, number: int = signal.SIGTERM, seconds: float = 20) -> None:
        """Signal ``name`` and wait; SIGKILL when it does not end."""
        for attempt in (number, signal.SIGKILL):
            pid = self.pid(name)
            if pid is None:
                break
            with suppress(ProcessLookupError):
                os.kill(pid, attempt)
            end = time.monotonic() + seconds
            while self.running(name) and time.monotonic() < end:
                _reap(pid)
                time.sleep(0.05)
        (self.folder / f"{name}.pid").unlink(missing_ok=True)


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _started(pid: int) -> str:
    """When the process started, in clock ticks since boot; empty when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]
