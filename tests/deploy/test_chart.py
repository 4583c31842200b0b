"""The Helm chart: it renders what a strict API server takes, refuses wrong values, and keeps its promises of safety."""

import importlib.resources
import json
import re
import shlex
from datetime import date
from pathlib import Path

import dask
import distributed
import numpy as np
import pytest
import yaml
from shapely.geometry import LineString

from calfin_cloud.domains import Domain, box_grid, write_domains
from calfin_cloud.termini import Terminus
from deploy.chart import CHART, PLACES, ROOT, check, everything, helm, pods_in, render, runs_in, tool, values

pytestmark = pytest.mark.usefixtures("_helm")


@pytest.fixture
def _helm():
    tool("helm")


@pytest.fixture(params=PLACES.values(), ids=PLACES, scope="module")
def place(request):
    return request.param


@pytest.mark.parametrize(("tls", "monitoring"), [("", "true"), ("dask-tls", "false")])
def test_every_place_renders_what_a_strict_api_server_takes(place, tls, monitoring):
    found = everything(place, f"tls.secretName={tls}", f"monitoring.enabled={monitoring}")
    assert {"DaskJob", "CronJob", "NetworkPolicy", "PodDisruptionBudget", "Role"} <= {r["kind"] for r in found}
    for resource in found:
        check(resource)


def test_the_checks_find_a_misspelled_field_at_every_depth():
    for resource in everything(["aws", "gpu"]):
        for _, pod in pods_in(resource):
            pod["containers"][0]["resources"]["limit"] = {}
            with pytest.raises(Exception, match="limit"):
                check(resource)
            del pod["containers"][0]["resources"]["limit"]


def test_helm_lint_is_strict_and_content(place):
    done = helm("lint", "--strict", str(CHART), *values(place))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("image.repository=", "/image/repository"),
        ("image.digest=sha256:12", "/image/digest"),
        ("map.store=", "/map/store"),
        ("map.store=/data/fronts", "/map/store"),  # a path is on the disk of one pod
        ("map.store=file:///data/fronts", "/map/store"),  # so is this one
        ("map.store=s3a://b/f", "/map/store"),  # not a scheme that calfin knows
        ("map.stroe=s3://b/f", "'stroe' not allowed"),
        ("map.period=last 30 days", "/map/period"),
        ("map.period=last-30-day", "/map/period"),
        ("map.arguments={--max-cloud 0.2}", "/map/arguments/0"),  # two words in one
        ("runs.full.arguments={--max-cloud 0.2}", "/runs/full/arguments/0"),
        ("runs.full.period=newest", "/runs/full/period"),
        ("runs.retry.period=2019-06", "/runs/retry/period"),  # it would be passed over
        (
            "image.repository=registry.example.org/calfin-cloud:0.2.0",
            "/image/repository",
        ),  # the tag is a value of its own
        ("podLabels.app\\.kubernetes\\.io/name=ice", "'app.kubernetes.io/name'"),  # by which the policies find the pods
        ("podLabels.team=a b", "/podLabels/team"),
        ("networkPolicy.egress[0].too=x", "/networkPolicy/egress/0"),  # dropped, it would leave a rule for everything
        ("runs.weekly.when=mondays", "/runs/weekly/when"),
        ("runs.weekly.verb=train", "/runs/weekly/verb"),
        ("runs.a-name-that-is-too-long.when=now", "a-name-that-is-too-long"),
        ("workers.cpu.replicas=0", "/workers/cpu/replicas"),
        ("workers.cpu.resources.limits.memory=4 GB", "/workers/cpu/resources/limits/memory"),
        # thousandths of a byte, which Dask reads as millions of bytes: no limit at all
        ("workers.cpu.resources.limits.memory=4000000000m", "/workers/cpu/resources/limits/memory"),
        ("workers.cpu.scratch=500m", "/workers/cpu/scratch"),
        ("workers.gpu.replicas=1", "/gpuImage/repository"),
        ("networkPolicy.enabled=false", "/tls/secretName"),  # neither TLS nor a NetworkPolicy
        ("user.id=0", "/user/id"),
        ("env.THREADS=4", "/env/THREADS"),  # variables are text
        ("runs.weekly.shards=1", "/runs/weekly/shards"),
        ("runs.weekly.failAbove=2", "/runs/weekly/failAbove"),
        ("runs.retry.shards=4", "/runs/retry/shards"),
        ("monitoring.failedShare=-1", "/monitoring/failedShare"),
        ("monitoring.prices.cpuHour=-1", "/monitoring/prices/cpuHour"),
        ("dashboard.host=dask.example.org", "/dashboard/annotations"),  # whoever opens it must log in
        ("runs.weekly.parallel=4", "/runs/weekly"),  # of no shards
        ("serviceAccount.create=false", "/serviceAccount/name"),  # an account that nobody makes
        ("domains.configMap=glaciers", "/domains"),  # both a ConfigMap and a text
        ("domains.address=s3://bucket/domains.geojson", "/domains"),  # both an address and a text
        ("domains.address=/data/domains.geojson", "/domains/address"),  # a path is on the disk of one pod
        ("domains.geojson=", "/domains"),  # none
    ],
)
def test_wrong_values_are_refused_by_name(setting, complaint):
    done = helm("template", "calfin", str(CHART), *values(["kind"], setting))
    assert done.returncode != 0
    assert complaint in done.stderr


@pytest.mark.parametrize("files", [["gpu", "aws"], ["aws", "gpu", "greenland"]])  # gpu.yaml not last: its 0 is lost
def test_gpu_workers_refuse_an_autoscaler_which_could_not_tell_them_from_others(files):
    done = helm("template", "calfin", str(CHART), *values(files))
    assert "/workers/cpu/maximum" in done.stderr


def test_a_release_name_of_any_length_leaves_room_for_what_kubernetes_and_the_operator_add():
    done = helm("template", "a-release-name-of-fifty-three-characters-is-the-most", str(CHART), *values(["kind"]))
    names = [r["metadata"]["name"] for r in yaml.safe_load_all(done.stdout) if r and r["kind"] == "CronJob"]
    assert names
    longest = "a-run-of-fiftee"  # characters, the most the schema allows
    job = f"{max(names, key=len).removesuffix('-weekly')}-{longest}-{28927537}"
    assert len(job) <= 53  # the operator's limit for the name of a cluster


@pytest.mark.parametrize("release", ["calfin.v2", "2026-ice"])
def test_a_release_name_by_which_no_service_can_be_named_is_refused(release):
    done = helm("template", release, str(CHART), *values(["kind"]))
    assert f"release name {release}: a name that begins with a letter and has no dot" in done.stderr


def test_two_long_release_names_that_begin_alike_share_nothing():
    names = {}
    for release in ("calving-fronts-of-greenland-north", "calving-fronts-of-greenland-south"):
        done = helm("template", release, str(CHART), *values(["kind"]))
        found = [r for r in yaml.load_all(done.stdout, yaml.CSafeLoader) if r]
        names[release] = {(r["kind"], r["metadata"]["name"]) for r in found}
        assert all(name.startswith("calving-fronts-") for _, name in names[release])
    north, south = names.values()
    assert not north & south


def test_large_numbers_of_a_values_file_stay_whole_numbers(tmp_path):
    """Helm reads numbers of files as floats, which a template writes as 1.2096e+06."""
    two_weeks = 1_209_600
    job = {"deadlineSeconds": two_weeks, "startingDeadlineSeconds": two_weeks}
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({"job": job, "user": {"id": 1_000_650_000, "group": 1_000_650_000}}))
    done = helm("template", "calfin", str(CHART), *values(["aws"]), "--values", str(mine))
    found = [r for r in yaml.safe_load_all(done.stdout) if r]
    for resource in found:
        check(resource)
    jobs = [r["spec"] for r in found if r["kind"] == "CronJob"]
    assert {(j["startingDeadlineSeconds"], j["jobTemplate"]["spec"]["activeDeadlineSeconds"]) for j in jobs} == {
        (two_weeks, two_weeks)
    }
    for run in runs_in(found).values():
        pod = run[0]["spec"]["job"]["spec"]
        assert (pod["activeDeadlineSeconds"], pod["securityContext"]["runAsUser"]) == (two_weeks, 1_000_650_000)


def test_no_fewer_workers_at_most_than_at_the_start():
    done = helm("template", "calfin", str(CHART), *values(["aws"], "workers.cpu.maximum=4"))
    assert "workers.cpu.maximum 4 is below workers.cpu.replicas 8" in done.stderr


def test_a_store_with_a_sign_of_yaml_in_its_name_is_rendered_as_it_is():
    store = "s3://bucket/fronts:"
    found = render(["aws"], f"map.store={store}", "monitoring.enabled=true")
    (rules,) = (resource for resource in found if resource["kind"] == "PrometheusRule")
    told = [rule["annotations"]["summary"] for rule in rules["spec"]["groups"][0]["rules"]]
    assert sum(store in summary for summary in told) == 3


def test_a_run_is_dropped_with_null():
    kinds = [(r["kind"], r["metadata"]["name"]) for r in render(["kind"], "runs.weekly=null")]
    assert ("CronJob", "calfin-full") in kinds
    assert ("CronJob", "calfin-weekly") not in kinds


def test_a_gpu_pool_is_dropped_with_null():
    found = render(["aws", "gpu"], "workers.gpu=null", "workers.cpu.maximum=12")
    assert found == render(["aws", "gpu"], "workers.gpu.replicas=0", "workers.cpu.maximum=12")


def test_every_value_has_a_comment_beside_or_above_it():
    bare, above = [], ""
    for line in (CHART / "values.yaml").read_text().splitlines():
        key = re.match(r"\s*([\w.-]+):", line)
        if key and "#" not in line + above:
            bare.append(key[1])
        above = line if line.strip().startswith("#") else ""
    # Kubernetes' own words, and those of `runs` that are told where they first stand.
    known = "resources requests limits workers weekly full retry when verb tls networkPolicy image gpuImage monitoring"
    assert set(bare) <= set(known.split())


def test_no_pod_is_root_or_writes_to_its_root_or_shows_a_token_it_does_not_need(place):
    for resource in everything(place, "monitoring.enabled=true"):
        for role, pod in pods_in(resource):
            assert pod["securityContext"]["runAsNonRoot"]
            assert pod["securityContext"]["runAsUser"] > 0
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["enableServiceLinks"] is False
            assert pod.get("automountServiceAccountToken", True) == (role == "starter")
            for container in pod["containers"] + pod.get("initContainers", []):
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
                assert "memory" in container["resources"]["limits"]
                assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"])


def test_spot_nodes_are_for_workers_alone():
    spot = {"aws": ("spot", "on-demand"), "gke": ("spot", "standard"), "azure": ("spot", "system")}
    for name, (cheap, steady) in spot.items():
        for resource in everything([name]):
            for role, pod in pods_in(resource):
                wanted = cheap if "worker" in role else steady
                assert wanted in pod["nodeSelector"].values(), (name, role)
                assert pod["nodeSelector"]["kubernetes.io/arch"] == "amd64"  # of the image
                keys = {toleration["key"] for toleration in pod.get("tolerations", [])}
                assert any("spot" in key or "scaleset" in key for key in keys) == ("worker" in role and name != "aws")
                assert ("CriticalAddonsOnly" in keys) == ("worker" not in role and name == "azure")


def test_gpu_workers_say_gpu_on_nodes_with_one_and_the_others_say_cpu():
    said = {}
    for resource in everything(["aws", "gpu"]):
        for role, pod in pods_in(resource):
            if "worker" in role:
                (container,) = pod["containers"]
                said[role] = container["args"][container["args"].index("--resources") + 1]
                assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (role == "gpu worker")
                assert ("gpu" in container["image"]) == (role == "gpu worker")
                assert any(t["key"] == "nvidia.com/gpu" for t in pod.get("tolerations", [])) == (role == "gpu worker")
    assert said == {"worker": "CPU=1", "gpu worker": "GPU=1"}


def test_a_worker_may_use_the_memory_of_its_pod_however_many_cores_the_node_has(place):
    limits = ["workers.cpu.resources.limits.memory=5Gi", "workers.gpu.resources.limits.memory=20Gi"]
    found = [pod for resource in everything(place, *limits) for pod in pods_in(resource)]
    workers = {role: pod["containers"][0] for role, pod in found if "worker" in role}
    may = {role: worker["args"][worker["args"].index("--memory-limit") + 1] for role, worker in workers.items()}
    assert may == {role: worker["resources"]["limits"]["memory"] for role, worker in workers.items()}
    expected = {"worker": "5Gi", "gpu worker": "20Gi"} if "gpu" in place else {"worker": "5Gi"}
    assert may == expected


def test_secrets_are_referred_to_and_only_where_they_are_used():
    found = everything(["kind"], "tls.secretName=dask-tls")
    assert "Secret" not in {resource["kind"] for resource in found}
    for resource in found:
        for role, pod in pods_in(resource):
            sources = [s for c in pod["containers"] for s in c.get("envFrom", [])]
            assert (sources == [{"secretRef": {"name": "calfin-store"}}]) == (role in ("driver", "worker", "try"))
            volumes = [v["secret"]["secretName"] for v in pod.get("volumes", []) if "secret" in v]
            assert volumes == (["dask-tls"] if role in ("driver", "worker", "scheduler", "try") else [])


def test_a_schedule_never_runs_twice_at_once_and_gives_up_only_on_what_trying_again_cannot_mend():
    jobs = {r["metadata"]["name"]: r["spec"] for r in render(["aws"]) if r["kind"] == "CronJob"}
    assert {name: bool(job.get("suspend")) for name, job in jobs.items()} == {
        "calfin-weekly": False,
        "calfin-full": True,
        "calfin-retry": True,
    }
    for job in jobs.values():
        assert job["concurrencyPolicy"] == "Forbid"
        spec = job["jobTemplate"]["spec"]
        give_up, ignore = spec["podFailurePolicy"]["rules"]
        assert "completionMode" not in spec
        assert (give_up["action"], give_up["onExitCodes"]["values"]) == ("FailJob", [1, 2])
        assert (ignore["action"], ignore["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
        waits_s = [10 * 2**n for n in range(spec["backoffLimit"])]
        assert sum(waits_s) > 120  # the lease of a driver that was killed has run out before the last try
        assert spec["activeDeadlineSeconds"] > sum(waits_s)


def test_the_runs_call_calfin_as_its_parser_understands(place):
    from calfin_cloud.cli.parser import make_parser  # noqa: PLC0415

    runs = runs_in(render(place, "runs.full.store=s3://bucket/anew", "runs.full.period=1985/.."))
    assert set(runs) == {"weekly", "full", "retry"}
    for name, (job, *_) in runs.items():
        (container,) = job["spec"]["job"]["spec"]["containers"]
        program, *arguments = container["args"]
        assert program == "calfin"
        options = make_parser().parse_args([a.replace("SHARD_NUMBER", "1") for a in arguments])  # as start.py does
        assert options.verb == ("retry" if name == "retry" else "map")
        assert options.cluster == "$(DASK_SCHEDULER_ADDRESS)"
        assert options.store.startswith("s3://bucket/anew" if name == "full" else ("s3:", "gs:", "abfs:"))


def test_only_a_place_with_an_identity_at_amazon_searches_a_catalogue_whose_buckets_bill_the_reader(place):
    """On GKE and on a laptop all scenes of Landsat failed, for want of keys or with those of another server."""
    (example,) = yaml.safe_load_all((ROOT / "deploy" / "examples" / "job.yaml").read_text())
    weekly, *_ = runs_in(render(place))["weekly"]
    for run in (weekly, example):
        (container,) = run["spec"]["job"]["spec"]["containers"]
        catalog = container["args"][container["args"].index("--catalog") + 1]
        assert catalog == ("usgs" if run is weekly and "aws" in place else "planetary-computer")


def test_helm_test_asks_for_what_is_mapped_and_looks_at_the_certificate_that_the_runs_use():
    from calfin_cloud.cli.parser import make_parser  # noqa: PLC0415

    found = everything(["aws"], "tls.secretName=dask-tls", "map.collections={sentinel-2-l2a,landsat-c2-l2}")
    containers = {role: pod["containers"][0] for resource in found for role, pod in pods_in(resource)}
    script = containers["try"]["args"][-1]
    _, *arguments = shlex.split(script.splitlines()[-1].removeprefix("exec "))
    options = make_parser().parse_args(arguments)
    assert (options.verb, options.cluster) == ("doctor", "none")
    assert options.collections == ["sentinel-2-l2a", "landsat-c2-l2"]
    said = {role: _variables(container) for role, container in containers.items()}
    certificate = "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT"
    assert said["try"][certificate] == said["driver"][certificate]
    mounted = [mount["mountPath"] for mount in containers["try"]["volumeMounts"]]
    assert any(said["try"][certificate].startswith(f"{path}/") for path in mounted if path != "/tmp")
    assert said["try"]["AWS_REGION"] == "us-west-2"


def _variables(container):
    return {variable["name"]: variable.get("value") for variable in container.get("env") or []}


def test_the_network_is_closed_but_for_the_release_its_stores_and_the_operator():
    policies = {r["metadata"]["name"]: r["spec"] for r in render(["aws"]) if r["kind"] == "NetworkPolicy"}
    release = policies["calfin"]
    assert release["policyTypes"] == ["Ingress", "Egress"]
    labels = release["podSelector"]["matchLabels"]
    assert release["ingress"] == [{"from": [{"podSelector": {"matchLabels": labels}}]}]
    open_ports = {port["port"] for rule in release["egress"] for port in rule.get("ports", [])}
    assert open_ports == {53, 443}
    assert policies["calfin-scheduler"]["ingress"][0]["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "dask-operator"}}}
    ]


def test_domains_fit_into_the_config_map_unchanged_or_are_sent_to_a_bucket(tmp_path):
    """Each takes 6.8 kB, as a glacier of Greenland with its MEaSUREs termini does."""
    for n_glaciers, fits in ((140, True), (239, False)):
        path = tmp_path / f"{n_glaciers}.geojson"
        write_domains([_domain_with_termini(n) for n in range(n_glaciers)], path)
        done = helm("template", "calfin", str(CHART), *values(["aws"]), "--set-file", f"domains.geojson={path}")
        assert (done.returncode == 0) == fits
        if fits:
            maps = [r for r in yaml.load_all(done.stdout, yaml.CSafeLoader) if r and r["kind"] == "ConfigMap"]
            (text,) = (m["data"]["domains.geojson"] for m in maps if "domains.geojson" in m["data"])
            assert json.loads(text) == json.loads(path.read_text())
        else:
            assert "a ConfigMap holds 1,000,000 characters" in done.stderr
            assert "domains.address" in done.stderr


def _domain_with_termini(n):
    line = LineString([(x, 20_000 * n + 10_000.25) for x in np.linspace(-200_000.25, -180_000.25, 70).round(2)])
    termini = [Terminus(line, date(year, 6, 1), "MEaSUREs") for year in (2005, 2015, 2017)]
    return Domain(f"glacier-{n}", box_grid((-2e5, 2e4 * n, -1.8e5, 2e4 * (n + 1)), 3413, 30.0), termini=tuple(termini))


def test_domains_in_a_bucket_are_named_and_nothing_is_mounted_in_their_place():
    address = "s3://bucket/greenland.geojson"
    found = everything(["aws", "greenland"], "domains.geojson=", f"domains.address={address}")
    assert "calfin-domains" not in {r["metadata"]["name"] for r in found}
    pods = [(role, pod) for resource in found for role, pod in pods_in(resource) if role in ("driver", "try")]
    assert len(pods) == 1 + 1 + 3  # a run at once, helm test, three of CronJobs
    for role, pod in pods:
        (container,) = pod["containers"]
        words = shlex.split(container["args"][-1].splitlines()[-1]) if role == "try" else container["args"]
        if "retry" not in words:
            assert words[words.index("--domains") + 1] == address
        assert "domains" not in {volume["name"] for volume in pod["volumes"]}
        assert "/etc/calfin" not in {mount["mountPath"] for mount in container["volumeMounts"]}
    for resource in found:
        check(resource)


def test_a_run_of_shards_is_an_indexed_job_whose_pods_each_start_a_small_cluster():
    found = render(["aws"], "runs.full.shards=8", "runs.full.parallel=2")
    jobs = {r["metadata"]["name"]: r["spec"]["jobTemplate"]["spec"] for r in found if r["kind"] == "CronJob"}
    job = jobs["calfin-full"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 8, 2)
    assert job["podFailurePolicy"]["rules"][0]["action"] == "FailIndex"  # one shard that fails ends no other
    assert (job["backoffLimitPerIndex"], "backoffLimit" in job) == (6, False)
    (driver,) = runs_in(found)["full"][0]["spec"]["job"]["spec"]["containers"]
    assert driver["args"][driver["args"].index("--shard") + 1] == "SHARD_NUMBER/8"
    assert "completionMode" not in jobs["calfin-weekly"]
    for resource in found:
        check(resource)


def test_a_job_name_with_the_number_of_a_shard_has_room_too():
    longest = f"{'a' * 21}-{'b' * 15}-{28927537}-{998}"
    assert len(longest) <= 53


def test_the_weekly_run_tries_failed_scenes_again_and_fails_only_above_its_share_of_new_ones():
    from calfin_cloud.cli.parser import make_parser  # noqa: PLC0415

    (job, *_) = runs_in(render(["kind"]))["weekly"]
    options = make_parser().parse_args(job["spec"]["job"]["spec"]["containers"][0]["args"][1:])
    assert (options.retry, options.fail_above) == (True, 0.05)


def test_prometheus_reaches_metrics_and_not_dasks_own_port_and_alerts_name_what_the_exporter_tells():
    from calfin_cloud import exporter  # noqa: PLC0415

    assert not [r for r in render(["kind"]) if r["apiVersion"].startswith("monitoring")]
    found = render(["kind"], "monitoring.enabled=true", "monitoring.labels.release=mine")
    by_kind = {r["kind"]: r for r in found if r["apiVersion"].startswith("monitoring")}
    assert all(r["metadata"]["labels"]["release"] == "mine" for r in by_kind.values())
    (policy,) = (r for r in found if r["kind"] == "NetworkPolicy" and r["metadata"]["name"] == "calfin-metrics")
    assert {port["port"] for port in policy["spec"]["ingress"][0]["ports"]} == {8787, 8788, 9200}
    endpoints = by_kind["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert [endpoint.get("scrapeTimeout") for endpoint in endpoints if endpoint["port"] == "metrics"] == ["30s"]
    (rules,) = by_kind["PrometheusRule"]["spec"]["groups"]
    (dashboard,) = (r["data"]["calfin-cloud.json"] for r in found if r["metadata"]["name"] == "calfin-grafana")
    panels = json.loads(dashboard)["panels"]
    asked = [rule["expr"] for rule in rules["rules"]] + [t["expr"] for p in panels for t in p["targets"]]
    told = Path(exporter.__file__).read_text()
    for name in {name for expression in asked for name in re.findall(r"calfin_\w+", expression)}:
        assert f'"{name}"' in told, name


def test_the_price_of_a_run_is_reckoned_from_what_its_pods_ask_for_where_prices_are_given():
    def recorded(*settings):
        (group,) = (
            r["spec"]["groups"][0]
            for r in render(["kind"], "monitoring.enabled=true", *settings)
            if r["kind"] == "PrometheusRule"
        )
        return {rule["record"]: rule["expr"] for rule in group["rules"] if "record" in rule}

    assert recorded() == {}
    found = recorded("monitoring.prices.cpuHour=4", "monitoring.prices.gpuHour=250")
    expression = found["calfin:run_cost_per_hour"]
    assert 'resource="cpu"} * 4' in expression
    assert 'resource="nvidia_com_gpu"} * 250' in expression
    assert expression.count("(") == expression.count(")")


def test_a_dashboard_is_behind_a_login_without_api_and_its_controller_reaches_that_port_alone():
    assert not [r for r in render(["aws"]) if r["kind"] in ("Ingress", "Service")]
    login = r"dashboard.annotations.nginx\.ingress\.kubernetes\.io/auth-url=https://login.example.org"
    found = render(["aws"], "dashboard.host=dask.example.org", "dashboard.tlsSecretName=dask-host", login)
    named = {r["kind"]: r for r in found if r["metadata"]["name"] == "calfin-dashboard"}
    for resource in named.values():
        check(resource)
    ingress, service, policy = (named[kind]["spec"] for kind in ("Ingress", "Service", "NetworkPolicy"))
    assert "auth-url" in next(iter(named["Ingress"]["metadata"]["annotations"]))
    assert ingress["tls"] == [{"hosts": ["dask.example.org"], "secretName": "dask-host"}]
    assert service["selector"]["dask.org/component"] == "scheduler"
    (closed,) = (r for r in found if r["metadata"]["name"] == "calfin-dashboard-closed")
    check(closed)
    assert "selector" not in closed["spec"]  # so it leads to no pod
    paths = {path["path"]: path["backend"]["service"]["name"] for path in ingress["rules"][0]["http"]["paths"]}
    assert paths == {"/api": "calfin-dashboard-closed", "/": "calfin-dashboard"}
    assert [port["port"] for port in policy["ingress"][0]["ports"]] == [service["ports"][0]["targetPort"]]


def test_a_scheduler_that_the_operator_asks_over_http_keeps_all_pages_of_dask():
    (job,) = (r for r in render(["aws"], "runs.once.when=now", "runs.once.verb=map") if r["kind"] == "DaskJob")
    (container,) = (c for role, pod in pods_in(job) if role == "scheduler" for c in pod["containers"])
    said = _variables(container)
    with importlib.resources.files(distributed).joinpath("distributed.yaml").open() as file:
        own = yaml.safe_load(file)["distributed"]["scheduler"]["http"]["routes"]
    routes = dask.config.collect_env(said)["distributed"]["scheduler"]["http"]["routes"]
    assert set(routes) == {*own, "distributed.http.scheduler.api"}


def test_pods_of_the_chart_are_those_of_the_function_for_kubernetes():
    from calfin_cloud.starts.pods import ALIKE  # noqa: PLC0415

    pods = {role: pod for resource in everything(["aws", "gpu"]) for role, pod in pods_in(resource)}
    for role, alike in (("scheduler", ALIKE["scheduler"]), ("gpu worker", ALIKE["worker"])):
        (container,) = pods[role]["containers"]
        assert container["args"][: len(alike["args"])] == alike["args"]
        assert container["livenessProbe"] == alike["livenessProbe"]
        assert container["securityContext"] == ALIKE["containerSecurity"]
        assert pods[role]["securityContext"] == ALIKE["podSecurity"]
    assert pods["gpu worker"]["tolerations"] == ALIKE["gpuTolerations"]
    assert "nodeSelector" not in pods["gpu worker"]  # the limit finds the nodes
    assert pods["try gpu"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
