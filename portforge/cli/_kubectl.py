"""``kubectl portforge``: the same commands, meant for the cluster unless they say otherwise.

kubectl finds it by its name, ``kubectl-portforge``, on PATH. KUBECONFIG is honoured as kubectl
does; flags come after the command: ``kubectl portforge status -n shop``.
"""

from __future__ import annotations

from portforge.cli import main as portforge_main
from portforge.cli import portforge

__all__ = ["main"]

CLUSTER_TOO = ("apply", "status", "rollback")


def main() -> None:
    """Run the command line with ``--cluster`` where a command has it."""
    portforge.context_settings["default_map"] = {name: {"cluster": True} for name in CLUSTER_TOO}
    portforge_main()


if __name__ == "__main__":
    main()
