"""What decides the results of a run, saved with its store."""

from __future__ import annotations

from dataclasses import dataclass, field

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
