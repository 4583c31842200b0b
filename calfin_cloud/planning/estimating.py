"""Seconds that all scenes take, and how far off that may be, from what the scenes of a probe took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from statistics import variance as variance_of

from scipy.special import stdtrit  # Student's t; scipy.stats takes half a second to import

from calfin_cloud.planning.probing import Probe, Slots

SURE = 0.9
"""Probability that the range holds, as far as the scenes of the probe stand for the others."""


def work_seconds(probe: Probe, slots: Slots, n_scenes: int) -> tuple[float, float]:
    """Seconds of `n_scenes` on all slots, and how far off that may be."""
    if not probe.read_s:
        return 0.0, 0.0
    share, step = share_to_map(probe), step_seconds(probe)
    network_s = share * step["network"]
    # Scenes are read ahead: they cost what a processor does for them, unless they come too slowly.
    rest_s = probe.busy_s + share * step["trace"]
    scene_s = max(network_s / slots.network, rest_s / slots.others, (network_s + rest_s) / slots.all, probe.interval_s)
    # A few scenes on many slots take as long as one scene.
    work_s = max(scene_s * n_scenes, step["read"] + network_s + share * step["trace"])
    return work_s, work_s * relative_error(probe, n_scenes)


def relative_error(probe: Probe, n_scenes: int) -> float:
    """Half the range of the mean seconds of a scene, as part of it, from the spread over the probe.

    Three things vary: the time to read, the share of scenes that need the network, and what those take.
    """
    n_read, n_mapped = len(probe.read_s), len(probe.mapped)
    left_out = 1 - n_mapped / n_scenes
    if n_mapped < 2 or left_out <= 0:
        return float(left_out > 0)
    rest = [m.network_s + m.trace_s for m in probe.mapped]
    share = share_to_map(probe)
    # One scene of either kind more than there were: none among a few does not mean that there are none.
    careful = (n_read * share + 1) / (n_read + 2)
    variance = variance_of(probe.read_s) * (probe.busy_s / fmean(probe.read_s)) ** 2 / n_read
    variance += fmean(rest) ** 2 * careful * (1 - careful) / n_read + share**2 * variance_of(rest) / n_mapped
    half = float(stdtrit(n_mapped - 1, 0.5 + SURE / 2)) * math.sqrt(variance * left_out)
    return half / (probe.busy_s + share * fmean(rest))


def share_to_map(probe: Probe) -> float:
    """Part of the scenes that need the network."""
    return probe.reasons.get("", 0) / max(len(probe.read_s), 1)


def step_seconds(probe: Probe) -> dict[str, float]:
    """Mean seconds of a scene in each step."""
    return {
        "read": mean(probe.read_s),
        "network": mean([m.network_s for m in probe.mapped]),
        "trace": mean([m.trace_s for m in probe.mapped]),
    }


def mean(values: Sequence[float]) -> float:
    """Mean of values; 0 where a probe has none."""
    return fmean(values) if values else 0.0
