"""The alert rules, judged by promtool: each fires on a bad series and is silent on a good one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/helm/portforge/files/alerts.yaml"
NODE = 'node="a"'
DENIED = f'portforge_connections_total{{{NODE},verdict="denied"}}'
UP = f'up{{job="portforge",{NODE}}}'
LOST = f'portforge_losses_total{{{NODE},reason="flows_full"}}'
CANARY = f"portforge_canary_age_seconds{{{NODE}}}"
AGE = f'portforge_watch_age_seconds{{{NODE},resource="pods"}}'
SYNCED = f'portforge_watch_synced{{{NODE},resource="pods"}}'
NOT_IN_FORCE = f"portforge_policies_not_in_force{{{NODE}}}"
SHIP_AGE = f"portforge_ship_age_seconds{{{NODE}}}"
BREAK_GLASS = f"portforge_break_glass{{{NODE}}}"


def entries(values: str) -> dict[str, str]:
    labels = f'{{{NODE},map="flows"}}'
    return {
        f"portforge_map_entries{labels}": values,
        f"portforge_map_capacity{labels}": "65536x40",
    }


def drains(quick: str, slow: str) -> dict[str, str]:
    name = "portforge_drain_seconds_bucket"
    return {
        f'{name}{{{NODE},le="1"}}': quick,
        f'{name}{{{NODE},le="10"}}': slow,
        f'{name}{{{NODE},le="+Inf"}}': slow,
    }


# alert, series a minute apart, minute, whether it fires
CASES = [
    ("PortforgeAgentDown", {UP: "1x5 0x10"}, "10m", True),
    ("PortforgeAgentDown", {UP: "1x5 0x1 1x10"}, "10m", False),
    ("PortforgeAgentDown", {'up{job="other",node="a"}': "0x20"}, "10m", False),
    ("PortforgeAgentsAbsent", {'up{job="other",node="a"}': "1x20"}, "10m", True),
    ("PortforgeAgentsAbsent", {UP: "1x20"}, "10m", False),
    ("PortforgeNotEnforcing", {NOT_IN_FORCE: "0x5 2x10"}, "10m", True),
    ("PortforgeNotEnforcing", {NOT_IN_FORCE: "0x5 1x1 0x10"}, "10m", False),
    ("PortforgeDenials", {DENIED: "0x5 1+1x10"}, "9m", True),
    ("PortforgeDenials", {DENIED: "7x20"}, "15m", False),
    (
        "PortforgeDenials",
        {f'portforge_connections_total{{{NODE},verdict="allowed"}}': "0+50x20"},
        "15m",
        False,
    ),
    ("PortforgeLosses", {LOST: "0x5 12x5"}, "7m", True),
    ("PortforgeLosses", {LOST: "12x40"}, "30m", False),
    ("PortforgeCanaryStale", {CANARY: "10x5 200x10"}, "10m", True),
    ("PortforgeCanaryStale", {CANARY: "10 60 120 179 10 60 120 179 10"}, "8m", False),
    ("PortforgeWatchStale", {AGE: "400x20", SYNCED: "1x20"}, "10m", True),
    ("PortforgeWatchStale", {AGE: "10x20", SYNCED: "0x20"}, "10m", True),
    ("PortforgeWatchStale", {AGE: "75x20", SYNCED: "1x20"}, "10m", False),
    ("PortforgeMapNearlyFull", entries("60000x40"), "10m", True),
    ("PortforgeMapNearlyFull", entries("30000x40"), "10m", False),
    ("PortforgeBreakGlass", {BREAK_GLASS: "0x5 1x5"}, "7m", True),
    ("PortforgeBreakGlass", {BREAK_GLASS: "1x5 0x5"}, "10m", False),
    ("PortforgeDrainSlow", drains("0x40", "0+6x40"), "35m", True),
    ("PortforgeDrainSlow", drains("0+6x40", "0+6x40"), "35m", False),
    ("PortforgeShippingStuck", {SHIP_AGE: "0x5 4000+60x10"}, "12m", True),
    ("PortforgeShippingStuck", {SHIP_AGE: "0 60 300 3500 0 4000 0 0 0 0 0"}, "8m", False),
]


def rules():
    (group,) = YAML(typ="safe").load(RULES)["groups"]
    return group["rules"]


def promtool(*words):
    found = shutil.which("promtool")
    assert found, "apt-get install --no-install-recommends prometheus"
    return subprocess.run([found, *words], capture_output=True, text=True, check=False)


def test_promtool_takes_the_rules():
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@pytest.mark.parametrize("fires", [True, False], ids=["bad", "good"])
def test_each_fires_on_a_bad_series_and_not_on_a_good_one(tmp_path, fires):
    tests = []
    for alert, series, at, firing in CASES:
        if firing is not fires:
            continue
        expression = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
        samples = [{"labels": "{}", "value": 1}] if fires else []
        tests.append(
            {
                "interval": "1m",
                "name": f"{alert} at {at}",
                "input_series": [{"series": s, "values": v} for s, v in series.items()],
                "promql_expr_test": [{"expr": expression, "eval_time": at, "exp_samples": samples}],
            }
        )
    file = tmp_path / "alerts.json"  # JSON is YAML
    file.write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests})
    )
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_good_and_a_bad_series():
    both = {(alert, fires) for alert, _, _, fires in CASES}
    for rule in rules():
        assert {(rule["alert"], True), (rule["alert"], False)} <= both


@pytest.mark.parametrize("rule", rules(), ids=lambda r: r["alert"])
def test_an_alert_says_what_it_is_and_where_to_read_on(rule):
    notes = rule["annotations"]
    assert notes["summary"].endswith(".")
    assert notes["description"].endswith(".")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    page, anchor = notes["runbook"].split("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
