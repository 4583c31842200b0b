"""What starts workers, and ends them when it is closed: here, on GPUs, on Kubernetes, behind a Dask Gateway."""

from calfin_cloud.starts.gateway import gateway
from calfin_cloud.starts.here import cuda, local
from calfin_cloud.starts.kubernetes import kubernetes
from calfin_cloud.starts.sizes import START_S, NWorkers

__all__ = ["START_S", "NWorkers", "cuda", "gateway", "kubernetes", "local"]
