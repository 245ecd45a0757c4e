"""The dashboard and the alerts: their queries are PromQL, over metrics that a run exports."""

from __future__ import annotations

import json
import re

import promql_parser
import pytest
import yaml
from samples import ROOT

from pipeline.ray_data import metrics

FOLDER = ROOT / "infra/observability"
NAME = re.compile(r"\bray_embatch_[a-z_]+")
EXPORTED = {f"ray_{name}_total" for name in (*metrics.COUNTERS, *metrics.BY_LABEL)} | {
    f"ray_{name}" for name in metrics.GAUGES
}


def queries() -> list[str]:
    rules = yaml.safe_load((FOLDER / "embatch.rules.yaml").read_text())
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return alerts + [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("query", queries())
def test_a_query_is_promql_over_metrics_that_exist(query):
    promql_parser.parse(query)
    names = set(NAME.findall(query))
    assert names
    assert names <= EXPORTED


def test_every_metric_is_looked_at():
    assert set(NAME.findall(" ".join(queries()))) == EXPORTED - {"ray_embatch_units_total"}
