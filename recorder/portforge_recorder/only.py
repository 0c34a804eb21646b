"""One recorder for each node. Two would clear each other's counts; --unload of one that never ran
would end what the other enforces. The kernel frees the lock with the process that holds it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from portforge.apply.node import pin_home
from portforge.errors import HostError

__all__ = ["only_recorder"]


@contextmanager
def only_recorder(node: str) -> Iterator[None]:
    """Be the one process that drains, replaces or removes the programs of ``node``.

    Raises
    ------
    HostError: another is, or the lock may not be made.
    """
    lock = Path("/run/lock") / f"portforge-recorder-{pin_home(node).name}"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = lock.open("w")
    except OSError as error:
        raise HostError(error.strerror or str(error), place=str(lock), remedy="run as root") from (
            error
        )
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HostError(
                f"another recorder of node {node} is running", place=str(lock), remedy="stop it"
            ) from error
        yield
