"""Bands and sea of one scene in; what is seen of each feature that is wanted, or why not, out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from calfin_cloud.feature_schema import NotSeenError
from calfin_cloud.features.bands import Bands
from calfin_cloud.features.icebergs import find_icebergs
from calfin_cloud.features.melange import measure_melange
from calfin_cloud.features.plumes import measure_plume
from calfin_cloud.features.sea import Sea

Columns = dict[str, Any]

MEASURES: dict[str, Callable[..., Columns]] = {
    "icebergs": find_icebergs,
    "melange": measure_melange,
    "plumes": measure_plume,
}


def measure_features(wanted: Sequence[str], bands: Bands, sea: Sea | None, *, zenith_deg: float) -> dict[str, Columns]:
    """Measure features (of `FEATURES`) in a scene: columns by feature, those of a state always among them.

    Whatever goes wrong with one becomes its state and reason; nothing is raised, so that no feature takes a front or
    another feature with it.
    """
    return {name: _measured(name, bands, sea, zenith_deg) for name in wanted}


def not_seen(reason: str, detail: str) -> Columns:
    """Columns of a feature that cannot be measured."""
    return {"state": "not_seen", "reason": reason, "detail": " ".join(detail.split())[:500]}


def _measured(name: str, bands: Bands, sea: Sea | None, zenith_deg: float) -> Columns:
    if sea is None:
        return not_seen("no_sea", "the scene has no ocean polygon, or next to nothing of it is sea")
    try:
        found = MEASURES[name](bands, sea, zenith_deg=zenith_deg)
    except NotSeenError as error:
        return not_seen(error.reason, error.detail)
    except Exception as error:
        return not_seen("error", f"{type(error).__name__}: {error}")
    return {"state": "measured", "reason": "", "detail": ""} | found
