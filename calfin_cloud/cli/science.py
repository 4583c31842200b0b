"""Verbs from fronts to results: time series, comparisons."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def timeseries(options: argparse.Namespace) -> int:
    """Measure how fronts of a store or a vector file move: positions, rates, seasons, regions, doubtful fronts."""
    import geopandas as gpd

    from calfin_cloud.results import measure_series, read_lines, write_series

    fronts, lines = _read_fronts(options.fronts, options)
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


def compare(options: argparse.Namespace) -> int:
    """Compare two sets of fronts, or the authors of one: pairs by glacier and date, distances and bias."""
    from calfin_cloud.results import compare_products, read_lines, write_comparison

    a, lines = _read_fronts(options.a, options)
    b = _read_fronts(options.b, options)[0] if options.b else None
    lines = read_lines(lines, a, ice=options.ice)
    pairs = compare_products(a, b, days=options.days, by_place=options.by_place, lines=lines)
    if pairs.empty:
        print(f"no pair of fronts within {options.days:g} days: check glacier ids, or use --by-place", file=sys.stderr)
        return 1
    title = f"{Path(options.a).name} against {Path(options.b).name if options.b else 'its own authors'}"
    summary = write_comparison(pairs, options.out, title=title)
    print(summary[summary["by"] != "year"].round(1).to_string(index=False))
    print(f"{len(pairs)} pairs: {options.out}")
    return 0


def _read_fronts(source: str, options: argparse.Namespace) -> tuple[Any, Any]:
    """Fronts of a store, with the lines it knows, or of a vector file."""
    from calfin_cloud.products import read_product
    from calfin_cloud.results import read_lines, store_product

    if Path(source).is_file():
        fronts, lines = read_product(source, _pairs(options.columns)), read_lines()
    else:
        fronts, lines = store_product(source)
    if options.glaciers:
        fronts = fronts[fronts["glacier_id"].isin(options.glaciers)]
    return (fronts.to_crs(options.crs) if options.crs else fronts), lines


def add_timeseries(parser: Any) -> None:  # noqa: ANN401 - argparse's own types
    """Add the flags of `calfin timeseries`."""
    parser.add_argument("fronts", metavar="STORE_OR_FILE", help="store of `calfin map`, or any vector file of fronts")
    _add_common(parser)
    parser.add_argument("--centerlines", metavar="FILE", help="lines with a glacier id and, if several, a `branch`")
    parser.add_argument("--boxes", metavar="FILE", help="boxes across the glaciers; one without an id serves all")
    parser.add_argument("--regions", metavar="FILE", help="polygons with a column `region`")


def add_compare(parser: Any) -> None:  # noqa: ANN401 - argparse's own types
    """Add the flags of `calfin compare`."""
    parser.add_argument("a", metavar="A", help="store of `calfin map`, or any vector file of fronts")
    parser.add_argument("b", nargs="?", metavar="B", help="the other one (default: authors of A against each other)")
    parser.add_argument("--days", type=float, default=8.0, help="longest time between two fronts of a pair (default 8)")
    parser.add_argument(
        "--by-place", action="store_true", help="pair fronts within 5 km of each other, whatever their glacier ids"
    )
    _add_common(parser)


def _add_common(parser: Any) -> None:  # noqa: ANN401 - argparse's own types
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for tables and pictures")
    parser.add_argument("--ice", metavar="FILE", help="polygons of ice or basins: they tell where the sea lies")
    parser.add_argument("--crs", metavar="CRS", help="projected CRS to measure in, e.g. EPSG:3413")
    parser.add_argument("--glaciers", nargs="+", action="extend", metavar="ID", help="only these glaciers")
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
