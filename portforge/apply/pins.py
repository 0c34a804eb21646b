"""Where a node's programs and maps are pinned. Opens none of them."""

from __future__ import annotations

import re
from pathlib import Path

from portforge.errors import HostError

__all__ = ["BPFFS", "find_pins", "pin_home"]

BPFFS = Path("/sys/fs/bpf")


def pin_home(node: str) -> Path:
    """The folder for everything pinned for ``node``. bpffs takes no dots in names.

    >>> pin_home("ip-10-0-0-1.internal").name
    'ip-10-0-0-1_internal'
    """
    return BPFFS / "portforge" / re.sub(r"[^A-Za-z0-9-]", "_", node)


def find_pins(node: str) -> Path:
    """The folder where the programs of ``node`` are pinned.

    Raises
    ------
    HostError: nothing is pinned there, or it may not be read.
    """
    folder = pin_home(node)
    try:
        # Newer programs lie in a folder of their own.
        versions = sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime)
    except FileNotFoundError:
        versions = []
    except PermissionError as denied:
        raise HostError("may not be read", place=str(folder), remedy="run as root") from denied
    complete = [v for v in versions if (v / "links" / "on_egress").exists()]
    if not complete:
        raise HostError(
            f"no recorder has been started for node {node}",
            place=str(folder),
            remedy="start it with: portforge record",
        )
    return complete[-1]
