"""Verbs from fronts to results: time series."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def timeseries(options: argparse.Namespace) -> int:
    """Measure how fronts of a store or a vector file move: positions, rates, seasons, regions, doubtful fronts."""
    import geopandas as gpd

    from calfin_cloud.products import read_product
    from calfin_cloud.results import measure_series, read_lines, store_product, write_series

    if Path(options.fronts).is_file():
        fronts, lines = read_product(options.fronts, _pairs(options.columns)), read_lines()
    else:
        fronts, lines = store_product(options.fronts)
    if options.glaciers:
        fronts = fronts[fronts["glacier_id"].isin(options.glaciers)]
    fronts = fronts.to_crs(options.crs) if options.crs else fronts
    lines = read_lines(lines, fronts, centerlines=options.centerlines, boxes=options.boxes, ice=options.ice)
    regions = gpd.read_file(options.regions) if options.regions else None
    series = measure_series(fronts, lines, regions)
    write_series(series, fronts, options.out)
    print(series.rates.head(40).round(1).to_string(index=False))
    missing = series.positions[series.positions["reason"] != ""]
    for (branch, reason), rows in missing.groupby(["branch", "reason"]):
        print(f"{len(rows)} fronts without a position: {branch or 'no gate'}: {reason}", file=sys.stderr)
    print(f"{len(series.positions)} positions, {len(series.flags)} doubtful: {options.out}")
    return 0


def add_timeseries(parser: Any) -> None:  # noqa: ANN401 - argparse's own types
    """Add the flags of `calfin timeseries`."""
    parser.add_argument("fronts", metavar="STORE_OR_FILE", help="store of `calfin map`, or any vector file of fronts")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for tables and pictures")
    parser.add_argument("--centerlines", metavar="FILE", help="lines with a glacier id and, if several, a `branch`")
    parser.add_argument("--boxes", metavar="FILE", help="boxes across the glaciers; one without an id serves all")
    parser.add_argument("--ice", metavar="FILE", help="polygons of ice or basins: they tell where the sea lies")
    parser.add_argument("--regions", metavar="FILE", help="polygons with a column `region`")
    parser.add_argument(
        "--crs", metavar="CRS", help="measure in this projected CRS, e.g. EPSG:3413 (default: the file's)"
    )
    parser.add_argument("--glaciers", nargs="+", action="extend", metavar="ID", help="only these glaciers")
    add_columns(parser)


def add_columns(parser: Any) -> None:  # noqa: ANN401 - argparse's own types
    """Add the flag that names the columns of a file."""
    parser.add_argument(
        "--columns",
        nargs="+",
        action="extend",
        metavar="OURS=THEIRS",
        help="columns that are not recognised, e.g. datetime=when glacier_id=glacier",
    )


def _pairs(texts: list[str] | None) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts or []]
    if wrong := ["".join(pair) for pair in pairs if not pair[0] or not pair[2]]:
        raise ValueError(f"--columns takes OURS=THEIRS, got {wrong}: for example datetime=when")
    return {ours: theirs for ours, _, theirs in pairs}
