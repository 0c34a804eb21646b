"""Rows of a capture that a person pulled from a real cluster, and whether a wanted one is there."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from portforge.capture import open_capture

from .release import NAMESPACE, Release


def pulled(release: Release, folder: Path, since: float) -> Rows:
    """ana pulls the capture; what happened ``since`` until now, once it is in it."""
    time.sleep(12)  # drained each second, closed each five
    release.portforge("ana", "capture", "pull", "-n", NAMESPACE, "-o", str(folder))
    frame = open_capture(folder).sql("FROM flows")
    return Rows(frame[frame["first_seen"].map(datetime.timestamp) >= since])


@dataclass(frozen=True)
class Rows:
    """Rows of a capture."""

    frame: pd.DataFrame

    def of(self, **columns: object) -> Rows:
        """Those with these values; None is null. No row is an error that tells the near ones."""
        found = self.where(**columns)
        if found.frame.empty:
            near = self.where(
                **{k: v for k, v in columns.items() if k in ("namespace", "workload")}
            )
            shown = near.frame.drop(columns=["first_seen", "last_seen", "rule", "rtt_us"])
            shown = shown.drop_duplicates(["direction", "port", "peer_ip", "pod", "verdict"])
            raise AssertionError(f"no row with {columns}; near:\n{shown.to_string()}")
        return found

    def where(self, **columns: object) -> Rows:
        """Those with these values; there may be none."""
        frame = self.frame
        for name, value in columns.items():
            is_it = frame[name].isna() if value is None else frame[name] == value
            frame = frame[is_it.astype(bool)]
        return Rows(frame)

    def only(self, name: str) -> set[object]:
        """The values of one column."""
        return {None if pd.isna(v) else v for v in self.frame[name].unique()}
