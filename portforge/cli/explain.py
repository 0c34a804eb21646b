"""``portforge explain``: policies in sentences. The words are in portforge.policy."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pandas as pd

EPILOG = """\b
Examples:
  portforge explain policies/shop/deployment-web.yaml
  portforge explain policies/ --evidence evidence.parquet
"""


def _evidence(file: Path) -> pd.DataFrame:
    from portforge.errors import CaptureError

    try:
        return pd.read_parquet(file)
    except FileNotFoundError:
        raise CaptureError("no such file", place=str(file), remedy="check the path") from None
    except OSError as wrong:
        raise CaptureError(
            f"cannot be read: {(wrong.strerror or 'not a Parquet file').lower()}",
            place=str(file),
            remedy="give the evidence.parquet that portforge recommend wrote",
        ) from wrong
    except ValueError as wrong:
        raise CaptureError(
            "is not a Parquet file",
            place=str(file),
            remedy="give the evidence.parquet that portforge recommend wrote",
        ) from wrong


@click.command(epilog=EPILOG, short_help="Say what policies do, in sentences.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--evidence",
    type=click.Path(path_type=Path),
    help="The evidence.parquet of recommend: adds what was seen to each rule.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(path: Path, evidence: Path | None, as_json: bool) -> None:
    """Say in sentences what the policies in PATH allow, and what each rule was learned from."""
    from portforge.policy import explain, read_policies

    policies = read_policies(path)
    frame = None if evidence is None else _evidence(evidence)
    told = [(f"{p.namespace}/{p.name}", explain(p, frame)) for p in policies]
    if as_json:
        content = [{"policy": name, "explanation": text} for name, text in told]
        click.echo(json.dumps({"schema": 1, "policies": content}, indent=2, ensure_ascii=False))
    else:
        click.echo("\n\n".join(text for _, text in told))
