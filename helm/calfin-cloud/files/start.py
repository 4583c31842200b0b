"""Create the resources of one run, wait for the end of its driver and exit as it did.

`start.py MANIFEST`, in a pod of a Job. The Job owns the run: whatever ends the Job ends the run, and a second try of
the Job finds a run that still goes on and waits for it. Each pod of an indexed Job starts the run of one shard.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import httpx
import kr8s
import yaml
from kr8s.objects import APIObject, Pod, object_from_spec

POLL_S = float(os.environ.get("POLL_S", "5"))
OPERATOR_S = float(os.environ.get("OPERATOR_S", "300"))  # an operator that runs answers within seconds
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: neither calfin's 1 nor its 2
ENDED = ("Successful", "Failed")  # words of the operator for a DaskJob


def main(path: str) -> int:
    """Run to the end; where the Kubernetes API fails, the next try finds the run where this one left it."""
    try:
        return start_and_wait(path)
    except (kr8s.NotFoundError, kr8s.ServerError, kr8s.APITimeoutError, httpx.HTTPError) as error:
        say(f"the Kubernetes API said {error!r}")
        return TRY_AGAIN
    except Exception:  # Python would exit with 1, which calfin says where scenes failed and nobody tries again
        traceback.print_exc()
        return TRY_AGAIN


def start_and_wait(path: str) -> int:
    """Start or find the run of this Job and wait for it; a signal to stop deletes it."""
    name, index = os.environ["JOB_NAME"], os.environ.get("JOB_COMPLETION_INDEX")
    name, shard = (name, "") if index is None else (f"{name}-{index}", str(int(index) + 1))
    manifest = Path(path).read_text().replace("RUN_NAME", name).replace("SHARD_NUMBER", shard)
    job, *beside = (object_from_spec(spec, allow_unknown_type=True) for spec in yaml.safe_load_all(manifest))
    job.raw["metadata"]["ownerReferences"] = [owner()]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        drop_finished(job, beside)
        create(job)
        await_operator(job)
        for resource in beside:
            create(resource)
        return await_end(job)
    except KeyboardInterrupt:
        job.delete()
        say(f"{job.name}: told to stop")
        return 128 + signal.SIGTERM
    except TimeoutError as error:
        say(f"{job.name}: {error}")
        if job.exists():
            job.delete()
        return TRY_AGAIN


def owner() -> dict[str, str]:
    """Refer to the Job of this pod: what it owns is removed with it."""
    return {"apiVersion": "batch/v1", "kind": "Job", "name": os.environ["JOB_NAME"], "uid": os.environ["JOB_UID"]}


def drop_finished(job: APIObject, beside: Sequence[APIObject]) -> None:
    """Delete the run of an earlier try, with all that belongs to it, unless it goes on."""
    if not job.exists():
        return
    wanted = job.raw
    job.refresh()
    if status(job) not in ENDED:
        return
    job.delete()
    cluster = object_from_spec(
        {"apiVersion": job.version, "kind": "DaskCluster", "metadata": {"name": job.name}}, allow_unknown_type=True
    )
    end = time.monotonic() + OPERATOR_S
    while any(resource.exists() for resource in (job, cluster, driver_of(job), *beside)):
        if time.monotonic() > end:
            raise TimeoutError(f"an earlier try is still there after {OPERATOR_S:.0f} s; does the Dask operator run?")
        time.sleep(POLL_S)
    job.raw = wanted  # without the operator's notes on the old one, by which it would take the new one for done


def create(resource: APIObject) -> None:
    """Create a resource that is not there yet."""
    if resource.exists():
        say(f"{resource.kind} {resource.name} is there")
    else:
        resource.create()
        say(f"{resource.kind} {resource.name} created")


def await_operator(job: APIObject) -> None:
    """Wait until the operator has made the cluster, which the resources beside it belong to."""
    end = time.monotonic() + OPERATOR_S
    while status(job) in ("", "JobCreated"):
        if time.monotonic() > end:
            raise TimeoutError(f"the Dask operator has not answered within {OPERATOR_S:.0f} s; does it run?")
        time.sleep(POLL_S)
        job.refresh()


def await_end(job: APIObject) -> int:
    """Wait until the driver has ended; return its exit code, or TRY_AGAIN where nobody can tell it any more."""
    late = float("inf")  # when an operator that runs would have seen that the driver has ended
    while True:
        job.refresh()
        driver = driver_of(job)
        try:
            driver.refresh()
        except kr8s.NotFoundError:
            job.delete()
            say(f"{job.name}: the driver's pod is gone, with its node perhaps")
            return TRY_AGAIN
        if status(job) in ENDED:
            code = exit_code(driver)
            say(f"{job.name}: {status(job)}, exit code {code}; see `kubectl logs {driver.name}`")
            return code
        if driver.raw.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            late = min(late, time.monotonic() + OPERATOR_S)
        if time.monotonic() > late:
            job.delete()  # with the cluster, which nobody else would end
            say(f"{job.name}: exit code {exit_code(driver)}; the Dask operator did not see it, does it run?")
            return exit_code(driver)
        time.sleep(POLL_S)


def driver_of(job: APIObject) -> Pod:
    """Refer to the pod in which the operator runs the driver."""
    return Pod({"metadata": {"name": f"{job.name}-runner"}}, namespace=job.namespace)


def status(job: APIObject) -> str:
    """Word of the operator for how far a DaskJob is, empty before the first."""
    return str(job.raw.get("status", {}).get("jobStatus", ""))


def exit_code(driver: Pod) -> int:
    """Exit code of the driver; TRY_AGAIN where it never ran or was taken away before it could tell."""
    found = driver.raw.get("status", {})
    for container in found.get("containerStatuses", []):
        if ended := container.get("state", {}).get("terminated"):
            return int(ended["exitCode"])
    return 0 if found.get("phase") == "Succeeded" else TRY_AGAIN


def say(text: str) -> None:
    """Log a line."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
