"""Whether the evidence behind a policy was enough, as ``report.json`` of ``recommend`` says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portforge.errors import PolicyError
from portforge.schema import Workload

__all__ = ["Readiness", "find_report", "read_report"]

_NAME = "report.json"
_UPWARDS = 4


@dataclass(frozen=True)
class Readiness:
    """Status of one workload (``ready``, ``learning``, ``dynamic``, ``insufficient``) and why."""

    status: str
    reasons: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether the evidence is enough."""
        return self.status == "ready"


def find_report(path: Path) -> Path | None:
    """The nearest ``report.json``: in ``path``, beside it, or in a few folders above."""
    folder = path.resolve()
    for place in [folder, *folder.parents][:_UPWARDS]:
        if (place / _NAME).is_file():
            return place / _NAME
    return None


def _readiness(entry: dict[str, Any]) -> tuple[Workload, Readiness]:
    owner = Workload(entry["namespace"], entry["workload_kind"], entry["workload"])
    return owner, Readiness(str(entry["status"]), tuple(map(str, entry.get("reasons", ()))))


def read_report(file: Path) -> dict[Workload, Readiness]:
    """Readiness of every workload in a report.

    Raises
    ------
    PolicyError: not a report of ``recommend``, or of another version.
    """
    try:
        content = json.loads(file.read_bytes())
        if content["schema"] != 1:
            raise ValueError(content["schema"])
        return dict(_readiness(entry) for entry in content["workloads"])
    except OSError as wrong:
        raise PolicyError(
            f"cannot be read: {(wrong.strerror or str(wrong)).lower()}",
            place=str(file),
            remedy="check the path and its permissions",
        ) from wrong
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise PolicyError(
            "is not a report of portforge recommend (schema 1)",
            place=str(file),
            remedy="run portforge recommend again, or move the file away",
        ) from wrong
