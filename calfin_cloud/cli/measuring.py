"""Verbs that measure fronts of a store or a file: time series, composites, figures, comparisons."""

from __future__ import annotations

import argparse
import errno
import math
from pathlib import Path
from typing import Any

from calfin_cloud.cli import flags
from calfin_cloud.cli.ends import told
from calfin_cloud.cli.output import how_many, note, records, tell, watcher
from calfin_cloud.cli.reading import note_no_pair, note_unnamed, read_fronts, read_polygons, read_regions, with_files

GATES = ("gates.gpkg", "gates.geojson")  # as they are written, and as they once were
MOST_LINES = 40  # rates, and doubtful fronts, that are printed


def timeseries(options: argparse.Namespace) -> int:
    """Measure how fronts of a store or a file move: positions, rates, seasons, regions; flag doubtful ones."""
    from calfin_cloud.results import features_of, measure_series, read_lines, write_features, write_series

    fronts, lines = read_fronts(options.fronts, options)
    earlier = next((path for name in GATES if (path := options.out / name).is_file()), None)
    if earlier is not None and not options.boxes:  # a new or redrawn front shall move no other position
        lines = read_lines(lines, fronts, boxes=str(earlier))
        note(f"boxes of the run before are used: {earlier} (delete it to derive new ones)")
    note_unnamed(fronts, options.fronts)
    watch = watcher(options, "glacier")
    series = measure_series(fronts, with_files(lines, fronts, options), read_regions(options.regions), watch=watch)
    write_series(series, fronts, options.out, watch=watch)
    if not Path(options.fronts).is_file() and (features := features_of(options.fronts)):
        write_features(features, options.out)
    missing = series.positions[series.positions["reason"] != ""]
    for (branch, reason), rows in missing.groupby(["branch", "reason"]):
        cure = _sea_remedy(options) if reason == "no_seaward" else ""
        note(f"{how_many(len(rows), 'front')} without a position: {branch or 'no gate'}: {reason}{cure}")
    for row in series.gates[series.gates["is_doubtful"]].itertuples():
        shown = "nothing" if math.isnan(row.change_m) else f"{row.change_m:+.0f} m"
        told = f"the box of glacier {row.glacier_id} shows {shown}, its fronts swept {row.swept_m:+.0f} m"
        note(f"{told}: {row.measured} of {row.fronts} fronts lie across it")
    doubts = series.flags.drop_duplicates(["key", "flag"])
    rates = series.rates.head(MOST_LINES).round(1).to_string(index=False)
    lines = [rates if len(series.rates) else "no front has a position, so there are no rates"]
    lines += [f"doubtful: {row.key}: {row.flag}: {row.detail}" for row in doubts.head(MOST_LINES).itertuples()]
    n_doubtful = series.flags["key"].nunique()
    measured = how_many(len(series.positions), "position")
    lines.append(f"{measured}, {how_many(n_doubtful, 'doubtful scene')}: {options.out}")
    doubtful = records(doubts[["key", "flag", "detail"]])
    result = {"out": options.out, "rates": records(series.rates), "doubtful": doubtful}
    if not Path(options.fronts).is_file():
        lines += _keep_flags(options, fronts, series.flags)
    tell(options, result | {"positions": len(series.positions)}, *lines)
    return 0


def _sea_remedy(options: argparse.Namespace) -> str:
    """Say what to do where nothing tells on which side of fronts the sea lies."""
    if options.ice:
        return f": no ice of {options.ice} is near: check the CRS of both files, and which of x and y comes first"
    return ": give --ice, which tells where the sea lies"


def composite(options: argparse.Namespace) -> int:
    """Write the ice of all glaciers of a store or file on one grid, month by month, and the area they changed."""
    import pandas as pd

    from calfin_cloud.results import write_composite

    fronts, lines = read_fronts(options.fronts, options)
    areas = write_composite(
        fronts,
        with_files(lines, fronts, options),
        options.out,
        grid_m=options.grid_m,
        period=options.period,
        regions=read_regions(options.regions),
        base=read_polygons(options.base, "base"),
        watch=watcher(options, "step"),
    )
    last = areas[areas["by"] == "region"].groupby("name").last().reset_index()
    square_km = last[["area_change_m2", "area_sigma_m2"]] / 1e6
    last = last[["name", "month", "n"]].assign(area_km2=square_km.iloc[:, 0], sigma_km2=square_km.iloc[:, 1]).round(1)
    cube, there = options.out / "composite.zarr", pd.read_csv(options.out / "positions.csv", keep_default_na=False)
    n = there["glacier_id"].nunique()
    result = {"composite": cube, "glaciers": int(n), "regions": records(last)}
    told = last.to_string(index=False) if len(last) else "no glacier has fronts of two dates: nothing tells a change"
    tell(options, result, told, f"{how_many(n, 'glacier')}: {cube}")
    return 0


def figures(options: argparse.Namespace) -> int:
    """Draw figures for a paper: a map, coverage in time, regions, and a comparison with another product."""
    from calfin_cloud.results import measure_series, paper_figures, write_figures

    fronts, lines = read_fronts(options.fronts, options)
    lines, regions = with_files(lines, fronts, options), read_regions(options.regions)
    against = read_fronts(options.against, options, by_place=True)[0] if options.against else None
    drawn = paper_figures(
        fronts,
        lines,
        regions=regions,
        series=measure_series(fronts, lines, regions, watch=watcher(options, "glacier")),
        against=against,
        names=(Path(options.fronts).stem, Path(options.against or "").stem),
        days=options.days,
        width=options.width,
    )
    paths = write_figures(drawn, options.out)
    tell(options, paths, *map(str, paths))
    return 0


def compare(options: argparse.Namespace) -> int:
    """Compare two sets of fronts, or the authors within one set: pairs by glacier and date, distances and bias."""
    from calfin_cloud.results import compare_products, move_lines, write_comparison

    a, lines = read_fronts(options.a, options)
    b = None
    if options.b:
        b, lines_of_b = read_fronts(options.b, options, by_place=options.by_place)
        if not lines.ice:  # a store knows where the sea lies, whichever of two is named first
            lines = move_lines(lines_of_b, b.crs, a.crs)
    lines = with_files(lines, a, options)
    pairs = compare_products(a, b, days=options.days, by_place=options.by_place, lines=lines)
    if pairs.empty:
        note_no_pair(a, b, options)
        tell(options, {"pairs": 0, "summary": []})
        return 1
    if untold := int(pairs["advance_m"].isna().sum()):
        note(
            f"{how_many(untold, 'pair')} of {len(pairs)} without advance_m: give --ice, which tells where the sea lies"
        )
    names = {"a": Path(options.a).name, "b": Path(options.b).name if options.b else "its own authors"}
    products = {"a": a} if b is None else {"a": a, "b": b}
    title = f"{names['a']} against {names['b']}"
    summary = write_comparison(pairs, options.out, title=title, products=products, names=names)
    table = summary[summary["by"] != "year"].round(1).to_string(index=False)
    result = {"pairs": len(pairs), "out": options.out, "summary": records(summary)}
    tell(options, result, table, f"{len(pairs)} pairs: {options.out}")
    return 0


def _keep_flags(options: argparse.Namespace, fronts: Any, flags: Any) -> list[str]:  # noqa: ANN401 - tables
    """Keep flags with the store; say what was kept, or that one may not."""
    from calfin_cloud.results import keep_flags

    try:
        news = keep_flags(options.fronts, fronts, flags)
    except OSError as error:  # it may be somebody else's store, which one may only read
        if not (isinstance(error, PermissionError) or error.errno == errno.EROFS):
            raise
        note(f"the flags are in {options.out} only, since the store may not be written: {told(error)}")
        return []
    kept = f"kept with the store: the flags of {', '.join(news[:5])}{', ...' if len(news) > 5 else ''}"
    return [kept if news else "the store has these flags already"]


def add_timeseries(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin timeseries`."""
    told = "store of `calfin map`, which keeps the flags, or a vector file of fronts"
    parser.add_argument("fronts", metavar="STORE_OR_FILE", help=told)
    _add_common(parser)
    _add_lines(parser)


def add_composite(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin composite`."""
    _add_fronts(parser)
    parser.add_argument(
        "--grid-m", type=flags.positive, metavar="M", help="side of a cell (default 120, in EPSG:3031 240)"
    )
    parser.add_argument("--period", metavar="FIRST/LAST", help="months, as 1985-01/2021-12 (default: all with fronts)")
    parser.add_argument("--base", metavar="FILE", help="polygons of ice: what is ice outside of all boxes")
    _add_common(parser)
    _add_lines(parser)


def add_figures(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin figures`."""
    _add_fronts(parser)
    parser.add_argument("--against", metavar="STORE_OR_FILE", help="another product, measured in the same boxes")
    parser.add_argument(
        "--days", type=flags.not_negative, default=30.0, help="longest time between fronts of a pair (default 30)"
    )
    parser.add_argument(
        "--width",
        choices=("single", "double"),
        default="single",
        help="width of one column (83 mm, default) or two columns (177 mm) of a journal",
    )
    _add_common(parser)
    _add_lines(parser)


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin compare`."""
    parser.add_argument("a", metavar="A", help="store of `calfin map`, or any vector file of fronts")
    parser.add_argument("b", nargs="?", metavar="B", help="the other one (default: authors of A against each other)")
    parser.add_argument(
        "--days", type=flags.not_negative, default=8.0, help="longest time between two fronts of a pair (default 8)"
    )
    parser.add_argument(
        "--by-place", action="store_true", help="pair fronts of the glacier at the same place, whatever its id"
    )
    _add_common(parser)


def _add_fronts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fronts", metavar="STORE_OR_FILE", help="store of `calfin map`, or a vector file of fronts")


def _add_lines(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--centerlines", metavar="FILE", help="lines from ice to sea, with a glacier id and, if several, a `branch`"
    )
    parser.add_argument(
        "--boxes", metavar="FILE", help="boxes across the glaciers, as in gates.gpkg; one without an id serves all"
    )
    parser.add_argument(
        "--velocity", metavar="FILE", help="vx and vy of the ice in m/a: boxes follow its flow where that bends"
    )
    parser.add_argument("--regions", metavar="FILE", help="polygons with a column `region`")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for tables and pictures")
    parser.add_argument(
        "--ice",
        metavar="FILE",
        help="polygons of ice or basins, not of ocean: they tell where the sea lies (printed in degrees from north)",
    )
    parser.add_argument("--crs", metavar="CRS", help="projected CRS to measure in, e.g. EPSG:3413")
    parser.add_argument("--glaciers", nargs="+", action="extend", metavar="NAME", help="only these, by id or name")
    told = "columns of vector files that are not recognised, e.g. datetime=when; of two files each uses those it has"
    parser.add_argument("--columns", nargs="+", action="extend", metavar="OURS=THEIRS", help=told)
