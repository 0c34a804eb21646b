"""Write the Grafana dashboard: panels said in a table, JSON made of it. Not for the alerts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "deploy/helm/portforge/files/dashboard.json"
"""In the chart, because Helm reads no file outside; deploy/grafana has a link to it."""
_NODE = '{node=~"$node"}'

STATS = (
    ("Agents that answer", 'sum(up{job="portforge"})', "short", None),
    ("Agents that do not", 'count(up{job="portforge"} == 0) or vector(0)', "short", 1),
    ("Policies asked for and not enforced", "sum(portforge_policies_not_in_force)", "short", 1),
    ("Oldest canary", "max(portforge_canary_age_seconds)", "s", 180),
    ("Break-glass, nodes", "sum(portforge_break_glass)", "short", 1),
    ("Losses, 1 h", "sum(increase(portforge_losses_total[1h]))", "short", 1),
)
GRAPHS = (
    (
        "Connections by verdict",
        f"sum by (verdict) (rate(portforge_connections_total{_NODE}[$__rate_interval]))",
        "{{verdict}}",
        "cps",
    ),
    (
        "Denied by node",
        'sum by (node) (rate(portforge_connections_total{node=~"$node", verdict="denied"}'
        "[$__rate_interval]))",
        "{{node}}",
        "cps",
    ),
    ("Policies by mode", f"max by (mode) (portforge_policies{_NODE})", "{{mode}}", "short"),
    (
        "Pods under a policy, by mode",
        f"sum by (mode) (portforge_policy_pods{_NODE})",
        "{{mode}}",
        "short",
    ),
    (
        "Losses by reason",
        f"sum by (reason) (increase(portforge_losses_total{_NODE}[$__rate_interval]))",
        "{{reason}}",
        "short",
    ),
    (
        "Map fill",
        f"max by (map) (portforge_map_entries{_NODE} / portforge_map_capacity{_NODE})",
        "{{map}}",
        "percentunit",
    ),
    (
        "Events read from the kernel",
        f"sum(rate(portforge_events_total{_NODE}[$__rate_interval]))",
        "events",
        "cps",
    ),
    (
        "Rows written",
        f"sum by (node) (rate(portforge_rows_total{_NODE}[$__rate_interval]))",
        "{{node}}",
        "cps",
    ),
    (
        "Drain, 99th percentile",
        "histogram_quantile(0.99, sum by (node, le) "
        f"(rate(portforge_drain_seconds_bucket{_NODE}[$__rate_interval])))",
        "{{node}}",
        "s",
    ),
    (
        "Age of the watches",
        f"max by (resource) (portforge_watch_age_seconds{_NODE})",
        "{{resource}}",
        "s",
    ),
    (
        "Time a program run takes",
        f"max by (program) (portforge_program_ns_per_run{_NODE})",
        "{{program}}",
        "ns",
    ),
    (
        "Runs of the programs",
        f"sum by (program) (rate(portforge_program_runs_total{_NODE}[$__rate_interval]))",
        "{{program}}",
        "ops",
    ),
    (
        "Files that the object store lacks",
        f"max by (node) (portforge_ship_pending_files{_NODE})",
        "{{node}}",
        "short",
    ),
    (
        "Files brought to the object store",
        f"sum by (node) (rate(portforge_ship_files_total{_NODE}[$__rate_interval]))",
        "{{node}}",
        "cps",
    ),
)
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _target(expression: str, legend: str = "", *, table: bool = False) -> dict[str, Any]:
    form = {"format": "table", "instant": True} if table else {"format": "time_series"}
    return {
        "refId": "A",
        "datasource": _SOURCE,
        "expr": expression,
        "legendFormat": legend,
        **form,
    }


def _panel(number: int, kind: str, title: str, at: tuple[int, int, int, int]) -> dict[str, Any]:
    x, y, width, height = at
    return {
        "id": number,
        "type": kind,
        "title": title,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
    }


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    for column, (title, expression, unit, bad) in enumerate(STATS):
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        if bad is not None:
            steps.append({"color": "red", "value": bad})
        panels.append(
            {
                **_panel(len(panels) + 1, "stat", title, (column * 4, 0, 4, 4)),
                "targets": [_target(expression)],
                "fieldConfig": {
                    "defaults": {
                        "unit": unit,
                        "thresholds": {"mode": "absolute", "steps": steps},
                    },
                    "overrides": [],
                },
                "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"},
            }
        )
    for place, (title, expression, legend, unit) in enumerate(GRAPHS):
        at = (12 * (place % 2), 4 + 8 * (place // 2), 12, 8)
        panels.append(
            {
                **_panel(len(panels) + 1, "timeseries", title, at),
                "targets": [_target(expression, legend)],
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "options": {"tooltip": {"mode": "multi", "sort": "desc"}},
            }
        )
    below = 4 + 8 * ((len(GRAPHS) + 1) // 2)
    panels.append(
        {
            **_panel(len(panels) + 1, "table", "Versions", (0, below, 24, 6)),
            "targets": [_target("count by (version, programs) (portforge_agent_info)", table=True)],
            "fieldConfig": {"defaults": {}, "overrides": []},
            "options": {},
        }
    )
    return panels


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "uid": "portforge",
        "title": "Port Policy Forge",
        "tags": ["portforge"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource"}
                | {"query": "prometheus", "current": {}, "hide": 0},
                {
                    "name": "node",
                    "label": "Node",
                    "type": "query",
                    "datasource": _SOURCE,
                    "query": "label_values(portforge_agent_info, node)",
                    "includeAll": True,
                    "multi": True,
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                    "refresh": 2,
                    "sort": 1,
                },
            ]
        },
        "annotations": {"list": []},
        "panels": _panels(),
    }


def main() -> int:
    """Write it, or with --check say whether it is as this would write it."""
    text = json.dumps(dashboard(), indent=2) + "\n"
    if "--check" not in sys.argv:
        TARGET.write_text(text)
    elif not TARGET.exists() or TARGET.read_text() != text:
        print(f"{TARGET.relative_to(ROOT)} is not up to date: run scripts/dashboard.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
