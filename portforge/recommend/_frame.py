"""A capture whose rows are in a DataFrame, so that a part of one can be learned from. No files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from portforge.capture import Capture
from portforge.capture._files import Files
from portforge.errors import CaptureError
from portforge.schema import FLOW_SCHEMA, LOSS_SCHEMA

__all__ = ["FrameCapture"]

_PLACE = "DataFrame"
_KEPT = [pa.field("cluster", pa.string()), pa.field("date", pa.date32())]


class FrameCapture(Capture):
    """The rows of ``flows``, checked and asked as those of a capture on disk.

    Parameters
    ----------
    flows: rows of contract 1, as ``Capture.flows()`` gives them; a ``cluster`` column is not
        needed.
    losses: as ``Capture.losses()`` gives them. None: nothing is known to be lost.

    Raises
    ------
    CaptureError: no rows, a column of contract 1 is missing, or rows that cannot be true.
    """

    def __init__(self, flows: pd.DataFrame, losses: pd.DataFrame | None = None) -> None:
        self._flow_table = _table(flows, FLOW_SCHEMA)
        self._loss_table = _table(losses, LOSS_SCHEMA)
        super().__init__(Files(Path(_PLACE), (), ()))

    def _views(self) -> None:
        for name, table in (("flow", self._flow_table), ("loss", self._loss_table)):
            self._db.register(f"{name}_table", table)
            self._db.execute(
                f"CREATE VIEW {name}_rows AS SELECT *, '{_PLACE}' AS filename FROM {name}_table"  # noqa: S608
            )
        self._db.execute("CREATE VIEW flows AS SELECT * EXCLUDE (filename) FROM flow_rows")
        self._db.execute("CREATE VIEW losses AS SELECT * EXCLUDE (filename) FROM loss_rows")


def _table(frame: pd.DataFrame | None, contract: pa.Schema) -> pa.Table:
    """The frame in the contract's types; dictionaries become plain text."""
    fields = [
        pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
        for f in contract
    ]
    schema = pa.schema([*fields, *_KEPT])
    if frame is None:
        return schema.empty_table()
    missing = [name for name in contract.names if name not in frame.columns]
    if missing:
        raise CaptureError(
            f"lacks the columns {', '.join(missing)}",
            place=_PLACE,
            remedy="give the frame that Capture.flows() returns",
        )
    if "cluster" not in frame.columns:
        frame = frame.assign(cluster="unknown")
    if "date" not in frame.columns:
        frame = frame.assign(date=None)
    text = [c for c in schema.names if isinstance(frame[c].dtype, pd.CategoricalDtype)]
    try:
        return pa.Table.from_pandas(
            frame.astype(dict.fromkeys(text, object)), schema=schema, preserve_index=False
        )
    except (pa.ArrowException, TypeError, ValueError) as wrong:
        raise CaptureError(
            f"a column is not of its type ({str(wrong).splitlines()[0]})",
            place=_PLACE,
            remedy="give the frame that Capture.flows() returns",
        ) from None
