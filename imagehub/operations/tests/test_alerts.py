"""The alert rules, the page of metrics and the handbook speak of the same things."""

import re
import shutil
import subprocess

import pytest
import yaml
from django.conf import settings
from django.core.cache import cache

from imagehub.operations import metrics, tallies
from imagehub.operations.models import Tally

FOLDER = settings.BASE_DIR / "deploy" / "prometheus"
RULES = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
HANDBOOK = (settings.BASE_DIR / "docs" / "operations.md").read_text()

SUFFIXES = re.compile("_(bucket|sum|count)$")


@pytest.fixture
def families(db) -> set[str]:
    """Every metric that a page can have."""
    for unit in ("images", "steps", "pages"):  # they are there once a job has made some
        Tally.objects.create(kind="errand", measure=tallies.DONE, label=unit)
    cache.delete(metrics.PAGE_KEY)
    return set(re.findall(r"^# TYPE (\w+)", metrics.page().decode(), re.MULTILINE))


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bimagehub_\w+", text))


@pytest.mark.once
def test_rules_ask_for_metrics_that_exist(families):
    asked = {SUFFIXES.sub("", name) for rule in RULES for name in names_in(rule["expr"])}

    assert len(asked) > 10
    assert asked <= families


@pytest.mark.once
def test_the_handbook_explains_every_metric_and_no_other(families):
    section = HANDBOOK.partition("\n## Metrics and alerts\n")[2].partition("\n## ")[0]

    assert {SUFFIXES.sub("", name) for name in names_in(section)} == families


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_leads_to_its_place_in_the_handbook_and_has_a_test(rule):
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = {heading.lower() for heading in re.findall(r"^#### (\w+)$", HANDBOOK, re.MULTILINE)}
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    fired = {
        case["alertname"] for test in tests for case in test.get("alert_rule_test", ()) if case["exp_alerts"]
    }

    assert page == "docs/operations.md"
    assert anchor == rule["alert"].lower()
    assert anchor in headings
    assert rule["alert"] in fired


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "command",
    ["check rules alerts.yml", "test rules alerts_test.yml", "check config --syntax-only prometheus.yml"],
)
def test_prometheus_own_tool_accepts_them(command):
    said = subprocess.run(
        ["promtool", *command.split()], cwd=FOLDER, capture_output=True, text=True, check=False
    )

    assert said.returncode == 0, said.stdout + said.stderr
