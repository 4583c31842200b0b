"""Alerts, costs and panels of the chart, asked of Prometheus itself: promtool runs the rules on invented series."""

import json
import subprocess

import pytest
import yaml
from servers.processes import need

from deploy.chart import render

PRICES = ("monitoring.prices.cpuHour=4", "monitoring.prices.memoryGiBHour=1", "monitoring.prices.gpuHour=250")


@pytest.fixture(scope="module")
def promtool():
    need(["promtool"], "prometheus")
    return "promtool"


@pytest.fixture(scope="module")
def rendered():
    return render(["kind"], "monitoring.enabled=true", *PRICES)


@pytest.fixture(scope="module")
def rules(rendered, tmp_path_factory):
    (spec,) = (resource["spec"] for resource in rendered if resource["kind"] == "PrometheusRule")
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def run(promtool, *arguments):
    return subprocess.run([promtool, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=120)


def in_prometheus(promtool, rules, series, *, every="1m", **questions):
    """Let Prometheus run the rules on series (name -> values in its short form), and check what is then true."""
    given = [{"series": name, "values": values} for name, values in series.items()]
    path = rules.with_name("question.yaml")
    test = {"interval": every, "input_series": given, **questions}
    path.write_text(yaml.safe_dump({"rule_files": [rules.name], "evaluation_interval": every, "tests": [test]}))
    done = run(promtool, "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def fires(minute, alert, *, is_raised):
    """Expect that an alert is raised at a minute, whatever its words, or that it is not."""
    expression = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)'
    samples = [{"labels": "{}", "value": int(is_raised)}]
    return {"promql_expr_test": [{"expr": expression, "eval_time": f"{minute}m", "exp_samples": samples}]}


def test_prometheus_takes_all_rules_and_all_questions_of_the_dashboard(promtool, rules, rendered, tmp_path):
    done = run(promtool, "check", "rules", rules)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 rules found" in done.stdout
    (text,) = (r["data"]["calfin-cloud.json"] for r in rendered if r["metadata"]["name"] == "calfin-grafana")
    asked = [target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]]
    asked = [{"record": f"panel:number:{n}", "expr": e.replace("$namespace", "ice")} for n, e in enumerate(asked)]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}))
    done = run(promtool, "check", "rules", tmp_path / "panels.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(asked)} rules found" in done.stdout


@pytest.mark.parametrize(("days", "is_raised"), [(8, False), (10, True)])
def test_a_store_that_is_quiet_too_long_is_told(promtool, rules, days, is_raised):
    # Written at second 0, and the clock of a test of promtool begins there too.
    series = {'calfin_last_written_timestamp_seconds{namespace="ice"}': f"0x{days * 24}"}
    question = fires(days * 24 * 60, "CalfinNothingWritten", is_raised=is_raised)
    in_prometheus(promtool, rules, series, every="1h", **question)


@pytest.mark.parametrize(
    ("failed", "namespace", "is_raised"), [(4, "ice", False), (40, "ice", True), (40, "sea", False)]
)
def test_many_failed_scenes_of_this_namespace_are_told(promtool, rules, failed, namespace, is_raised):
    series = {
        f'calfin_scenes{{namespace="{namespace}", state="{state}"}}': f"{n}x90"
        for state, n in {"front": 100 - failed, "failed": failed}.items()
    }
    in_prometheus(promtool, rules, series, **fires(80, "CalfinManyScenesFailed", is_raised=is_raised))


@pytest.mark.parametrize(("told", "is_raised"), [("1x60", False), ("0x60", True), ("1x5 _x55", True)])
def test_a_store_that_cannot_be_read_or_an_exporter_that_is_gone_is_told(promtool, rules, told, is_raised):
    series = {'calfin_store_up{namespace="ice"}': told}
    in_prometheus(promtool, rules, series, **fires(50, "CalfinStoreUnreadable", is_raised=is_raised))


@pytest.mark.parametrize(("job", "is_raised"), [("calfin-weekly-1", True), ("other-weekly-1", False)])
def test_a_failed_run_of_this_release_is_told_and_no_other(promtool, rules, job, is_raised):
    series = {f'kube_job_status_failed{{namespace="ice", job_name="{job}"}}': "1x9"}
    in_prometheus(promtool, rules, series, **fires(5, "CalfinRunFailed", is_raised=is_raised))


def test_what_a_run_costs_an_hour_is_that_of_its_running_pods_alone(promtool, rules):
    asked = {"cpu": 4, "memory": 8 * 2**30, "nvidia_com_gpu": 1}
    pods = {"calfin-weekly-28927537-worker-3f2a": 1, "calfin-weekly-28927537-worker-done": 0}
    series = {
        f'kube_pod_container_resource_requests{{namespace="ice", pod="{pod}", resource="{what}"}}': f"{n}x9"
        for pod in pods
        for what, n in asked.items()
    } | {
        f'kube_pod_status_phase{{namespace="ice", pod="{pod}", phase="Running"}}': f"{running}x9"
        for pod, running in pods.items()
    }  # fmt: skip
    labels = 'calfin:run_cost_per_hour{namespace="ice", run="weekly-28927537"}'
    samples = [{"labels": labels, "value": 4 * 4 + 8 * 1 + 250}]
    question = {"expr": "calfin:run_cost_per_hour", "eval_time": "5m", "exp_samples": samples}
    in_prometheus(promtool, rules, series, promql_expr_test=[question])
