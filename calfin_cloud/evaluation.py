"""A network against labelled images, and mapped fronts against hand-drawn ones: tables a scene and overall."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skimage.morphology import skeletonize

from calfin_cloud.datasets import ICE, UNKNOWN, Sample
from calfin_cloud.fronts import TraceSettings, draw_line, trace_fronts
from calfin_cloud.inference import predict_scene, prepare_scene
from calfin_cloud.metrics import front_iou, ice_iou, line_distances, pixel_distances, score_scene, summarise
from calfin_cloud.network import DEFAULT_NETWORK, network_id

DATE_COLUMNS = ("date", "Date", "SourceDate", "datetime")
ID_COLUMNS = ("glacier_id", "GlacierID", "Glacier_ID", "GLACIER_ID")
MAX_DAYS = 366
FAR_M = 5000.0  # references without a glacier id belong to the fronts they come this close to


def score(
    samples: Iterable[Sample], *, network: str = DEFAULT_NETWORK, trace: TraceSettings | None = None
) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Map labelled scenes and measure the fronts, without a fjord mask; return the table and its summary.

    Distances are symmetric nearest-neighbour distances in px of the image (`metrics.pixel_distances`), all fronts of a
    scene together against all pieces of its reference. Scenes without a found front stay in the table.

    Returns
    -------
    A row a scene, and for each glacier and for `all` what `metrics.summarise` says plus the means of both overlaps.
    """
    trace = trace or TraceSettings()
    rows, distances = [], {}
    for number, sample in enumerate(samples):
        row, apart = _score_sample(sample, network, trace)
        rows.append(row)
        if apart is not None:
            distances[number] = apart
    if not rows:
        raise ValueError("there are no samples to score: name folders that hold image sets")
    table = pd.DataFrame(rows)
    groups: dict[str, pd.DataFrame] = {str(g): part for g, part in table.groupby("glacier")} | {"all": table}
    return table, {name: _summary(part, distances) for name, part in groups.items()}


def write_scores(table: pd.DataFrame, summary: Mapping[str, Mapping[str, float]], out: Path, *, network: str) -> Path:
    """Write `scores.csv` (a row a scene) and `scores.json` (summary by glacier, definition, network) into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "scores.csv", index=False)
    about = {
        "network": network_id(network),
        "definition": "symmetric nearest-neighbour distance in px of the image, no fjord mask (Cheng et al. 2021)",
        "left_out": "scenes without a found front leave the distances, and lower the detection rate",
        "summary": summary,
    }
    path = out / "scores.json"
    path.write_text(json.dumps(about, indent=1) + "\n")
    return path


def read_reference(path: str | Path) -> gpd.GeoDataFrame:
    """Read hand-drawn fronts of any vector format into `geometry`, `date`, and `scene_id`, `glacier_id` where they are.

    The date is the column date, Date, SourceDate or datetime, the id glacier_id, GlacierID, Glacier_ID or GLACIER_ID.
    """
    table = gpd.read_parquet(path) if str(path).endswith("parquet") else gpd.read_file(path)
    date = next((c for c in DATE_COLUMNS if c in table.columns), None)
    if date is None or table.crs is None:
        raise ValueError(f"{path}: fronts need a CRS and a date in one of {DATE_COLUMNS}, got {list(table.columns)}")
    made = gpd.GeoDataFrame(geometry=table.geometry)
    made["date"] = pd.to_datetime(table[date], utc=True, format="ISO8601").dt.strftime("%Y-%m-%d")
    if "scene_id" in table.columns:
        made["scene_id"] = table["scene_id"]
    if column := next((c for c in ID_COLUMNS if c in table.columns), None):
        made["glacier_id"] = table[column].astype(str)
    return made[made.geometry.notna()].reset_index(drop=True)


def compare_fronts(fronts: gpd.GeoDataFrame, reference: gpd.GeoDataFrame, *, max_days: int = MAX_DAYS) -> pd.DataFrame:
    """Measure mapped fronts against hand-drawn ones: `key, reference_date, distance_m`, a row a scene and date.

    All fronts of a scene together against the reference of that scene where it is named; else against that of the
    same glacier (by id, by place without ids) of the same day; else against the last before and the first after within
    `max_days`. The distance is the symmetric mean in m (`metrics.line_distances`).
    """
    rows: list[dict[str, Any]] = []
    reference = reference.to_crs(fronts.crs)
    for key, of_scene in fronts[fronts["state"] == "front"].groupby("key", sort=False):
        line = of_scene.geometry.union_all()
        first = of_scene.iloc[0]
        for date, drawn in _references(first, line, reference, max_days):
            rows.append({"key": key, "reference_date": date, "distance_m": float(line_distances(line, drawn).mean())})
    return pd.DataFrame(rows, columns=["key", "reference_date", "distance_m"])


def _references(
    scene: pd.Series,
    line: Any,  # noqa: ANN401 - shapely's geometries have no common type with a name
    reference: gpd.GeoDataFrame,
    max_days: int,
) -> Iterator[tuple[str, Any]]:
    """Date and geometry of the references that a scene is measured against."""
    if "scene_id" in reference.columns:
        mine = reference[reference["scene_id"] == scene["scene_id"]]
    elif "glacier_id" in reference.columns and scene["glacier_id"]:
        mine = reference[reference["glacier_id"] == scene["glacier_id"]]
    else:
        mine = reference[reference.distance(line) < FAR_M]
    days = (pd.to_datetime(mine["date"], utc=True) - scene["datetime"].normalize()).dt.days
    if "scene_id" not in reference.columns and not (days == 0).any():
        days = days[days.abs() <= max_days]
        nearest = {int(side.iloc[side.abs().argmin()]) for side in (days[days < 0], days[days > 0]) if len(side)}
    else:
        nearest = set(days) if "scene_id" in reference.columns else {0}
    for day in sorted(nearest):
        drawn = mine.loc[days.index[days == day]]
        yield str(drawn["date"].iloc[0]), drawn.geometry.union_all()


def _score_sample(
    sample: Sample, network: str, trace: TraceSettings
) -> tuple[dict[str, Any], NDArray[np.floating] | None]:
    scene = np.stack([sample.image, np.full_like(sample.image, np.nan)])
    masks = predict_scene(prepare_scene(scene, resolution_m=30.0), network=network, trace=trace)
    traced = trace_fronts(masks[0], masks[1], settings=trace)
    line = np.zeros(sample.image.shape, dtype=bool)
    for front in traced.fronts:
        line |= draw_line(np.rint(front.line[:, ::-1]).astype(np.intp), line.shape)
    reference = skeletonize(sample.front)
    has_reference = bool(reference.any())
    apart = pixel_distances(line, reference) if line.any() and has_reference else None
    known = (sample.ice != UNKNOWN) & ~np.isnan(masks[1])
    row = {
        "scene": sample.name,
        "glacier": sample.glacier,
        "sensor": sample.sensor,
        "n_fronts": len(traced.fronts),
        "reason": traced.reason,
        "front_iou": front_iou(line, reference) if has_reference else float("nan"),
        "ice_iou": ice_iou(masks[1] > 0.5, sample.ice == ICE, known) if known.any() else float("nan"),
    }
    scored = score_scene(apart if has_reference else (np.zeros(0) if line.any() else None), has_reference=has_reference)
    return row | scored, apart


def _summary(part: pd.DataFrame, distances: Mapping[int, NDArray[np.floating]]) -> dict[str, float]:
    overlaps = {name: float(part[name].mean()) for name in ("front_iou", "ice_iou")}
    return {k: round(v, 4) for k, v in (summarise(part, distances) | overlaps).items()}
