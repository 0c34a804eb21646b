"""The command ``portforge``: parse, call, print. One file for each command, loaded when called.

Only what the analyst can mend becomes a sentence and an exit code; the rest is a traceback.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click
from rich.console import Console

from portforge import __version__
from portforge.errors import PolicyError, PortforgeError

COMMANDS = (
    "demo",
    "record",
    "load",
    "agent",
    "recommend",
    "simulate",
    "verify",
    "drift",
    "roles",
    "diff",
    "lint",
    "explain",
    "approve",
    "apply",
    "confirm",
    "status",
    "rollback",
    "break-glass",
    "capture",
    "compact",
    "schema",
    "doctor",
)
"""In the order of the loop. Each is ``portforge.cli.<name>.command``."""


class Lazy(click.Group):
    """A group that imports a command only when it is called or its help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"portforge.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)  # noqa: S101
        return command


EPILOG = """\b
Exit codes:
  0    done
  1    the input cannot be used
  2    the command line is wrong
  3    the answer is no: a policy would deny what was seen, lint or diff found something
  4    this host cannot do it; ask: portforge doctor
  5    the cluster refuses, or cannot be reached
  130  interrupted
"""


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, prog_name="portforge")
def portforge() -> None:
    """Watch which ports workloads need, prove it, and close the rest."""


def main() -> None:
    """Run the command line; turn what the analyst can mend into one sentence and an exit code."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        code = portforge.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.Abort:
        console.print("interrupted", style="yellow")
        sys.exit(130)
    except click.ClickException as wrong:
        wrong.show()
        sys.exit(wrong.exit_code)
    except PortforgeError as wrong:
        for problem in wrong.problems if isinstance(wrong, PolicyError) else ():
            console.print(problem, markup=False)
        console.print(f"portforge: {wrong}", style="red", markup=False)
        sys.exit(wrong.exit_code)
