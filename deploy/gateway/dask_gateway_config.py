"""Settings of a Dask Gateway server for calfin-cloud: images, what users may choose, limits, idle timeout.

For its Helm chart: ``--set-file gateway.extraConfig.calfin=deploy/gateway/dask_gateway_config.py``; for a server
elsewhere: ``dask-gateway-server -f dask_gateway_config.py``. A user chooses with ``--cluster-option gpu=true``.
"""

import json
import os
from typing import Any

from dask_gateway_server.options import Bool, Float, Integer, Mapping, Options, Select, String

c = get_config()  # noqa: F821 - traitlets gives it to the files it loads

# The image of the JupyterHub, the drivers and the workers must hold the same versions: change these together.
IMAGE = os.environ.get("CALFIN_IMAGE", "registry.example.org/calfin-cloud:0.2.0")
GPU_IMAGE = os.environ.get("CALFIN_GPU_IMAGE", "registry.example.org/calfin-cloud-gpu:0.2.0")

c.ClusterConfig.scheduler_cmd = [
    "dask",
    "scheduler",
]  # the scripts of the defaults, dask-scheduler and dask-worker, are gone
c.ClusterConfig.scheduler_cores = 1
c.ClusterConfig.scheduler_memory = "4 G"
c.ClusterConfig.idle_timeout = 1800
# Of one cluster, so of one user where each has one:
c.ClusterConfig.cluster_max_workers = 64
c.ClusterConfig.cluster_max_cores = 80
c.ClusterConfig.cluster_max_memory = "400 G"

SAFE = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
# The identity of scheduler and workers for object storage, and the labels of nodes, as JSON: {"pool": "spot"}.
SERVICE_ACCOUNT = os.environ.get("CALFIN_SERVICE_ACCOUNT", "")
NODES = json.loads(os.environ.get("CALFIN_NODE_SELECTOR", "{}"))
POD = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
    "volumes": [{"name": "tmp", "emptyDir": {}}],
    **({"serviceAccountName": SERVICE_ACCOUNT} if SERVICE_ACCOUNT else {}),
}
CONTAINER = {"securityContext": SAFE, "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}
GPU_NODES = {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]}


def choose(options: Any) -> dict[str, Any]:  # noqa: ANN401 - the server's own type is made as it runs
    """Turn what a user chose into settings of the cluster."""
    says = "GPU=1" if options.gpu else "CPU=1"
    gpu = {"resources": {"limits": {"nvidia.com/gpu": "1"}}} if options.gpu else {}
    payer = {"AWS_REQUEST_PAYER": options.aws_request_payer} if options.aws_request_payer else {}
    return {
        "image": options.image or (GPU_IMAGE if options.gpu else IMAGE),
        "worker_cmd": ["dask", "worker", "--resources", says],
        "worker_cores": options.worker_cores,
        "worker_memory": f"{options.worker_memory} G",
        "worker_threads": 1,
        "scheduler_extra_pod_config": POD,
        "scheduler_extra_container_config": CONTAINER,
        "worker_extra_pod_config": POD | (GPU_NODES if options.gpu else {"nodeSelector": NODES}),
        "worker_extra_container_config": CONTAINER | gpu,
        "environment": {**options.environment, **payer},
    }


c.Backend.cluster_options = Options(
    Bool("gpu", default=False, label="A GPU for every worker"),
    # Names as those of daskhub and 2i2c. With DASK_GATEWAY__CLUSTER__OPTIONS__IMAGE: "{JUPYTER_IMAGE_SPEC}" a hub gives
    # workers the image of the notebook.
    String("image", default="", label="Image (empty: that of calfin-cloud)"),
    Float("worker_cores", default=1, min=0.5, max=4, label="Cores of a worker"),
    Integer("worker_memory", default=4, min=2, max=32, label="Memory of a worker (GiB)"),
    Mapping("environment", {}, label="Environment variables (no secrets)"),
    Select("aws_request_payer", ["", "requester"], default="", label="Who pays for reading buckets of AWS"),
    handler=choose,
)
