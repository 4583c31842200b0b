"""An emulated Kubernetes API server for the real Dask operator: `python -m deploy.api PORT RULES`, RULES a JSON file.

kmock keeps the objects; this adds what a real server fills in and selectors, and holds who shows the token `starter` to
the rules of a Role. It runs no pods and collects no garbage.
"""

import asyncio
import json
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import kmock
from jsonpatch import JsonPatchTestFailed
from kmock import KubernetesEmulator, KubernetesError, ResourceInfo

VERBS = {"list", "watch", "get", "create", "patch", "delete"}
KINDS = {
    "kubernetes.dask.org/v1/daskclusters": "DaskCluster",
    "kubernetes.dask.org/v1/daskworkergroups": "DaskWorkerGroup",
    "kubernetes.dask.org/v1/daskjobs": "DaskJob",
    "kubernetes.dask.org/v1/daskautoscalers": "DaskAutoscaler",
    "apps/v1/deployments": "Deployment",
    "batch/v1/jobs": "Job",
    "v1/pods": "Pod",
    "v1/services": "Service",
    "v1/events": "Event",
    "v1/namespaces": "Namespace",
    "apiextensions.k8s.io/v1/customresourcedefinitions": "CustomResourceDefinition",
}


class Api(KubernetesEmulator):
    """The server; `rules` are those of the starter's Role, `version` counts the changes."""

    rules = ()
    version = 0

    async def _handle(self, request):
        if request.action and request.headers.get("Authorization") == "Bearer starter":
            self._check_right(request)
        if request.action == kmock.action.CREATE:
            _fill_in(request)
        if request.action in (kmock.action.CREATE, kmock.action.UPDATE):
            self._stamp(request.data)
        try:
            return await super()._handle(request)
        except JsonPatchTestFailed as error:  # someone was faster; as 500 the operator would try the same for a minute
            raise KubernetesError(422, "Invalid", str(error)) from error

    def _stamp(self, change):
        """Give an object or a change of one the next version, by which the operator knows its own changes again."""
        self.version += 1
        if isinstance(change, list):  # a JSON patch
            change.append({"op": "add", "path": "/metadata/resourceVersion", "value": str(self.version)})
        else:
            change.setdefault("metadata", {})["resourceVersion"] = str(self.version)

    def _check_right(self, request):
        verb = {"FETCH": "get", "UPDATE": "patch"}.get(request.action.value, request.action.value.lower())
        kind = request.resource
        if not any(
            kind.group in rule["apiGroups"] and kind.plural in rule["resources"] and verb in rule["verbs"]
            for rule in self.rules
        ):
            raise KubernetesError(403, "Forbidden", f"the starter may not {verb} {kind.plural}")

    async def _serve_watch(self, request):
        print(f"watched: {request.resource.plural}", flush=True)
        async for event in super()._serve_watch(request):
            yield event

    async def _serve_list(self, request):
        found = await super()._serve_list(request)
        labels, fields = (_pairs(request.params.get(f"{what}Selector", "")) for what in ("label", "field"))
        items = [
            item
            for item in found["items"]
            if labels.items() <= item["metadata"].get("labels", {}).items()
            and fields.get("metadata.name", item["metadata"]["name"]) == item["metadata"]["name"]
        ]
        return found | {"items": items}


def _fill_in(request):
    kind = request.resource
    request.data["kind"] = KINDS[f"{kind.group}/{kind.version}/{kind.plural}".lstrip("/")]
    request.data["metadata"] |= {
        "namespace": request.namespace,
        "uid": str(uuid.uuid4()),
        "generation": 1,
        "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _pairs(selector):
    return dict(part.split("=", 1) for part in selector.split(",") if part)


async def serve(port, rules):
    """Answer until the process is ended."""
    api = Api()
    api.rules = rules
    for name, kind in KINDS.items():
        api.resources[name] = ResourceInfo(namespaced=True, kind=kind, singular=kind.lower(), verbs=VERBS)
    api["get /version/"] << {"major": "1", "minor": "35", "gitVersion": "v1.35.0"}
    api["get /api/"] << api._serve_api  # with the slash that kr8s adds
    api["get /apis/"] << api._serve_apis
    async with api, kmock.Server(api, port=port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())))
