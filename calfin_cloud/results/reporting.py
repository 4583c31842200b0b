"""A store becomes a folder that opens offline in a browser: map in time, positions, pictures, verdicts, downloads."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import geopandas as gpd
import matplotlib
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from shapely.affinity import affine_transform

from calfin_cloud.domains import Domain
from calfin_cloud.figures import scene_png
from calfin_cloud.results.reviewing import reviewed_fronts
from calfin_cloud.results.series import Series, measure_series, store_product
from calfin_cloud.schema import REASONS
from calfin_cloud.storage import (
    checked_domains,
    read_picture,
    read_places,
    read_scene_grey,
    read_store,
    read_store_domains,
)
from calfin_cloud.timeseries import flag_fronts

MOST_PICTURES = 2000
SIMPLIFY_PX = 0.3
POINT = ("key", "datetime", "change_m", "sigma_m")
FLAGGED = ("score", "flags", "flag_details")
FACTS = (*FLAGGED, "sigma_m", "length_m", "quality_flag", "verdict", "score_reasons")


def write_report(store: str, folder: Path, *, title: str = "", most_pictures: int = MOST_PICTURES) -> Path:
    """Write the report of a store's results and return its page, `index.html`.

    It holds every front on a picture of its domain, coloured by date, the positions and the mean year of each glacier
    with their uncertainty, doubtful fronts, pictures, scenes without a front and why, what made it, and downloads. In
    the page a person accepts, rejects and redraws fronts and saves the verdicts for `calfin review --apply`.

    Parameters
    ----------
    folder
        Is made; files of an earlier report in it are replaced.
    most_pictures
        Pictures of scenes that are copied, those of the latest scenes first.
    """
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    product, lines = store_product(store)
    fronts = reviewed_fronts(store)
    series = measure_series(product, lines) if len(product) else None
    flagged = fronts if series is None else _with_flags(store, fronts, series.flags)
    names = _copy_pictures(store, fronts, folder / "pictures", most_pictures)
    domains = [_domain_data(store, domain, flagged, series, folder) for domain in read_store_domains(store)]
    data = {
        "title": title or f"Calving fronts: {', '.join(d['name'] for d in domains[:5])}",
        "colours": [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps["cividis"](np.linspace(0.2, 1, 64))],
        "reasons": REASONS,
        "pictures": names,
        "domains": domains,
        "provenance": [[k, json.dumps(v) if isinstance(v, dict) else str(v)] for k, v in read_store(store).items()],
        "downloads": _write_downloads(flagged, series, folder),
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    (folder / "data.js").write_text(f"const DATA = {text};\n", encoding="utf-8")
    for name in ("index.html", "report.js", "report.css"):
        shutil.copyfile(str(files("calfin_cloud.results") / "page" / name), folder / name)
    return folder / "index.html"


def _with_flags(store: str, fronts: gpd.GeoDataFrame, flags: pd.DataFrame) -> gpd.GeoDataFrame:
    """Flag the fronts of domains that `calfin timeseries` has not checked yet; what it found elsewhere stays."""
    fresh = flag_fronts(fronts[~fronts["domain"].isin(checked_domains(store))], flags)
    made = fronts.copy()
    made.loc[fresh.index, list(FLAGGED)] = fresh[list(FLAGGED)]
    return made


def _domain_data(
    store: str, domain: Domain, fronts: gpd.GeoDataFrame, series: Series | None, folder: Path
) -> dict[str, Any]:
    """Gather what the page shows of one domain; lines in px of its picture, x to the right and y down."""
    mine = fronts[fronts["domain"] == domain.name]
    picture = f"pictures/domain-{domain.name}.png"
    (folder / picture).write_bytes(scene_png(_latest_grey(store, domain, mine), [], side=1400))
    transform = domain.grid.transform
    return {
        "name": domain.name,
        "picture": picture,
        "size": [domain.shape[1], domain.shape[0]],
        "transform": list(transform.to_gdal()),
        "crs": domain.crs,
        "fronts": [_front_data(row, transform) for _, row in mine[mine["state"] == "front"].iterrows()],
        "without": [
            [row.scene_id, f"{row.datetime:%Y-%m-%d}", row.platform, row.state, row.reason, row.detail]
            for row in mine[mine["state"] != "front"].itertuples()
        ],
        "positions": _positions(mine, series),
        "seasonal": _seasonal(mine, series),
    }


def _front_data(row: pd.Series, transform: Any) -> dict[str, Any]:  # noqa: ANN401 - affine's own type
    line = affine_transform(row["geometry"], (~transform).to_shapely()).simplify(SIMPLIFY_PX)
    facts = {name: _number(row[name]) for name in FACTS if name in row and _number(row[name]) not in (None, "")}
    return {
        "key": row["key"],
        "scene": row["scene_id"],
        "front": int(row["front"]),
        "date": f"{row['datetime']:%Y-%m-%d}",
        "platform": row["platform"],
        "line": np.round(shapely.get_coordinates(line), 1).ravel().tolist(),
        **facts,
    }


def _positions(fronts: gpd.GeoDataFrame, series: Series | None) -> list[dict[str, Any]]:
    """Positions of a domain's scenes by branch: key, date, advance since the start and its uncertainty, in m."""
    if series is None:
        return []
    known = series.positions[series.positions["key"].isin(fronts["key"])].dropna(subset="change_m")
    return [
        {
            "branch": str(branch),
            "points": [
                [key, f"{when:%Y-%m-%d}", _number(change), _number(sigma)]
                for key, when, change, sigma in zip(*(part[c] for c in POINT), strict=True)
            ],
        }
        for branch, part in known.groupby("branch")
    ]


def _seasonal(fronts: gpd.GeoDataFrame, series: Series | None) -> list[list[Any]]:
    """Mean year of a domain's glacier in its first branch: month, deviation in m, its standard error."""
    if series is None:
        return []
    known = series.positions[series.positions["key"].isin(fronts["key"])]
    mine = series.seasonal[series.seasonal["glacier_id"].isin(known["glacier_id"])]
    first = mine[mine["branch"] == mine["branch"].min()]
    return [[int(r.month), round(r.deviation_m, 1), _number(r.sigma_m)] for r in first.itertuples()]


def _latest_grey(store: str, domain: Domain, fronts: gpd.GeoDataFrame) -> NDArray[np.uint8]:
    """Picture of the latest scene with a front, else a blank one."""
    places = read_places(store, domain.name)
    for scene in fronts.sort_values(["state", "datetime"], ascending=[True, False])["scene_id"]:
        grey = read_scene_grey(store, domain.name, places[scene])
        if grey is not None:
            return grey
    return np.zeros(domain.shape, dtype=np.uint8)


def _copy_pictures(store: str, fronts: gpd.GeoDataFrame, folder: Path, most: int) -> dict[str, str]:
    """Copy the pictures of the latest scenes; return the path of each in the report by key."""
    names = {}
    scenes = fronts.drop_duplicates("key").sort_values("datetime", ascending=False).head(most)
    for number, row in enumerate(scenes.itertuples()):
        picture = read_picture(store, row.domain, row.scene_id)
        if picture is not None:
            names[row.key] = f"pictures/{number:05}.png"
            (folder / f"{number:05}.png").write_bytes(picture)
    return names


def _write_downloads(fronts: gpd.GeoDataFrame, series: Series | None, folder: Path) -> list[str]:
    plain = fronts[[c for c in fronts.columns if c != "vertex_sigma_m"]]
    plain.drop(columns="geometry").to_csv(folder / "scenes.csv", index=False)
    plain[plain["state"] == "front"].to_file(folder / "fronts.geojson", driver="GeoJSON")
    if series is None:
        return ["fronts.geojson", "scenes.csv"]
    for name in ("positions", "rates", "yearly", "seasonal"):
        getattr(series, name).to_csv(folder / f"{name}.csv", index=False)
    doubtful = plain[plain["flags"] != ""]
    doubtful[["key", "front", *FLAGGED]].to_csv(folder / "flags.csv", index=False)
    return ["fronts.geojson", "scenes.csv", "positions.csv", "rates.csv", "yearly.csv", "seasonal.csv", "flags.csv"]


def _number(value: Any) -> Any:  # noqa: ANN401 - a cell of a table
    """Value as JSON has it, three significant places after the point; None for NaN."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 3)
    return value
