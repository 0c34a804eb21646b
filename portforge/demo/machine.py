"""A network namespace and a cgroup, and how a process gets into both. Knows no Kubernetes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from pwd import getpwnam
from typing import IO, Any

from portforge.errors import HostError

__all__ = ["Machine", "tool"]

# The cgroup first, then the network, then the program: its very first instruction is inside.
# `ip netns exec` would do, but it mounts a fresh /sys without the cgroup tree.
# The mount namespace carries the pod's own resolv.conf, as the kubelet gives it.
_ENTER = """
echo $$ >"$1/cgroup.procs" || exit 126
network=$2 etc=$3; shift 3
exec nsenter --net="$network" unshare --mount --propagation slave sh -c '
etc=$0
for file in resolv.conf nsswitch.conf; do
  if [ -e "/etc/$file" ]; then mount --bind "$etc/$file" "/etc/$file" || exit 126; fi
done
exec "$@"' "$etc" "$@"
"""


def tool(*argv: str, given: str | None = None) -> str:
    """Run a system tool; its standard output.

    Raises
    ------
    HostError: the tool is missing or failed; with what it said.
    """
    try:
        done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        raise HostError(
            "command not found", place=argv[0], remedy="install iproute2, util-linux and nftables"
        ) from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise HostError(f"failed: {said}", place=" ".join(argv), remedy="root is needed; are you?")
    return done.stdout


class Machine:
    """Something with an address in which processes run: a pod, the node, a host outside.

    Parameters
    ----------
    name: for people and log files.
    network: path of the network namespace.
    cgroup: directory processes are put into.
    etc: folder with the ``resolv.conf`` and ``nsswitch.conf`` they see.
    logs: folder for what they print.
    """

    def __init__(
        self,
        name: str,
        *,
        network: Path,
        cgroup: Path,
        etc: Path,
        logs: Path,
        address: str,
        address6: str,
    ) -> None:
        self.name, self.network, self.cgroup = name, network, cgroup
        self.address, self.address6 = address, address6
        self._etc, self._logs, self._number = etc, logs, count(1)
        self._started: list[subprocess.Popen[Any]] = []

    def command(
        self, argv: Sequence[str], *, user: str | None = None, cgroup: Path | None = None
    ) -> list[str]:
        """The full command line that enters cgroup and network and becomes ``argv``."""
        drop: tuple[str, ...] = ()
        if user:
            group = getpwnam(user).pw_gid
            drop = ("setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups")
        enter = ("sh", "-c", _ENTER, "sh", str(cgroup or self.cgroup), str(self.network))
        return [*enter, str(self._etc), *drop, *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        cgroup: Path | None = None,
        **kwargs: Any,
    ) -> subprocess.Popen[Any]:
        """Start a process inside. Output goes to a file in ``logs`` unless ``kwargs`` say else.

        ``kwargs`` go to :class:`subprocess.Popen`; ``cgroup`` is another one to run in.
        """
        self._started = [p for p in self._started if p.poll() is None]
        log: IO[bytes] | None = None
        if "stdout" not in kwargs or "stderr" not in kwargs:
            program = Path(argv[0]).name
            log = (self._logs / f"{self.name}-{next(self._number)}-{program}.log").open("wb")
        options: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": log,
            "stderr": log,
            "cwd": "/",
            # Ctrl-C at the terminal is for us; we stop them in order.
            "start_new_session": True,
        }
        try:
            process = subprocess.Popen(
                self.command(argv, user=user, cgroup=cgroup), **{**options, **kwargs}
            )
        finally:
            if log:
                log.close()
        self._started.append(process)
        return process

    def check_output(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        timeout: float = 30,
        given: str | None = None,
    ) -> str:
        """Run a process inside to its end; its standard output as text.

        Raises
        ------
        subprocess.CalledProcessError: it failed; ``stderr`` holds what it said, also as a note.
        """
        try:
            return subprocess.run(
                self.command(argv, user=user),
                input=given,
                stdin=None if given is not None else subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=True,
                cwd="/",
            ).stdout
        except subprocess.CalledProcessError as failed:
            failed.add_note(f"in {self.name}: {failed.stderr}")
            raise

    def python_command(self, code: str, *args: str) -> list[str]:
        """The command line of ``code`` under this Python, standard library only."""
        return [sys.executable, "-I", "-S", "-u", "-c", code, *args]

    def python(self, code: str, *args: str, timeout: float = 30) -> str:
        """Run Python ``code`` inside to its end; its standard output."""
        return self.check_output(self.python_command(code, *args), timeout=timeout)

    def kill(self) -> None:
        """Kill and collect the processes started here; what they started is the cgroup's."""
        for process in self._started:
            process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
            process.wait(timeout=10)
        self._started = []
