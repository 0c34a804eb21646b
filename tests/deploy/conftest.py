"""Tests of what is shipped for clusters that need programs but no cluster: helm, promtool, lua."""

from __future__ import annotations

from tests.cluster.left_out import LEFT_OUT

collect_ignore_glob = ["test_*.py"] if LEFT_OUT else []
