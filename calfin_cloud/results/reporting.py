"""A store becomes a folder that opens offline in a browser: a map of all fronts in time, pictures, verdicts, tables."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS

from calfin_cloud.domains import Domain
from calfin_cloud.feature_schema import FEATURE_REASONS
from calfin_cloud.land import land_around, window_around
from calfin_cloud.object_stores import store_text
from calfin_cloud.products import PRODUCT_COLUMNS, product_of, read_product
from calfin_cloud.results.boxes import Watch, unwatched
from calfin_cloud.results.downloads import AT_TIMES, FLAGGED, write_downloads, write_outlines
from calfin_cloud.results.page_data import (
    Shown,
    glacier_data,
    glacier_line,
    scenes_of,
    shown_tables,
    tables_of,
)
from calfin_cloud.results.reviewing import in_time, reviewed_fronts
from calfin_cloud.results.seaward import Features, features_of, page_features
from calfin_cloud.results.series import measure_course, store_product
from calfin_cloud.schema import REASONS
from calfin_cloud.storage import (
    checked_domains,
    outside_stores,
    picture_reader,
    read_places,
    read_rejected,
    read_reviews,
    read_store,
    read_store_domains,
)
from calfin_cloud.storage.files import read_each
from calfin_cloud.timeseries import flag_fronts
from calfin_cloud.whole_files import write_whole_file

MOST_PICTURES = 1500
PICTURE_PX = 640  # longest side, as the page shows it; AVIF of it is some 13 kB, half of WebP that looks alike
PICTURE_QUALITY, PICTURE_SPEED = 40, 9
NAMES_IN_TITLE = 5
FOLDERS = ("data", "pictures", "scripts", "lib")  # below that of a report
UNFINISHED = r"(data|pictures/\d{5})/\.\w+\.(js|avif)\.\w+/\w+\.(js|avif)"
REWRITTEN = re.compile(rf"data/\d{{5}}\.js|pictures/\d{{5}}/\d{{5}}\.avif|{UNFINISHED}")
"""Files of a report that the next one may not write again, unfinished ones of a report that was killed among them."""


def write_report(
    store: str | Path,
    folder: str | Path,
    *,
    title: str = "",
    most_pictures: int = MOST_PICTURES,
    references: str | Path | gpd.GeoDataFrame | None = None,
    watch: Watch = unwatched,
) -> Path:
    """Write the report of a store's results and return its page, `index.html`.

    It is a map of all glaciers, and of each glacier all its fronts, coloured by date, over the picture of the chosen
    one; two dates side by side; the positions and the mean year with their uncertainty; doubtful fronts, rejected
    candidates, scenes without a front and why; what made it all, and downloads. It opens from disk without a network,
    and can be copied to any web server or bucket. In the page a person accepts, rejects and redraws fronts and saves
    the verdicts for `calfin review --apply`. Its lines, those of `fronts.geojson` too, are simplified by half a
    pixel; the store has every vertex.

    Parameters
    ----------
    store
        Folder or object prefix that `calfin map` made.
    folder
        Is made; files of an earlier report in it are replaced, and no others. `report` within the store is the only
        folder of a store that is taken.
    title
        Heading of the page; the names of the glaciers where not given.
    most_pictures
        Pictures of scenes that are copied, those of the latest scenes first.
    references
        Fronts drawn by hand, a file as `read_product` takes or its table: a layer of their own.
    watch
        As in `measure_series`: a large store takes minutes.

    Returns
    -------
    Path
        `index.html` in the folder.

    Raises
    ------
    ValueError
        `store` is no store, nothing was mapped into it, fewer than no pictures are asked for, the references have no
        CRS or dates, or the folder lies within a store or has files of others where those of a report would be.

    Examples
    --------
    >>> cc.write_report("fronts", "report", title="Harald Moltke Brae", references="real/reference.parquet").name
    'index.html'
    """
    store, folder = store_text(store), outside_stores(folder, but="report")
    if most_pictures < 0:
        raise ValueError(f"most_pictures must be 0 or more, got {most_pictures}: 0 is a report without pictures")
    _check_own(folder)
    product, lines = store_product(store)
    fronts = in_time(reviewed_fronts(store), store)
    series = measure_course(product, lines, watch=watch) if len(product) else None
    flagged = fronts if series is None else _with_flags(store, fronts, series.flags)
    domains = read_store_domains(store)
    if not domains:
        raise ValueError(f"{store} has no domain yet, so there is nothing to show: run `calfin map` first")
    crs = read_store(store)["crs"]
    rejected = read_rejected(store)
    rejected = rejected[rejected["key"].isin(fronts["key"])]
    shown = shown_tables(flagged, rejected, _references(references, crs), series)
    _clear(folder)
    features = features_of(store)
    glaciers = _write_glaciers(store, domains, shown, features, folder, most_pictures=most_pictures, watch=watch)
    downloads = write_downloads(flagged, series, folder) + write_outlines(features, folder)
    about = _about(store, domains, title) | {"glaciers": glaciers, "downloads": downloads}
    about |= {"featureReasons": FEATURE_REASONS} if features else {}
    _write_script(folder / "data" / "about.js", "about", about)
    _write_script(folder / "data" / "land.js", "land", land_around(tuple(about["bounds"]), crs))
    _write_page(Path(str(files("calfin_cloud.results") / "page")), folder)
    return folder / "index.html"


def _about(store: str, domains: Sequence[Domain], title: str) -> dict[str, Any]:
    """Tell of a store as a whole, as the head of its page does."""
    made_by = read_store(store)
    left, bottom, right, top = (float(v) for v in shapely.total_bounds([d.polygon for d in domains]))
    more = " …" if len(domains) > NAMES_IN_TITLE else ""
    names = ", ".join(d.name.replace("-", " ") for d in domains[:NAMES_IN_TITLE]) + more
    return {
        "title": title or f"Calving fronts: {names}",
        "crs": made_by["crs"],
        "proj4": _proj4(made_by["crs"]),
        "bounds": [left, bottom, right, top],
        "window": list(window_around((left, bottom, right, top))),
        "reasons": REASONS,
        "applied": [[v["key"], v["front"], v["author"], v["time"]] for v in read_reviews(store)],
        "provenance": [[k, json.dumps(v) if isinstance(v, dict) else str(v)] for k, v in made_by.items()],
    }


def _write_glaciers(
    store: str,
    domains: Sequence[Domain],
    shown: Shown,
    features: Features,
    folder: Path,
    *,
    most_pictures: int,
    watch: Watch,
) -> list[dict[str, Any]]:
    """Write data and pictures of each domain; return its line of the overview."""
    latest = shown.fronts.drop_duplicates("key").sort_values("datetime", ascending=False)["key"].head(most_pictures)
    wanted, rows = set(latest), []
    for number, domain in watch("glaciers written", list(enumerate(domains))):
        tables = tables_of(shown, domain)
        pictures = _write_pictures(store, domain, tables, wanted, folder / "pictures" / f"{number:05}")
        seaward = page_features(features, domain.name, domain.resolution_m)
        data = glacier_data(domain, tables, pictures, number, seaward)
        _write_script(folder / "data" / f"{number:05}.js", "glacier", data)
        rows.append(glacier_line(domain, tables, number))
    return rows


def _write_page(page: Path, folder: Path) -> None:
    """Write the files of the page; `shutil.copytree` would go on with the others on a full disk."""
    for path in (path for path in sorted(page.rglob("*")) if path.is_file()):
        copy = folder / path.relative_to(page)
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_whole_file(copy, path.read_bytes())


def _check_own(folder: Path) -> None:
    """Refuse a folder that has files of others where a report has its own; one that was stopped half way may go on."""
    about = folder / "data" / "about.js"
    if about.is_file() and about.read_bytes().startswith(b'atlas.receive("about", '):
        return
    foreign = {name.partition("/")[0] + "/" for name in _files(folder) if not REWRITTEN.fullmatch(name)}
    foreign |= {"index.html"} if (folder / "index.html").exists() else set()
    if foreign:
        raise ValueError(
            f"{folder} holds other files in {', '.join(sorted(foreign))}, where those of a report would be: "
            "choose a new folder, or that of an earlier report"
        )


def _clear(folder: Path) -> None:
    """Make the folder, and take away what an earlier report has left that this one may not write again."""
    for name in filter(REWRITTEN.fullmatch, _files(folder)):
        (folder / name).unlink()
        if (folder / name).parent.name.startswith("."):
            (folder / name).parent.rmdir()
    about = folder / "data" / "about.js"
    listed = about.read_text(encoding="utf-8").partition('"downloads":')[2] if about.is_file() else ""
    for name in AT_TIMES:
        if f'"{name}"' in listed:  # else it is a person's own
            (folder / name).unlink(missing_ok=True)
    (folder / "data").mkdir(parents=True, exist_ok=True)


def _files(folder: Path) -> list[str]:
    """Files in the folders that a report has, by their path below it."""
    found = [path for name in FOLDERS for path in (folder / name).rglob("*") if not path.is_dir()]
    return [path.relative_to(folder).as_posix() for path in found]


def _with_flags(store: str, fronts: gpd.GeoDataFrame, flags: pd.DataFrame) -> gpd.GeoDataFrame:
    """Flag the fronts of domains that `calfin timeseries` has not checked yet; what it found elsewhere stays."""
    fresh = flag_fronts(fronts[~fronts["domain"].isin(checked_domains(store))], flags)
    made = fronts.copy()
    made.loc[fresh.index, list(FLAGGED)] = fresh[list(FLAGGED)]
    return made


def _references(given: str | Path | gpd.GeoDataFrame | None, crs: str) -> gpd.GeoDataFrame:
    """Fronts drawn by hand in the CRS of the store; no row where none are given."""
    if given is None:
        return gpd.GeoDataFrame(columns=[*PRODUCT_COLUMNS, "geometry"], geometry="geometry", crs=crs)
    table = product_of(given) if isinstance(given, gpd.GeoDataFrame) else read_product(given)
    return table.to_crs(crs)


def _write_pictures(store: str, domain: Domain, tables: Shown, wanted: set[str], folder: Path) -> list[int]:
    """Write the 8-bit pictures of a domain's scenes, each named by its place among them; return these places."""
    places = read_places(store, domain.name)
    scenes = enumerate(scenes_of(tables).itertuples(index=False))
    stored = [(number, places[scene]) for number, (key, scene) in scenes if key in wanted and scene in places]
    if not stored:
        return []
    read_picture = picture_reader(store, domain.name)

    def write(scene: tuple[int, int]) -> list[int]:
        number, place = scene
        grey = read_picture(place)
        if grey is None:
            return []
        folder.mkdir(parents=True, exist_ok=True)
        write_whole_file(folder / f"{number:05}.avif", _avif(grey))
        return [number]

    return [number for found in read_each(write, stored) for number in found]


def _avif(grey: NDArray[np.uint8]) -> bytes:
    """Picture of a scene, (y, x) uint8, at most `PICTURE_PX` on its longer side."""
    ratio = PICTURE_PX / max(grey.shape)
    size = [max(1, round(side * ratio)) for side in grey.shape[::-1]]
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA) if ratio < 1 else grey
    out = io.BytesIO()
    picture = Image.fromarray(small).convert("RGB")
    picture.save(out, "AVIF", quality=PICTURE_QUALITY, speed=PICTURE_SPEED, subsampling="4:0:0")
    return out.getvalue()


def _write_script(path: Path, name: str, data: Mapping[str, Any]) -> None:
    """Write data as a script that hands it to the page, since a browser reads no data files from disk."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    write_whole_file(path, f"atlas.receive({json.dumps(name)}, {text});\n")


def _proj4(crs: str) -> str:
    with warnings.catch_warnings():  # pyproj warns that the name of the datum is lost
        warnings.simplefilter("ignore", UserWarning)
        return CRS(crs).to_proj4()
