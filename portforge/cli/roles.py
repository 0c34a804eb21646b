"""``portforge roles``: which workloads behave alike, and who differs. Changes nothing."""

from __future__ import annotations

from pathlib import Path

import click

from portforge.cli._engine import engine_option

EPILOG = """\b
Examples:
  portforge roles capture/
  portforge roles capture/ -o review-roles
  portforge roles capture/ --json | jq '.members[] | select(.differs != "")'

\b
Sign: ! does what no other member of its role does, or not what all others do.
Exit codes: 0 done; 1 an input cannot be used, or policies cannot be written.
"""


@click.command(epilog=EPILOG, short_help="Say which workloads behave alike, and who differs.")
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--since", help="ISO timestamp, or a duration before the capture's end: 30m, 2h, 7d.")
@click.option("--until", help="As --since.")
@click.option(
    "--distance",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="The largest distance between two members of a role; 0: all they do is the same.",
)
@click.option(
    "--decisions",
    type=click.Path(path_type=Path),
    help="YAML file of what must be learned, what never may, and what is sensitive.",
)
@engine_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for the policies of the roles, one for each workload; it must be empty.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(
    capture: Path,
    since: str | None,
    until: str | None,
    distance: float,
    decisions: Path | None,
    engine: str,
    output: Path | None,
    as_json: bool,
) -> None:
    """Group the workloads in CAPTURE by what they serve and call; name each role by that.

    With -o, one policy for each workload: what any member of its role needs. What that
    grants beyond the workload's own needs is printed. Compare with recommend by portforge diff.
    """
    from portforge.capture import open_capture
    from portforge.errors import WriteError
    from portforge.policy import write_policies
    from portforge.recommend import read_decisions, recommend, roles

    if output is not None and output.exists() and (output.is_file() or any(output.iterdir())):
        raise WriteError("is not an empty folder", place=str(output), remedy="choose another -o")
    made = recommend(
        open_capture(capture, since, until, engine),
        since=since,
        until=until,
        decisions=read_decisions(decisions) if decisions else (),
    )
    found = roles(made, distance=distance)
    if output is not None:
        write_policies(found.policies, output)
    click.echo(found.to_json() if as_json else str(found))
