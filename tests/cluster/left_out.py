"""Whether the run leaves out, aloud, what needs a cluster or the programs that make one."""

from __future__ import annotations

import os

LEFT_OUT = next(
    (
        f"{name}=1: NO CLUSTER TEST IS RUN"
        for name in ("PORTFORGE_WITHOUT_CLUSTER", "PORTFORGE_WITHOUT_KERNEL")
        if os.environ.get(name) == "1"
    ),
    "",
)
