"""The script that a CronJob starts, with the rights of its Role, against the real operator."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import yaml

from deploy.chart import CHART, render
from deploy.cluster import PATHS, run_kubernetes, wait_until

pytestmark = pytest.mark.slow  # the operator takes seconds for each step
SCRIPT = CHART / "files" / "start.py"


@pytest.fixture
def manifest(tmp_path):
    """The run `weekly` of a release with GPU workers, as its ConfigMap holds it."""
    found = render(["aws", "gpu"], "workers.cpu.replicas=1", "workers.gpu.replicas=1")
    (texts,) = (r["data"] for r in found if r["kind"] == "ConfigMap" and "start.py" in r["data"])
    assert texts["start.py"] == SCRIPT.read_text()
    path = tmp_path / "weekly.yaml"
    path.write_text(texts["weekly.yaml"])
    return path


def start(kubernetes, manifest, job, **more):
    """Run the starter as the pod of a Job does; a second call is the Job's second try."""
    if job not in kubernetes.get("Job"):
        kubernetes.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job}})
    environment = {"JOB_NAME": job, "JOB_UID": uid(kubernetes, "Job", job), "POLL_S": "0.5"} | more
    environment["KUBECONFIG"] = kubernetes.kubeconfig("starter")
    with (kubernetes.folder / f"{job}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, SCRIPT, manifest], env=os.environ | environment, stdout=log, stderr=log
        )


def uid(kubernetes, kind, name):
    return kubernetes.get(kind)[name]["metadata"]["uid"]


def said(kubernetes, job):
    return (kubernetes.folder / f"{job}.log").read_text()


@contextmanager
def started(kubernetes, manifest, job):
    """A starter whose run the operator has made; nothing of it is left behind."""
    starter = start(kubernetes, manifest, job)
    try:
        await_run(kubernetes, job)
        yield starter
    finally:
        starter.kill()
        starter.wait()
        kubernetes.delete("Job", job)
        wait_until(lambda: kubernetes.collect_garbage() or not any(map(kubernetes.get, PATHS)))


def await_run(kubernetes, job):
    """Wait for the driver, the scheduler and a worker of each group: ended earlier, the operator would leave some."""
    wanted = {"default", "gpu", "scheduler"}
    wait_until(
        lambda: (
            f"{job}-runner" in kubernetes.get("Pod")
            and wanted
            == {
                name.removeprefix(f"{job}-").split("-")[0]
                for name in kubernetes.get("Deployment")
                if name.startswith(f"{job}-")
            }
        )
    )


def await_exit(kubernetes, starter):
    """Exit code of a starter, while the garbage is collected beside it."""
    wait_until(lambda: kubernetes.collect_garbage() or starter.poll() is not None)
    return starter.returncode


def test_it_exits_as_the_driver_did_and_the_jobs_keep_the_drivers_logs(kubernetes, manifest):
    codes = (0, 1, 137)
    starters = {code: start(kubernetes, manifest, f"ends-{code}") for code in codes}
    for code in codes:
        await_run(kubernetes, f"ends-{code}")
        kubernetes.end_driver(f"ends-{code}", code)
    assert {code: starter.wait(120) for code, starter in starters.items()} == {code: code for code in codes}
    wait_until(lambda: not kubernetes.get("DaskCluster"))
    kubernetes.collect_garbage()
    assert set(kubernetes.get("Pod")) == {f"ends-{code}-runner" for code in codes}
    for code in codes:
        assert f"exit code {code}; see `kubectl logs ends-{code}-runner`" in said(kubernetes, f"ends-{code}")
        kubernetes.delete("Job", f"ends-{code}")
    wait_until(lambda: kubernetes.collect_garbage() or not any(map(kubernetes.get, PATHS)))


def test_told_to_stop_it_ends_the_run(kubernetes, manifest):
    with started(kubernetes, manifest, "stopped") as starter:
        starter.send_signal(signal.SIGTERM)
        assert await_exit(kubernetes, starter) == 128 + signal.SIGTERM
        assert kubernetes.get("DaskJob") == {}


def test_a_second_try_waits_for_the_run_that_a_killed_one_left(kubernetes, manifest):
    with started(kubernetes, manifest, "killed") as first:
        first.kill()
        first.wait()
        before = uid(kubernetes, "DaskJob", "killed")
        second = start(kubernetes, manifest, "killed")
        wait_until(lambda: "DaskJob killed is there" in said(kubernetes, "killed"))
        assert second.poll() is None
        kubernetes.end_driver("killed", 0)
        assert await_exit(kubernetes, second) == 0
        assert uid(kubernetes, "DaskJob", "killed") == before


def test_a_second_try_after_a_run_that_failed_makes_it_anew(kubernetes, manifest):
    with started(kubernetes, manifest, "again") as first:
        before = uid(kubernetes, "DaskJob", "again")
        kubernetes.end_driver("again", 137)
        assert await_exit(kubernetes, first) == 137
        second = start(kubernetes, manifest, "again")
        wait_until(
            lambda: (
                kubernetes.collect_garbage()
                or kubernetes.get("DaskJob").get("again", {"metadata": {"uid": before}})["metadata"]["uid"] != before
            )
        )
        await_run(kubernetes, "again")
        kubernetes.end_driver("again", 0)
        assert await_exit(kubernetes, second) == 0


def test_a_driver_that_vanished_with_its_node_is_tried_again(kubernetes, manifest):
    with started(kubernetes, manifest, "vanished") as starter:
        kubernetes.delete("Pod", "vanished-runner")
        assert await_exit(kubernetes, starter) == 75
        assert "the driver's pod is gone" in said(kubernetes, "vanished")


def test_without_an_operator_or_a_right_it_says_so(tmp_path, rules, manifest):
    with run_kubernetes(tmp_path, rules, operator=False) as lonely:
        assert start(lonely, manifest, "alone", OPERATOR_S="1").wait(60) == 75
        assert "the Dask operator has not answered within 1 s; does it run?" in said(lonely, "alone")
    no_rights = yaml.safe_load(yaml.safe_dump(rules).replace("create", "watch"))
    (tmp_path / "strict").mkdir()
    with run_kubernetes(tmp_path / "strict", no_rights, operator=False) as strict:
        assert start(strict, manifest, "barred").wait(60) != 0
        assert "the starter may not create daskjobs" in said(strict, "barred")


def test_an_operator_that_went_away_is_not_waited_for_for_ever(tmp_path, rules, manifest):
    with run_kubernetes(tmp_path, rules, operator=False) as lonely:
        starter = start(lonely, manifest, "left", OPERATOR_S="10")
        wait_until(lambda: "left" in lonely.get("DaskJob"))
        lonely.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "left-runner"}, "spec": {}})
        lonely.patch("DaskJob", "left", {"status": {"jobStatus": "Running"}})  # the last that the operator did
        lonely.end_driver("left", 0)
        assert starter.wait(120) == 0
        assert "the Dask operator did not see it" in said(lonely, "left")
        assert "left" not in lonely.get("DaskJob")  # so its cluster ends too

        for kind in ("DaskJob", "DaskCluster"):
            lonely.create({"apiVersion": "kubernetes.dask.org/v1", "kind": kind, "metadata": {"name": "stuck"}})
        lonely.patch("DaskJob", "stuck", {"status": {"jobStatus": "Failed"}})
        assert start(lonely, manifest, "stuck", OPERATOR_S="2").wait(120) == 75
        assert "an earlier try is still there after 2 s" in said(lonely, "stuck")


def test_an_error_of_its_own_is_no_failure_of_scenes(tmp_path, rules, manifest):
    with run_kubernetes(tmp_path, rules, operator=False) as lonely:
        assert start(lonely, tmp_path / "none.yaml", "lost").wait(60) == 75
        assert "FileNotFoundError" in said(lonely, "lost")


def test_each_pod_of_an_indexed_job_starts_the_run_of_its_shard(kubernetes, tmp_path):
    found = render(["aws", "gpu"], "workers.cpu.replicas=1", "workers.gpu.replicas=1", "runs.full.shards=8")
    (texts,) = (r["data"] for r in found if r["kind"] == "ConfigMap" and "start.py" in r["data"])
    (tmp_path / "full.yaml").write_text(texts["full.yaml"])
    starter = start(kubernetes, tmp_path / "full.yaml", "wide", JOB_COMPLETION_INDEX="2")
    await_run(kubernetes, "wide-2")
    (driver,) = kubernetes.get("DaskJob")["wide-2"]["spec"]["job"]["spec"]["containers"]
    assert driver["args"][driver["args"].index("--shard") + 1] == "3/8"
    kubernetes.end_driver("wide-2", 0)
    assert await_exit(kubernetes, starter) == 0
    kubernetes.delete("Job", "wide")
    wait_until(lambda: kubernetes.collect_garbage() or not any(map(kubernetes.get, PATHS)))
