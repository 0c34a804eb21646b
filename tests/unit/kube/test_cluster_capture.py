"""What is missing here of what an agent has; nothing it says leads out of the folder."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from portforge.errors import ClusterError
from portforge.kube.capture import listed, missing

PATH = "v1/cluster=c/date=2026-11-25/node-a-1-0.parquet"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "v1/cluster=c/date=2026-11-25/../../../x.parquet",
        "v1/cluster=../date=2026-11-25/../x.parquet",
        "v1/cluster=c/date=2026-11-25/.x.parquet",
        "v2/cluster=c/date=2026-11-25/x.parquet",
        "v1/cluster=c/date=2026-11-25/x.sh",
    ],
)
def test_a_path_that_leads_out_is_refused(path):
    with pytest.raises(ClusterError, match="that no capture has"):
        listed({"files": [{"path": path, "size": 1}]}, "node-a")


def test_only_whole_files_count_as_here(tmp_path):
    files = listed({"files": [{"path": PATH, "size": 4}]}, "node-a")
    assert missing(files, tmp_path, None, None) == files
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).write_bytes(b"abc")
    assert missing(files, tmp_path, None, None) == files
    (tmp_path / PATH).write_bytes(b"abcd")
    assert missing(files, tmp_path, None, None) == []


def test_files_outside_the_time_asked_for_stay_there(tmp_path):
    entry = {"path": PATH, "size": 4, "modified": "2026-11-25T12:00:00Z"}
    files = listed({"files": [entry]}, "node-a")

    def asked(since: datetime | None, until: datetime | None) -> bool:
        return bool(missing(files, tmp_path, since, until))

    assert asked(datetime(2026, 11, 25, 11, tzinfo=UTC), None)
    assert not asked(datetime(2026, 11, 25, 13, tzinfo=UTC), None)
    assert asked(None, datetime(2026, 11, 25, 1, tzinfo=UTC))
    assert not asked(None, datetime(2026, 11, 24, 23, tzinfo=UTC))
