"""The result of ``recommend``: shows itself, and writes itself so that nothing is half-written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from portforge.errors import WriteError
from portforge.policy import PortPolicy, write_policies
from portforge.recommend._evidence import EVIDENCE
from portforge.recommend._findings import FINDINGS

__all__ = ["Recommendation"]

_OURS = {"policies", "evidence.parquet", "findings.parquet", "report.json"}


@dataclass(frozen=True)
class Recommendation:
    """Policies, the evidence for each rule, the findings, and the report as JSON data.

    ``evidence`` is keyed by namespace, policy and rule; ``findings`` says what was left out or
    is to be looked at, and why; ``report`` is what ``report.json`` holds.
    """

    policies: list[PortPolicy]
    evidence: pd.DataFrame
    findings: pd.DataFrame
    report: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"Recommendation({len(self.policies)} policies, {len(self.evidence)} rules, "
            f"{len(self.findings)} findings)"
        )

    def _repr_html_(self) -> str:
        shown = ["namespace", "workload", "rule", "peers", "connections", "confidence", "reason"]
        return str(self.evidence[shown].to_html(index=False))

    def write(self, folder: str | Path, *, replace: bool = False) -> None:
        """Write ``policies/``, ``evidence.parquet``, ``findings.parquet`` and ``report.json``.

        All or nothing: written beside ``folder`` under another name, then renamed. An existing
        folder is replaced only where it is empty or holds an earlier recommendation as it was
        written: policies approved, edited or removed since are the analyst's, and stay unless
        ``replace`` is given.

        Raises
        ------
        WriteError: the folder holds something else, or cannot be written.
        """
        target = Path(folder).absolute()
        _check_target(target, replace)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        except OSError as wrong:
            raise _failed(target, wrong) from None
        try:
            new = work / "new"
            new.mkdir()
            self._write_into(new)
            _swap(new, target, work / "old")
        except WriteError as wrong:  # names the temporary place; the analyst knows only the target
            cause = wrong.__cause__
            raise _failed(target, cause if isinstance(cause, OSError) else wrong) from None
        except OSError as wrong:
            raise _failed(target, wrong) from None
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _write_into(self, folder: Path) -> None:
        (folder / "policies").mkdir()
        write_policies(self.policies, folder / "policies")
        for name, frame, schema in (
            ("evidence", self.evidence, EVIDENCE),
            ("findings", self.findings, FINDINGS),
        ):
            table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
            # Without pandas' own metadata: it names versions, and the bytes must not.
            pq.write_table(
                table.replace_schema_metadata(None), folder / f"{name}.parquet", compression="zstd"
            )
        report = {**self.report, "written": _digests(folder / "policies")}
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8")
        for file in folder.glob("*.*"):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def _digests(policies: Path) -> dict[str, str]:
    """SHA-256 of every policy file, to tell later whether anybody touched one."""
    return {
        file.relative_to(policies).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(policies.rglob("*"))
        if file.is_file()
    }


def _check_target(target: Path, replace: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir() or target.is_symlink():
        raise WriteError("is not a folder", place=str(target), remedy="choose another -o")
    try:
        inside = {entry.name for entry in target.iterdir()}
    except OSError as wrong:
        raise _failed(target, wrong) from None
    if not inside:
        return
    report = _earlier_report(target / "report.json")
    if report is None or not inside <= _OURS:
        raise WriteError(
            "holds something other than a recommendation",
            place=str(target),
            remedy="choose another -o, or empty it; it was left untouched",
        )
    if not replace and _digests(target / "policies") != report.get("written"):
        raise WriteError(
            "its policies were approved, edited or removed since they were recommended",
            place=str(target),
            remedy="choose another -o and compare with portforge diff, or say --replace",
        )


def _earlier_report(path: Path) -> dict[str, Any] | None:
    """The report of an earlier recommendation, None where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(found, dict) and found.get("made_by") == "portforge recommend"
    return found if ours else None


def _swap(new: Path, target: Path, old: Path) -> None:
    """Put ``new`` in the place of ``target``; put ``target`` back where that fails."""
    new.chmod(0o755)
    if not target.exists():
        new.rename(target)
        return
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise


def _failed(target: Path, wrong: Exception) -> WriteError:
    why = getattr(wrong, "strerror", None) or str(wrong)
    return WriteError(
        f"cannot be written ({why})",
        place=str(target),
        remedy="make room or check the permissions; nothing was left half-written",
    )
