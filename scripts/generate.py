"""What cog writes into docs/: command line help and the flow record. Run by scripts/docs."""

from __future__ import annotations

import click

from portforge.cli import COMMANDS, portforge
from portforge.schema import COLUMNS, LossReason

WIDTH = 100


def cli_help() -> str:
    """The help of ``portforge`` and of each of its commands, as Markdown."""
    parts = [_block(portforge, "portforge")]
    for name in COMMANDS:
        command = portforge.get_command(click.Context(portforge), name)
        if command is None:
            raise LookupError(name)
        parts.append(f"## portforge {name}\n\n{_block(command, f'portforge {name}')}")
        if isinstance(command, click.Group):
            for sub, below in command.commands.items():
                whole = f"portforge {name} {sub}"
                parts.append(f"### {whole}\n\n{_block(below, whole)}")
    return "\n\n".join(parts)


def flow_record() -> str:
    """The columns of contract 1 as a Markdown table."""
    head = "| column | type | null | unit | meaning |\n|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| `{c.name}` | {_type(str(c.type))} | {'yes' if c.nullable else ''} | {c.unit} "
        f"| {c.meaning} |"
        for c in COLUMNS
    )


def loss_reasons() -> str:
    """The reasons a loss row can have."""
    return "\n".join(f"- `{reason}`" for reason in LossReason)


def _block(command: click.Command, name: str) -> str:
    context = click.Context(
        command,
        info_name=name,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```"


def _type(name: str) -> str:
    return "string" if name.startswith("dictionary") else name
