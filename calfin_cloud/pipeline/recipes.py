"""What decides the results of a run, in short: saved with the store, and with every batch."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import Any

from calfin_cloud.domains import Domain, domains_json
from calfin_cloud.fronts import calibration_beside
from calfin_cloud.network import network_id, weights_path
from calfin_cloud.pipeline.settings import MapSettings, saved


def made_by(settings: MapSettings) -> dict[str, Any]:
    """Return what a store is made with, as `store.json` keeps it: settings, model, calibration, version of the code."""
    return {
        "settings": saved(settings),
        "model": network_id(settings.network),
        "calibration": calibration_id(settings.network),
        "code": version("calfin-cloud"),
    }


def calibration_id(network: str) -> str:
    """Digest of the calibration beside the weights of a network, given by name or path; `none` where there is none."""
    path = calibration_beside(weights_path(network))
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "none"


def recipe_of(domain: Domain, settings: MapSettings) -> dict[str, str]:
    """Digests of what decides the `masks` of a domain's scenes, and the `fronts` that are traced from them."""
    made = made_by(settings)
    how, calibration = made.pop("settings"), made.pop("calibration")
    masks = [made, how["max_cloud"], how["max_nodata"], how["inference"]]
    fronts = [how["trace"], how["polygons"], calibration, domains_json([domain])]
    return {"masks": _digest(masks), "fronts": _digest(fronts)}


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
