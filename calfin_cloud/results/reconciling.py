"""A store's candidates of all dates become one series a domain: what was chosen, and why, is kept beside the fronts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from calfin_cloud.domains import Domain
from calfin_cloud.exports import json_value
from calfin_cloud.fronts import (
    Calibration,
    Chosen,
    Dated,
    SequenceSettings,
    calibration_beside,
    georeference,
    pixels_of,
    read_calibration,
    reconcile_scenes,
    uncertainty_of,
)
from calfin_cloud.network import network_id, weights_path
from calfin_cloud.results.choosing import lines_of, valid_entry
from calfin_cloud.results.reviewing import reviewed_fronts
from calfin_cloud.results.settling import line_id
from calfin_cloud.schema import UNSEEN
from calfin_cloud.storage import (
    check_finished,
    check_places,
    digest,
    hold_lease,
    read_batches,
    read_choices,
    read_features,
    read_fronts,
    read_rejected,
    read_reviews,
    read_scene_masks,
    read_settings,
    read_store_domains,
    write_choices,
)
from calfin_cloud.timeseries import length_scale


@dataclass(frozen=True)
class _Domain:
    """What is known of one domain: its tables, verdicts, scenes whose front melange touches, and earlier choices."""

    store: str
    domain: Domain
    fronts: gpd.GeoDataFrame
    rejected: gpd.GeoDataFrame
    shown: gpd.GeoDataFrame
    verdicts: Sequence[Mapping[str, Any]]
    doubted: Set[str]
    before: Mapping[str, Any]


def reconcile_store(store: str, *, settings: SequenceSettings | None = None) -> Iterator[tuple[str, Counter[str]]]:
    """Choose for every domain the sequence of fronts that all dates together support best; no network is needed.

    Candidates are the mapped fronts, those that were rejected, and what a trace along the fronts of the dates before
    and after finds in the stored masks (`fronts.reconcile_scenes`). Nothing that was mapped changes: the choices lie in
    files of their own, which series, exports and reports read (`usable_fronts`). Where the store has a table of melange
    that touches a front, that front counts half (`SequenceSettings.doubted`). Scenes with a verdict of a person stay
    as that person left them, and others follow them. A domain of which nothing has changed since is left alone, so that
    a second call does nothing and one after an interruption goes on with what is missing.

    Yields
    ------
    tuple
        Name of a domain whose choices are new, and how many of its fronts were `kept`, `restored`, `retraced`,
        `dropped`.

    Raises
    ------
    ValueError
        There is no store, or it does not say with which network it was made.
    StoreInUseError
        While another run writes to the store.

    Examples
    --------
    >>> dict(reconcile_store("fronts"))                                                            # doctest: +SKIP
    {'Crane': Counter({'kept': 115, 'restored': 9, 'retraced': 8, 'dropped': 4})}
    """
    settings = settings or SequenceSettings()
    network = str(read_settings(store)["network"])  # before the lease, which would make the folder
    with hold_lease(store, "reconcile") as check:
        check_finished(store)
        calibration = read_calibration(calibration_beside(weights_path(network)), network=network_id(network))
        for found in _domains(store):
            made_of = _made_of(found, settings, calibration)
            if found.before.get("made_of") == made_of:
                continue
            scenes = _choose(found, settings, calibration)
            check()
            write_choices(store, found.domain.name, {"made_of": made_of, "scenes": scenes})
            yield found.domain.name, Counter(row["choice"] for entry in scenes.values() for row in entry["rows"])


def _domains(store: str) -> Iterator[_Domain]:
    fronts, rejected, shown = read_fronts(store), read_rejected(store), reviewed_fronts(store, flagged=False)
    verdicts, before = read_reviews(store), read_choices(store)
    melange = read_features(store, "melange")
    doubted = set(melange["key"][melange["touches_front"]])
    for domain in read_store_domains(store):
        mine, no, now = (table[table["domain"] == domain.name] for table in (fronts, rejected, shown))
        keys = set(mine["key"])
        said = [verdict for verdict in verdicts if verdict["key"] in keys]
        yield _Domain(store, domain, mine, no, now, said, doubted & keys, before.get(domain.name, {}))


def _made_of(found: _Domain, settings: SequenceSettings, calibration: Calibration | None) -> str:
    """Digest of all that decides the choices of a domain."""
    masks = {key: stored.recipe.get("masks") for stored in read_batches(found.store, domain=found.domain.name)
             for key in stored.items}  # fmt: skip
    lines = [[row.key, line_id(row.geometry)] for table in
             (found.fronts, found.rejected) for row in table.itertuples()]  # fmt: skip
    about = [asdict(settings), None if calibration is None else asdict(calibration), version("calfin-cloud")]
    return digest(
        json.dumps([about, masks, lines, list(found.verdicts), sorted(found.doubted)], sort_keys=True).encode()
    )


def _choose(found: _Domain, settings: SequenceSettings, calibration: Calibration | None) -> dict[str, Any]:
    """Choose the fronts of a domain: an entry a scene that has one, see `choosing.Entry`."""
    settled = {verdict["key"] for verdict in found.verdicts}
    places = check_places(found.store, found.domain.name, found.fronts["key"])
    seen = found.fronts[(found.fronts["state"] != "failed") & ~found.fronts["reason"].isin(UNSEEN)]
    scenes = [scene for _, scene in seen.groupby(["datetime", "key"], sort=True)]
    keys = [str(scene["key"].iloc[0]) for scene in scenes]
    masks = partial(read_scene_masks, found.store, found.domain.name)
    of_scene = [places[str(scene["scene_id"].iloc[0])] for scene in scenes]
    dated = [_dated(found, scene, is_settled=key in settled) for key, scene in zip(keys, scenes, strict=True)]
    chosen = reconcile_scenes(dated, lambda n: masks(of_scene[n]), found.domain.ground_m, settings=settings)
    entries: dict[str, Any] = {}
    for n, (key, scene) in enumerate(zip(keys, scenes, strict=True)):
        if key in settled:
            entries |= _as_before(found, key, scene)
        elif chosen[n]:
            rows = _rows(chosen[n], found.domain, scene, lambda n=n: masks(of_scene[n]), calibration)
            entries[key] = {"lines": lines_of(scene), "rows": rows}
    return entries


def _dated(found: _Domain, scene: gpd.GeoDataFrame, *, is_settled: bool) -> Dated:
    """Lines of a scene in pixels: what people left of them where they have spoken, else all its candidates."""
    key, when = scene["key"].iloc[0], scene["datetime"].iloc[0].date()
    if is_settled:
        shown = found.shown[(found.shown["key"] == key) & (found.shown["state"] == "front")]
        return Dated(when, _in_pixels(shown[shown["verdict"] != "reject"], found.domain), is_settled=True)
    rejected = found.rejected[found.rejected["key"] == key]
    lines = [_in_pixels(table.dropna(subset="geometry"), found.domain) for table in (scene, rejected)]
    return Dated(when, lines[0], lines[1], is_doubted=key in found.doubted)


def _in_pixels(table: gpd.GeoDataFrame, domain: Domain) -> list[NDArray[np.float64]]:
    return [pixels_of(line, domain.grid.transform) for line in table.geometry]


def _as_before(found: _Domain, key: str, scene: gpd.GeoDataFrame) -> dict[str, Any]:
    """Entry that a scene had when a person looked at it; none where it was as mapped."""
    entry = found.before.get("scenes", {}).get(key)
    return {key: entry} if entry is not None and valid_entry(entry, scene) else {}


def _rows(
    chosen: Sequence[Chosen],
    domain: Domain,
    scene: gpd.GeoDataFrame,
    read: Any,  # noqa: ANN401 - a function without arguments: the masks (mask, y, x) of the scene
    calibration: Calibration | None,
) -> list[dict[str, Any]]:
    """Rows of an entry; what comes in is measured as mapped fronts are."""
    numbers = sorted(int(n) for n in scene["front"] if n >= 0)
    rows, following = [], max(numbers, default=-1) + 1
    lines = [made.front.line for made in chosen if made.front is not None]
    for made in chosen:
        row: dict[str, Any] = {"choice": made.choice, "why": made.why}
        if made.choice in ("kept", "dropped"):
            rows.append(row | {"front": numbers[made.number]})
            continue
        assert made.front is not None
        line = georeference(made.front.line, domain.grid.transform)
        columns = _columns(made, line, read(), lines, domain, calibration)
        rows.append(row | {"front": following, "line": line.wkb_hex, "columns": columns})
        following += 1
    return rows


def _columns(
    made: Chosen,
    line: Any,  # noqa: ANN401 - of shapely
    masks: NDArray[np.float32],
    lines: Sequence[NDArray[np.float64]],
    domain: Domain,
    calibration: Calibration | None,
) -> dict[str, Any]:
    """Columns of `schema.FRONT_SCHEMA` of a front that comes in, as JSON values; None of what is not known."""
    front, scale = made.front, length_scale(domain.crs, domain.polygon)
    assert front is not None
    others = [other for other in lines if other is not front.line]
    sure = uncertainty_of(front.line, masks[0], masks[1], calibration, others=others, traced_by=front.traced_by)
    metres = domain.ground_m
    columns: dict[str, Any] = {
        "length_m": line.length / scale,
        "confidence": front.confidence,
        "least_confidence": front.least,
        "traced_by": front.traced_by,
        "guide_distance_m": front.guide_m,
        "ends": front.ends,
        "sigma_m": sure.sigma_px * metres,
        "half95_m": sure.half95_px * metres,
        "score": sure.score,
    }
    columns = {name: json_value(value) for name, value in columns.items()}
    vertices = [] if np.isnan(sure.sigma_px) else (sure.vertex_sigma_px * metres).astype("float32").tolist()
    return columns | {"vertex_sigma_m": vertices, "score_reasons": sure.reasons, "isolation": "none"}
