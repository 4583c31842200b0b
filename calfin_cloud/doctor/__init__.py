"""Looks for what would make a run fail, by trying it: findings in words, each with what to do."""

from calfin_cloud.doctor.findings import Finding, problem, remedy_for, without_secrets
from calfin_cloud.doctor.here import (
    check_certificates,
    check_dask_certificate,
    check_disk,
    check_gpu_here,
    check_keys,
    check_libraries,
    check_network,
)
from calfin_cloud.doctor.remote import (
    check_catalog,
    check_clock,
    check_domains,
    check_made_by,
    check_scene,
    check_store,
    find_examples,
)
from calfin_cloud.doctor.workers import check_gpus, check_memory, check_worker_clocks, check_workers

__all__ = [
    "Finding",
    "check_catalog",
    "check_certificates",
    "check_clock",
    "check_dask_certificate",
    "check_disk",
    "check_domains",
    "check_gpu_here",
    "check_gpus",
    "check_keys",
    "check_libraries",
    "check_made_by",
    "check_memory",
    "check_network",
    "check_scene",
    "check_store",
    "check_worker_clocks",
    "check_workers",
    "find_examples",
    "problem",
    "remedy_for",
    "without_secrets",
]
