"""The Grafana dashboard and the alerts ask for metrics that exist, and Grafana can draw them."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/portforge"
BOARD = json.loads((ROOT / "deploy/grafana/portforge.json").read_text())
METRICS = {
    *("events_total", "rows_total", "losses_total", "drain_seconds_bucket", "map_entries"),
    *("map_capacity", "connections_total", "program_ns_per_run", "program_runs_total"),
    *("watch_synced", "watch_age_seconds", "policies", "policy_pods", "policies_not_in_force"),
    *("canary_age_seconds", "break_glass", "agent_info"),
    *("ship_files_total", "ship_pending_files", "ship_age_seconds"),
}


def expressions():
    return [t["expr"] for panel in BOARD["panels"] for t in panel["targets"]]


def asked(text):
    return set(re.findall(r"\bportforge_([a-z_]+)", text))


def test_every_metric_asked_for_is_one_of_the_agents():
    for text in (*expressions(), (CHART / "files/alerts.yaml").read_text()):
        assert asked(text) <= METRICS, text


def test_every_metric_of_the_agent_is_shown_somewhere():
    shown = set().union(*map(asked, expressions()))
    shown |= asked((CHART / "files/alerts.yaml").read_text())
    assert shown == METRICS


def test_the_agent_has_these_metrics():
    """Read from the source: what the agent registers is what is asked for here."""
    assert importlib.util.find_spec("portforge_recorder.metrics"), "the agent has no metrics"
    source = (ROOT / "recorder/portforge_recorder/metrics.py").read_text()
    for name in METRICS:
        plain = re.sub(r"_(total|bucket|info)$", "", name)
        assert re.search(rf"[\"'](portforge_)?{plain}(_total|_info)?[\"']", source), name


def test_panels_have_unique_ids_and_do_not_overlap():
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    cells = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not own & cells, panel["title"]
        cells |= own


@pytest.mark.parametrize("panel", BOARD["panels"], ids=lambda p: p["title"])
def test_a_panel_is_whole(panel):
    assert panel["type"] in {"stat", "timeseries", "table"}
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        assert target["refId"]
        assert target["expr"].count("(") == target["expr"].count(")")
        by = re.findall(r"by \(([^)]*)\)", target["expr"])
        legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert not legend or legend <= {w.strip() for words in by for w in words.split(",")}


def test_variables_used_are_defined():
    defined = {v["name"] for v in BOARD["templating"]["list"]} | {"__rate_interval", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD))) <= defined
    assert {"uid", "title", "schemaVersion", "panels", "time", "templating"} <= set(BOARD)


def test_promql_parses(tmp_path):
    """promtool reads every expression as a recording rule; Grafana's variables filled in."""
    filled = [
        e.replace("$__rate_interval", "5m").replace("$node", ".*").replace("$", "")
        for e in expressions()
    ]
    rules = [{"record": f"panel:{n}", "expr": e} for n, e in enumerate(filled)]
    file = tmp_path / "panels.json"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_json_is_what_the_script_writes():
    script = [sys.executable, str(ROOT / "scripts/dashboard.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
