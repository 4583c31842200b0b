"""What decides the results of a run, saved with its store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from calfin_cloud import fronts, inference
from calfin_cloud.fronts import TraceSettings
from calfin_cloud.inference import InferenceSettings
from calfin_cloud.network import DEFAULT_NETWORK
from calfin_cloud.polygons import PolygonSettings

EVEN_EVIDENCE = PolygonSettings(ice_evidence=0.5)
"""What is more ice than ocean is ice: the shipped network is seldom as sure as the release asks (224 of 255)."""


@dataclass(frozen=True)
class MapSettings:
    """What decides a front, saved with the store: the limits of cloud and nodata are the original's (2.1)."""

    network: str = DEFAULT_NETWORK
    max_cloud: float = 0.15
    max_nodata: float = 0.25
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    trace: TraceSettings = fronts.DEFAULT
    polygons: PolygonSettings = EVEN_EVIDENCE


VARIANTS = {"default": MapSettings()} | {
    name: MapSettings(inference=inference.CALFIN, trace=trace, polygons=PolygonSettings())
    for name, trace in fronts.VARIANTS.items()
    if name != "default"
}
"""Settings by name: ours, or those of the release for one of its four sets of scenes (6.1)."""


def saved(settings: MapSettings) -> dict[str, Any]:
    """Return settings as JSON values for `store.json`, without the engine: it decides no result."""
    values = asdict(settings)
    del values["inference"]["engine"]
    return values


def settings_from(saved: Mapping[str, Any]) -> MapSettings:
    """Read the settings that a store was made with (`store.json`)."""
    settings: MapSettings = _value(MapSettings, saved)
    return settings


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
