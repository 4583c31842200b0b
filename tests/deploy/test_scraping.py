"""A real Prometheus scrapes the real exporter and a real Dask cluster, as the chart's PodMonitor has it.

Its operator would turn the PodMonitor into scrape settings; `settings_of` does that here, and a file names the pods.
"""

import json
import re
import sys
from itertools import chain

import pytest
import requests
import yaml
from distributed import Client
from servers.processes import Processes, free_ports, listens, need
from storing import DOMAIN, LINE, NOON, rows, write

from calfin_cloud import storage
from deploy.chart import everything, pods_in, render

SETTINGS = (["kind"], "monitoring.enabled=true")
OURS = r"\b(?:calfin_\w+|dask_\w+|process_start\w+)(?:\{[^}]*\})?"  # what a question selects of what is scraped


@pytest.fixture(scope="module")
def chart():
    return everything(*SETTINGS)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with a front and a failed scene."""
    store = str(tmp_path_factory.mktemp("stores") / "store")
    storage.open_store(store, crs=DOMAIN.crs, made_by={"model": "a@1"})
    storage.keep_domain(store, DOMAIN)
    storage.add_scenes(store, DOMAIN, {"a": NOON, "b": NOON})
    write(store, "a", line=LINE)
    failed = rows("b").assign(state="failed", reason="unreadable")
    nothing = storage.read_all_tables(store)
    tables = storage.Tables(failed, nothing.rejected[:0], nothing.polygons[:0])
    storage.write_batch(store, tables, {"Store/b": {"id": "b"}}, recipe={"masks": "a", "fronts": "b"})
    return store


@pytest.fixture(scope="module")
def ask(chart, store, tmp_path_factory):
    """Ask a Prometheus that has scraped everything; the pods run as processes, each port of theirs on a free one."""
    need(["prometheus"], "prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    *ports, comm, own = free_ports(5)
    named = {pod: (labels, name, port) for (pod, labels, name), port in zip(pods_of(chart), ports, strict=True)}
    exporter, scheduler, worker = ports
    dask = [sys.executable, "-m", "distributed.cli."]
    with Processes(folder) as processes, storage.hold_lease(store, "map"):
        processes.start(sys.executable, "-m", "calfin_cloud.cli", "status", store, "--serve", str(exporter))
        where = ["--host", "127.0.0.1", "--dashboard-address"]
        processes.start(*dask[:2], "distributed.cli.dask_scheduler", *where, f":{scheduler}", "--port", str(comm))
        processes.wait_for(lambda: listens(comm))
        joins = ["distributed.cli.dask_worker", f"tcp://127.0.0.1:{comm}", "--nthreads", "1", "--no-nanny"]
        processes.start(*dask[:2], *joins, *where, f":{worker}", "--local-directory", str(folder))
        with Client(f"tcp://127.0.0.1:{comm}", set_as_default=False) as client:
            result = client.submit(abs, -1)
            assert result.result() == 1
            address = f"http://127.0.0.1:{exporter}/metrics"
            processes.wait_for(lambda: listens(exporter) and "calfin_scenes{" in requests.get(address, timeout=60).text)
            write_settings(folder, chart, named)
            flags = ["--config.file", f"{folder}/prometheus.yaml", "--storage.tsdb.path", f"{folder}/series"]
            processes.start("prometheus", *flags, "--web.listen-address", f"127.0.0.1:{own}")
            ready = f"http://127.0.0.1:{own}/-/ready"  # it listens before that, and answers 503
            processes.wait_for(lambda: listens(own) and requests.get(ready, timeout=60).ok)

            def ask(what, **more):
                answer = requests.get(f"http://127.0.0.1:{own}/api/v1/{what}", params=more, timeout=60)
                assert answer.ok, answer.text
                return answer.json()["data"]

            processes.wait_for(lambda: len(ask("query", query="up == 1")["result"]) == len(named))
            told = 'ALERTS{alertname="CalfinManyScenesFailed"} unless on() ALERTS{alertname="CalfinStoreUnreadable"}'
            processes.wait_for(lambda: ask("query", query=told)["result"])  # which it is until the first scrape
            yield ask


def pods_of(chart):
    """Pods of the chart that have metrics: name, labels, and the name of their port; two of them a run's."""
    (run,) = (
        resource for resource in chart if resource["kind"] == "DaskJob" and "once" in resource["metadata"]["name"]
    )
    (exporter,) = (resource["spec"]["template"] for resource in chart if resource["kind"] == "Deployment")
    specs = {of: spec for of, spec in pods_in(run) if of != "driver"}
    yield "calfin-exporter-6b8f9c7d5-x2x4z", exporter["metadata"]["labels"], port_of(exporter["spec"])
    for of, spec in specs.items():
        labels = run["metadata"]["labels"] | {"dask.org/component": of}  # as the operator labels them
        yield f"{run['metadata']['name']}-{of}", labels, port_of(spec)


def port_of(spec):
    (container,) = spec["containers"]
    (name,) = (port["name"] for port in container["ports"] if port["name"] != "tcp-comm")
    return name


def write_settings(folder, chart, named):
    """Write what Prometheus's operator would make of the chart's resources, but for the time between two scrapes."""
    (monitor,) = (resource for resource in chart if resource["kind"] == "PodMonitor")
    (rules,) = (resource["spec"] for resource in chart if resource["kind"] == "PrometheusRule")
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    pods = [
        {
            "targets": [f"127.0.0.1:{port}"],
            "labels": {
                "__meta_kubernetes_namespace": "ice",
                "__meta_kubernetes_pod_name": pod,
                "__meta_kubernetes_pod_container_port_name": name,
            }
            | {f"__meta_kubernetes_pod_label_{plain(label)}": value for label, value in labels.items()},
        }
        for pod, (labels, name, port) in named.items()
    ]
    (folder / "pods.json").write_text(json.dumps(pods))
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [settings_of(monitor["spec"], n) for n in range(len(monitor["spec"]["podMetricsEndpoints"]))],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))


def settings_of(monitor, number):
    """Settings of an endpoint of a PodMonitor."""
    endpoint, kept = monitor["podMetricsEndpoints"][number], monitor["selector"]["matchLabels"]
    keeping = {f"__meta_kubernetes_pod_label_{plain(label)}": value for label, value in kept.items()}
    keeping["__meta_kubernetes_pod_container_port_name"] = endpoint["port"]
    copied = {"__meta_kubernetes_namespace": "namespace", "__meta_kubernetes_pod_name": "pod"}
    copied |= {f"__meta_kubernetes_pod_label_{plain(label)}": plain(label) for label in monitor["podTargetLabels"]}
    return {
        "job_name": f"podMonitor/{number}",
        "metrics_path": endpoint["path"],
        "file_sd_configs": [{"files": ["pods.json"]}],
        "relabel_configs": [
            *({"action": "keep", "source_labels": [name], "regex": value} for name, value in keeping.items()),
            *({"source_labels": [name], "target_label": label, "regex": "(.+)"} for name, label in copied.items()),
        ],
    }


def plain(label):
    """Name of a label of Kubernetes in Prometheus."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def panels():
    (text,) = (r["data"]["calfin-cloud.json"] for r in render(*SETTINGS) if r["metadata"]["name"] == "calfin-grafana")
    return {
        panel["title"]: [t["expr"].replace("$namespace", "ice") for t in panel["targets"]]
        for panel in json.loads(text)["panels"]
    }


def test_every_pod_with_metrics_is_scraped_and_told_apart_by_run_and_component(ask):
    targets = ask("targets")["activeTargets"]
    assert {target["health"] for target in targets} == {"up"}
    found = {(t["labels"]["pod"].split("-")[1], t["labels"].get("dask_org_component", "")) for t in targets}
    assert found == {("exporter", ""), ("once", "scheduler"), ("once", "worker")}
    assert {t["labels"].get("calfin_cloud_run", "") for t in targets} == {"", "once"}


def test_every_panel_of_the_dashboard_has_an_answer(ask):
    asked = {title: of for title, of in panels().items() if "Money" not in title}  # which asks kube-state-metrics
    assert {title for title, of in asked.items() for e in of if not ask("query", query=e)["result"]} == set()
    assert ask("label/namespace/values", **{"match[]": "calfin_store_up"}) == ["ice"]


def test_all_that_rules_and_panels_ask_of_our_pods_is_there(ask):
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    asked = [rule["query"] for rule in rules] + list(chain.from_iterable(panels().values()))
    selected = {found for expression in asked for found in re.findall(OURS, expression)}
    assert len(selected) >= 10
    assert {what for what in selected if not ask("query", query=what)["result"]} == set()


def test_the_alert_of_failed_scenes_waits_and_no_other_is_raised(ask):
    """Half of the scenes of this store have failed."""
    alerts = {a["labels"]["alertname"]: a["state"] for a in ask("alerts")["alerts"]}
    assert alerts == {"CalfinManyScenesFailed": "pending"}
