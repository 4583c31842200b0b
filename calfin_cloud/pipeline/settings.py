"""What decides the results of a run: its settings, saved with the store, and their digests, saved with every batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any, get_args, get_type_hints

from calfin_cloud import fronts
from calfin_cloud.domains import Domain, domains_json
from calfin_cloud.feature_schema import check_wanted
from calfin_cloud.fronts import Calibration, TraceSettings, calibration_beside, read_calibration
from calfin_cloud.network import (
    CALFIN,
    DEFAULT_NETWORK,
    FAST,
    ONCE,
    TILES,
    InferenceSettings,
    eight_bit_id,
    engine_of,
    is_eight_bit,
    network_id,
    weights_path,
)
from calfin_cloud.polygons import PolygonSettings
from calfin_cloud.sensors import own_sensors

EVEN_EVIDENCE = PolygonSettings(ice_evidence=0.5)
"""What is more ice than ocean is ice: the shipped network is seldom as sure as the release asks (224 of 255)."""


@dataclass(frozen=True)
class MapSettings:
    """What decides a front, saved with the store: the limits of cloud and nodata are the original's (2.1).

    Attributes
    ----------
    network
        Name of a shipped network, or path of a weights file.
    max_cloud, max_nodata
        Part of the domain, 0 to 1, above which a scene is left out.
    inference
        How pictures are cut for the network, and what runs it.
    trace
        From masks to fronts.
    polygons
        From fronts to ocean and ice.
    features
        What else is measured in each scene, of `feature_schema.FEATURES`; nothing of it changes a front.

    Raises
    ------
    ValueError
        A limit is above 1, or a feature is not known.

    Examples
    --------
    >>> MapSettings(max_cloud=0.3).max_nodata
    0.25
    """

    network: str = DEFAULT_NETWORK
    max_cloud: float = 0.15
    max_nodata: float = 0.25
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    trace: TraceSettings = fronts.DEFAULT
    polygons: PolygonSettings = EVEN_EVIDENCE
    features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", check_wanted(self.features))
        for name in ("max_cloud", "max_nodata"):
            if not (limit := getattr(self, name)) <= 1:  # NaN neither
                raise ValueError(f"{name} must be a part of the domain, at most 1, got {limit}: 15 % is 0.15")


VARIANTS = {
    "default": MapSettings(),
    "tiles": MapSettings(inference=TILES),
    "once": MapSettings(inference=ONCE),
    "fast": MapSettings(inference=FAST),
} | {
    name: MapSettings(inference=CALFIN, trace=trace, polygons=PolygonSettings())
    for name, trace in fronts.VARIANTS.items()
    if name != "default"
}
"""Settings by name: ours; those before version 0.2.0; with each picture shown once; that in eight bits; those of
the release for its four sets of scenes (6.1).
"""

LATER = {"optical_whole": False, "turned": False, "verify_windows": True, "eight_bit": False}
"""Settings of inference that stores name only where they are not these, so that older stores stay what they are."""


def saved(settings: MapSettings) -> dict[str, Any]:
    """Return settings as JSON values for `store.json`, without the engine: it decides no result.

    Features are named where there are any, so that a store without them is as it was before there were features.
    """
    values = asdict(settings)
    del values["inference"]["engine"]
    for name, before in LATER.items():
        if values["inference"][name] == before:
            del values["inference"][name]
    if not settings.features:
        del values["features"]
    return values


def settings_from(saved: Mapping[str, Any]) -> MapSettings:
    """Read the settings that a store was made with (`store.json`).

    Raises
    ------
    ValueError
        Where another version of the code knew other settings.
    """
    values = {"features": ()} | dict(saved)
    if "inference" in values:
        values["inference"] = LATER | dict(values["inference"])
    settings: MapSettings = _value(MapSettings, values)
    return settings


def made_by(settings: MapSettings) -> dict[str, Any]:
    """Return what a store is made with, as `store.json` keeps it: settings, model, calibration, version of the code."""
    made = {
        "settings": saved(settings),
        "model": network_id(settings.network),
        "calibration": calibration_id(settings.network),
        "code": _code(),
    }
    if settings.inference.eight_bit:
        made["eight_bit"] = eight_bit_id(settings.network, settings.inference)
    own = [asdict(row) for row in own_sensors()]
    return made | ({"sensors": own} if own else {})


def recipe_of(domain: Domain, settings: MapSettings) -> dict[str, str]:
    """Digests of what decides the `masks` of a domain's scenes, and the `fronts` that are traced from them.

    `features` tells which bands were kept; there is none where no features are wanted.
    """
    made = made_by(settings)
    how, calibration = made.pop("settings"), made.pop("calibration")
    masks = [made, how["max_cloud"], how["max_nodata"], how["inference"]]
    fronts = [how["trace"], how["polygons"], calibration, made["code"], domains_json([domain])]
    features = {"features": _digest(list(settings.features))} if settings.features else {}
    return {"masks": _digest(masks), "fronts": _digest(fronts), **features}


def calibration_id(network: str) -> str:
    """Digest of the calibration beside the weights of a network, given by name or path; `none` where there is none."""
    path = calibration_beside(weights_path(network))
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "none"


def calibration_of(network: str) -> Calibration | None:
    """Read the calibration beside weights given by name or path; None where there is none."""
    return _calibration(network, calibration_id(network))


@lru_cache(maxsize=4)
def _calibration(network: str, _: str) -> Calibration | None:
    return read_calibration(calibration_beside(weights_path(network)), network=network_id(network))


def code_of(settings: MapSettings) -> str:
    """Version of the code, and the engine of the network where it is not Keras: `0.1.0`, `0.1.0 openvino int8`."""
    engine = engine_of(settings.network, settings.inference)
    bits = " int8" if is_eight_bit(settings.network, settings.inference) else ""
    return _code() + ("" if engine == "keras" else f" {engine}{bits}")


@lru_cache(maxsize=1)
def _code() -> str:
    return version("calfin-cloud")  # which reads files of the installation, whenever it is asked


def _value(kind: Any, saved: Any) -> Any:  # noqa: ANN401 - any dataclass of settings, or a plain value
    """Turn saved JSON into a value of its kind, dataclasses within dataclasses included."""
    kinds = [k for k in (kind, *get_args(kind)) if is_dataclass(k)]
    if not kinds or saved is None:
        return saved
    made: Any = kinds[0]
    unknown = set(saved) ^ {f.name for f in fields(made) if f.compare}
    if unknown:
        raise ValueError(
            f"the store was made with other settings than this version knows: {sorted(unknown)} differ; "
            "use the version in its store.json, or map into a new store"
        )
    hints = get_type_hints(made)
    return made(**{name: _value(hints[name], value) for name, value in saved.items()})


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
