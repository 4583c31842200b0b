"""Alerts, costs and panels of the chart, asked of Prometheus itself: promtool runs the rules on invented series."""

import json
import subprocess

import pytest
import yaml
from servers.processes import need

from deploy.chart import render

PRICES = ("monitoring.prices.cpuHour=4", "monitoring.prices.memoryGiBHour=1", "monitoring.prices.gpuHour=250")
EXPORTER = "calfin-exporter-6b8f9c7d5-x2x4z"


@pytest.fixture(scope="module")
def promtool():
    need(["promtool"], "prometheus")
    return "promtool"


@pytest.fixture(scope="module")
def rendered():
    return render(["kind"], "monitoring.enabled=true", "runs.once.when=now", "runs.once.verb=map", *PRICES)


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


@pytest.mark.parametrize(
    ("written", "started", "is_raised"),
    [
        (1, 0, False),
        (1, None, False),
        (10, 0, True),  # an exporter that was started anew changes nothing
        (None, 1, False),  # a new release, whose first run is still to come
        (None, 10, True),
    ],
)
def test_a_store_that_is_quiet_too_long_is_told(promtool, rules, written, started, is_raised):
    ends = 12 * 24  # hours
    ago = {"calfin_last_written_timestamp_seconds": written, "process_start_time_seconds": started}
    series = {
        f'{name}{{namespace="ice", pod="{EXPORTER}"}}': f"{(ends - days * 24) * 3600}x{ends}"
        for name, days in ago.items()
        if days is not None
    }
    question = fires(ends * 60, "CalfinNothingWritten", is_raised=is_raised)
    in_prometheus(promtool, rules, series, every="1h", **question)


def test_a_store_that_was_never_written_is_told_after_days(promtool, rules):
    pod = f'{{namespace="ice", pod="{EXPORTER}"}}'
    series = {f"calfin_last_written_timestamp_seconds{pod}": "0x288", f"process_start_time_seconds{pod}": "1x288"}
    for days, is_raised in ((8, False), (10, True)):
        question = fires(days * 24 * 60, "CalfinNothingWritten", is_raised=is_raised)
        in_prometheus(promtool, rules, series, every="1h", **question)


@pytest.mark.parametrize(
    ("failed", "namespace", "pod", "is_raised"),
    [
        (4, "ice", EXPORTER, False),
        (40, "ice", EXPORTER, True),
        (40, "sea", EXPORTER, False),
        (40, "ice", f"other-{EXPORTER}", False),
    ],
)
def test_many_failed_scenes_of_this_release_are_told(promtool, rules, failed, namespace, pod, is_raised):
    series = {
        f'calfin_scenes{{namespace="{namespace}", pod="{pod}", state="{state}"}}': f"{n}x90"
        for state, n in {"front": 100 - failed, "failed": failed}.items()
    }
    in_prometheus(promtool, rules, series, **fires(80, "CalfinManyScenesFailed", is_raised=is_raised))


@pytest.mark.parametrize(("told", "is_raised"), [("1x60", False), ("0x60", True), ("1x5 _x55", True)])
def test_a_store_that_cannot_be_read_or_an_exporter_that_is_gone_is_told(promtool, rules, told, is_raised):
    series = {
        f'calfin_store_up{{namespace="ice", pod="{EXPORTER}"}}': told,
        f'calfin_store_up{{namespace="ice", pod="other-{EXPORTER}"}}': "1x60",  # another release in this namespace
    }
    in_prometheus(promtool, rules, series, **fires(50, "CalfinStoreUnreadable", is_raised=is_raised))


@pytest.mark.parametrize(
    ("job", "metric", "is_raised"),
    [
        ("calfin-weekly-1", 'kube_job_failed{{{}, condition="true"}}', True),
        ("other-weekly-1", 'kube_job_failed{{{}, condition="true"}}', False),
        ("calfin-x-weekly-1", 'kube_job_failed{{{}, condition="true"}}', False),  # of a release calfin-x
        ("calfin-weekly-1", 'kube_job_failed{{{}, condition="false"}}', False),
        ("calfin-weekly-1", "kube_job_status_failed{{{}}}", False),  # pods: a later try may have succeeded
    ],
)
def test_a_failed_run_of_this_release_is_told_and_no_other(promtool, rules, job, metric, is_raised):
    series = {metric.format(f'namespace="ice", job_name="{job}"'): "1x9"}
    in_prometheus(promtool, rules, series, **fires(5, "CalfinRunFailed", is_raised=is_raised))


def test_what_a_run_costs_an_hour_is_that_of_its_running_pods_alone(promtool, rules):
    runs = {
        "weekly-28927537": [
            "zx8k2",
            "runner",
            "scheduler-6b8f9c7d5-x2x4z",
            "default-worker-0123456789-6b8f9c7d5-x2x4z",
        ],
        "weekly-first": ["zx8k2", "runner"],  # named by hand
        "full-28927537-3": ["gpu-worker-a1b2c3d4e5-6b8f9c7d5-x2x4z"],  # of a shard
        "once-r2": ["runner"],
    }
    running = [f"calfin-{run}-{part}" for run, parts in runs.items() for part in parts]
    others = [EXPORTER, "calfin-try", "other-weekly-28927537-runner", "calfin-x-weekly-28927537-runner"]
    done = ["calfin-weekly-28927537-default-worker-aaaaaaaaaa-6b8f9c7d5-x2x4z"]
    asked = {"cpu": 4, "memory": 8 * 2**30, "nvidia_com_gpu": 1}
    series = {
        f'kube_pod_container_resource_requests{{namespace="ice", pod="{pod}", resource="{what}"}}': f"{n}x9"
        for pod in (*running, *others, *done)
        for what, n in asked.items()
    } | {
        f'kube_pod_status_phase{{namespace="ice", pod="{pod}", phase="Running"}}': f"{int(pod not in done)}x9"
        for pod in (*running, *others, *done)
    }  # fmt: skip
    samples = [
        {
            "labels": f'calfin:run_cost_per_hour{{namespace="ice", run="{run}"}}',
            "value": len(parts) * (4 * 4 + 8 * 1 + 250),
        }
        for run, parts in runs.items()
    ]
    question = {"expr": "calfin:run_cost_per_hour", "eval_time": "5m", "exp_samples": samples}
    in_prometheus(promtool, rules, series, promql_expr_test=[question])
