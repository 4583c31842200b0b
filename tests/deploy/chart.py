"""The chart as users render it: real helm, the value files that are shipped, what an API server would check."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from kubernetes_validate import validate

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "calfin-cloud"
TOOLS = ROOT / ".tools" / "bin"
PLACES: Mapping[str, Sequence[str]] = {
    "kind": ["kind"],
    "aws": ["aws"],
    "gke": ["gke"],
    "azure": ["azure"],
    "aws, gpu": ["aws", "gpu"],
    "gke, gpu": ["gke", "gpu"],
    "aws, greenland": ["aws", "greenland"],
    "azure, greenland, gpu": ["azure", "greenland", "gpu"],
}


def tool(name: str) -> str:
    """Path of a program that `deploy/tools.sh` fetches; skip where it has not, except in CI."""
    if (TOOLS / name).exists():
        return str(TOOLS / name)
    why = f"{name} is missing: deploy/tools.sh fetches it"
    if os.environ.get("CALFIN_REQUIRE_SERVERS"):
        pytest.fail(why)
    pytest.skip(why)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm on the chart."""
    return subprocess.run([tool("helm"), *arguments], check=False, capture_output=True, text=True, timeout=300)


def values(names: Sequence[str], *settings: str) -> list[str]:
    """Flags that give helm value files of the chart, one domain, and settings KEY=VALUE."""
    files = [flag for name in names for flag in ("--values", str(CHART / "values" / f"{name}.yaml"))]
    return [*files, "--set-json", 'domains.geojson="{}"', *(flag for s in settings for flag in ("--set", s))]


def render(names: Sequence[str], *settings: str) -> list[dict[str, Any]]:
    """Resources of a release `calfin` in the namespace `ice`."""
    return [resource for resource in yaml.load_all(_rendered(tuple(names), settings), yaml.CSafeLoader) if resource]


@cache
def _rendered(names: Sequence[str], settings: Sequence[str]) -> str:
    done = helm("template", "calfin", str(CHART), "--namespace", "ice", *values(names, *settings))
    assert done.returncode == 0, done.stderr
    return done.stdout


def runs_in(resources_: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What the starter of each scheduled run creates, by the run's name, with the name `some-run`."""
    texts = {
        Path(name).stem: text
        for resource in resources_
        if resource["kind"] == "ConfigMap"
        for name, text in resource["data"].items()
        if name.endswith(".yaml")
    }
    return {
        name: list(yaml.load_all(text.replace("RUN_NAME", "some-run"), yaml.CSafeLoader))
        for name, text in texts.items()
    }


def everything(names: Sequence[str], *settings: str) -> list[dict[str, Any]]:
    """Resources of a release, one run of which starts at once, and those of its scheduled runs."""
    found = render(names, "runs.once.when=now", "runs.once.verb=map", *settings)
    return found + [resource for run in runs_in(found).values() for resource in run]


def check(resource: Mapping[str, Any]) -> None:
    """Raise where the API server would refuse a resource, or silently drop a field of it.

    The kinds of Prometheus's operator have no schema at hand: tests look at what they say.
    """
    _check_text(json.dumps(resource))


@cache
def _check_text(text: str) -> None:
    """Check a resource that was not found right before: most are the same in all places."""
    resource = json.loads(text)
    if resource["apiVersion"].startswith("monitoring.coreos.com/"):
        return
    if resource["apiVersion"].startswith("kubernetes.dask.org/"):
        Draft202012Validator(dask_schemas()[resource["kind"]]).validate(resource)
    else:
        validate(resource, "1.37", strict=True)


@cache
def dask_schemas() -> dict[str, dict[str, Any]]:
    """JSON schemas of the operator's resources, which refuse what they do not name."""
    crds = resources.files("dask_kubernetes") / "operator/deployment/helm/dask-kubernetes-operator/crds"
    found = [yaml.load(path.read_text(), yaml.CSafeLoader) for path in crds.iterdir()]
    return {
        crd["spec"]["names"]["kind"]: _strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], top=True)
        for crd in found
    }


def _strict(schema: dict[str, Any], *, top: bool = False) -> dict[str, Any]:
    """JSON schema of a CRD's: an int-or-string has no type there, and unknown fields are dropped in silence."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict = {key: value for key, value in schema.items() if not key.startswith("x-") and key != "format"}
    if "properties" in schema:
        strict["properties"] = {name: _strict(of) for name, of in schema["properties"].items()}
        if not top and not schema.get("x-kubernetes-preserve-unknown-fields"):
            strict["additionalProperties"] = False
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            strict[inner] = _strict(schema[inner])
    return strict


def pods_in(resource: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pod specs of a resource, each with what it is for: scheduler, worker, driver, starter, try."""
    spec = resource.get("spec", {})
    match resource["kind"]:
        case "DaskJob":
            yield "driver", spec["job"]["spec"]
            yield "scheduler", spec["cluster"]["spec"]["scheduler"]["spec"]
            yield "worker", spec["cluster"]["spec"]["worker"]["spec"]
        case "DaskCluster":
            yield "scheduler", spec["scheduler"]["spec"]
            yield "worker", spec["worker"]["spec"]
        case "DaskWorkerGroup":
            yield "gpu worker", spec["worker"]["spec"]
        case "CronJob":
            yield "starter", spec["jobTemplate"]["spec"]["template"]["spec"]
        case "Deployment":
            yield "exporter", spec["template"]["spec"]
        case "Pod" if resource["metadata"]["name"].endswith("-gpu"):
            yield "try gpu", spec
        case "Pod":
            yield "try", spec
