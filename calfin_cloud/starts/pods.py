"""Resources of the Dask operator: a `DaskCluster`, and groups of its workers, with pods like those of the chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

ALIKE: dict[str, Any] = yaml.safe_load((resources.files("calfin_cloud") / "starts/pods.yaml").read_text())
"""What the pods of the chart and of `kubernetes` have in common."""

GPU = "nvidia.com/gpu"
TMP = {"name": "tmp", "emptyDir": {}}


@dataclass(frozen=True)
class Identity:
    """As whom pods run, and what they are told.

    Attributes
    ----------
    service_account
        Its identity for object storage; empty: that of the namespace's `default`.
    secrets
        Names of Secrets whose keys become environment variables of scheduler and workers.
    env
        Environment variables of scheduler and workers. No secrets: they would be readable in the resource.
    """

    service_account: str = ""
    secrets: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def cluster_resource(
    name: str,
    workers: Mapping[str, Any],
    *,
    image: str,
    identity: Identity,
    node_selector: Mapping[str, str] | None = None,
    idle_timeout: int = 0,
) -> dict[str, Any]:
    """Make a `DaskCluster`: its scheduler, on nodes with these labels, and the group `default` of its workers."""
    of_scheduler = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    ports = [
        {"name": port["name"], "protocol": "TCP", "port": port["containerPort"], "targetPort": port["name"]}
        for port in ALIKE["scheduler"]["ports"]
    ]
    resources_ = {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"memory": "4Gi"}}
    pod = _pod("scheduler", ALIKE["scheduler"] | {"image": image, "resources": resources_}, identity, node_selector)
    scheduler = {"spec": pod, "service": {"type": "ClusterIP", "selector": of_scheduler, "ports": ports}}
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name},
        "spec": {"idleTimeout": idle_timeout, "scheduler": scheduler, "worker": dict(workers)},
    }


def worker_group(
    n_workers: int,
    says: str,
    *,
    image: str,
    limits: Mapping[str, str],
    identity: Identity,
    node_selector: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Make the `worker` part of a `DaskCluster` or `DaskWorkerGroup`: pods of one thread that say what they are for.

    >>> worker_group(2, "CPU=1", image="a:1", limits={"memory": "4Gi"}, identity=Identity())["replicas"]
    2
    """
    args = [*ALIKE["worker"]["args"], "--resources", says, "--memory-limit", limits["memory"]]
    container = {
        "image": image,
        "args": args,
        "resources": {"limits": dict(limits), "requests": dict(limits)},
    }
    pod = _pod("worker", ALIKE["worker"] | container, identity, node_selector)
    if GPU in limits:
        pod["tolerations"] = ALIKE["gpuTolerations"]
    return {"replicas": n_workers, "spec": pod}


def _pod(
    name: str, container: Mapping[str, Any], identity: Identity, node_selector: Mapping[str, str] | None
) -> dict[str, Any]:
    """Spec of a pod of one container, which writes to /tmp alone."""
    whole = {
        **container,
        "name": name,
        "env": [{"name": key, "value": str(value)} for key, value in identity.env.items()],
        "envFrom": [{"secretRef": {"name": secret}} for secret in identity.secrets],
        "securityContext": ALIKE["containerSecurity"],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    pod: dict[str, Any] = ALIKE["pod"] | {
        "securityContext": ALIKE["podSecurity"],
        "containers": [whole],
        "volumes": [TMP],
    }
    if identity.service_account:
        pod["serviceAccountName"] = identity.service_account
    if node_selector:
        pod["nodeSelector"] = dict(node_selector)
    return pod
