"""Verbs from fronts to results: time series, comparisons, exports, reviews, lineage."""

from __future__ import annotations

import argparse
import errno
import json
from pathlib import Path
from typing import Any

from calfin_cloud.cli import flags
from calfin_cloud.cli.output import how_many, note, records, tell, watcher
from calfin_cloud.cli.reading import note_unnamed, read_fronts, read_polygons, read_regions, with_files
from calfin_cloud.cli.stores import add_store

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
        note(f"{how_many(len(rows), 'front')} without a position: {branch or 'no gate'}: {reason}")
    for row in series.gates[series.gates["is_doubtful"]].itertuples():
        told = f"the box of glacier {row.glacier_id} shows {row.change_m:+.0f} m, its fronts swept {row.swept_m:+.0f} m"
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
    against = read_fronts(options.against, options)[0] if options.against else None
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
    from calfin_cloud.results import compare_products, read_lines, write_comparison

    a, lines = read_fronts(options.a, options)
    b = read_fronts(options.b, options)[0] if options.b else None
    lines = read_lines(lines, a, ice=options.ice)
    pairs = compare_products(a, b, days=options.days, by_place=options.by_place, lines=lines)
    if pairs.empty:
        note(f"no pair of fronts within {options.days:g} days: check glacier ids, or use --by-place")
        note_unnamed(a, options.a, authors=b is None)
        if b is not None:
            note_unnamed(b, options.b)
        tell(options, {"pairs": 0, "summary": []})
        return 1
    names = {"a": Path(options.a).name, "b": Path(options.b).name if options.b else "its own authors"}
    products = {"a": a} if b is None else {"a": a, "b": b}
    title = f"{names['a']} against {names['b']}"
    summary = write_comparison(pairs, options.out, title=title, products=products, names=names)
    table = summary[summary["by"] != "year"].round(1).to_string(index=False)
    result = {"pairs": len(pairs), "out": options.out, "summary": records(summary)}
    tell(options, result, table, f"{len(pairs)} pairs: {options.out}")
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a store in the formats of the community: Shapefiles of CALFIN and TermPicks, ISSM, ice masks, STAC."""
    from calfin_cloud.results.exporting import export_store, read_names

    names = read_names(options.names) if options.names else None
    paths = export_store(
        options.store,
        options.out,
        options.format,
        author=options.author,
        names=names,
        version=options.version,
        carry_months=options.carry,
        mesh=options.mesh,
        mesh_crs=options.mesh_crs,
        base=options.base,
    )
    tell(options, paths, *map(str, paths))
    return 0


def report(options: argparse.Namespace) -> int:
    """Write the results of a store as a map that opens offline in a browser, with buttons to review fronts."""
    from calfin_cloud.results import write_report

    page = write_report(
        options.store,
        options.out,
        title=options.title,
        most_pictures=options.pictures,
        references=options.reference,
        watch=watcher(options, "glacier"),
    )
    tell(options, {"page": page}, str(page))
    return 0


def review(options: argparse.Namespace) -> int:
    """Keep people's verdicts beside the automatic fronts; write training pairs from accepted and redrawn ones."""
    from calfin_cloud import results

    result: dict[str, Any] = {}
    lines = []
    if options.apply:
        result["applied"] = results.apply_verdicts(options.store, results.read_verdicts(options.apply))
        lines.append(", ".join(f"{n} {verdict}" for verdict, n in result["applied"].items()) or "no verdict")
    if options.training:
        pairs = results.write_training_pairs(options.store, options.training)
        result["training"] = pairs
        lines.append(f"{how_many(len(pairs) // 2, 'training pair')}: {options.training}")
    fronts = results.reviewed_fronts(options.store)
    looked_at = fronts[fronts["verdict"] != ""][["key", "front", "verdict", "reviewer", "reviewed_at", "note"]]
    orphans = results.orphaned_verdicts(options.store)
    if len(looked_at):
        lines.append(looked_at.to_string(index=False))
    lines.append(f"{len(looked_at)} of {(fronts['state'] == 'front').sum()} fronts have a verdict")
    for orphan in orphans:
        said = " ".join(str(orphan[name]) for name in ("verdict", "key", "author", "time"))
        lines.append(f"orphaned, the line it was given on is gone: {said}")
    tell(options, result | {"verdicts": records(looked_at), "orphaned": orphans}, *lines)
    return 0


def reconcile(options: argparse.Namespace) -> int:
    """Choose the fronts that all dates of a domain together support; nothing mapped changes, nothing is read again."""
    from calfin_cloud.fronts import SequenceSettings
    from calfin_cloud.results import reconcile_store
    from calfin_cloud.results.choosing import chosen_fronts

    settings = SequenceSettings() if options.rate is None else SequenceSettings(rate_m_a_day=options.rate)
    by_domain = dict(reconcile_store(options.store, settings=settings))
    if not any(counts.total() for counts in by_domain.values()):
        tell(options, [], "nothing has changed since the fronts were last reconciled, or no domain has one")
        return 0
    fronts = chosen_fronts(options.store)
    changed = fronts.loc[~fronts["choice"].isin(["", "kept"]), ["choice", "key", "choice_why"]]
    lines = [
        f"{domain}: {', '.join(f'{n} {choice}' for choice, n in sorted(counts.items()))}"
        for domain, counts in by_domain.items()
    ]
    lines += [f"{row.choice}: {row.key}: {row.choice_why}" for row in changed.head(MOST_LINES).itertuples()]
    tell(options, records(changed), *lines)
    return 0


def show(options: argparse.Namespace) -> int:
    """Print where the fronts of one scene come from: file, checksum, network, settings, verdicts; save its picture."""
    from calfin_cloud.results import lineage_of
    from calfin_cloud.storage import read_picture
    from calfin_cloud.whole_files import write_whole_file

    told = lineage_of(options.store, options.scene)
    tell(options, told, json.dumps(told, indent=1))
    if options.picture:
        domain, _, scene = told["key"].partition("/")
        picture = read_picture(options.store, domain, scene)
        if picture is None:
            raise ValueError(f"{told['key']} has no picture: the scene was not traced ({told['reason']})")
        write_whole_file(options.picture, picture)
        note(f"picture: {options.picture}")
    return 0


def _keep_flags(options: argparse.Namespace, fronts: Any, flags: Any) -> list[str]:  # noqa: ANN401 - tables
    """Keep flags with the store; say what was kept, or that one may not."""
    from calfin_cloud.results import keep_flags

    try:
        news = keep_flags(options.fronts, fronts, flags)
    except OSError as error:  # it may be somebody else's store, which one may only read
        if not (isinstance(error, PermissionError) or error.errno == errno.EROFS):
            raise
        note(f"the flags are in {options.out} only, since the store may not be written: {error}")
        return []
    told = f"kept with the store: the flags of {', '.join(news[:5])}{', ...' if len(news) > 5 else ''}"
    return [told if news else "the store has these flags already"]


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


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin export`."""
    add_store(parser, out=True)
    parser.add_argument(
        "--format",
        nargs="+",
        action="extend",
        required=True,
        choices=("calfin", "termpicks", "gpkg", "issm", "levelset", "icemask", "calfin-ts", "stac"),
        help="formats to write, one or more",
    )
    parser.add_argument("--author", default="calfin_cloud", help="who answers for the lines (column Author)")
    parser.add_argument(
        "--names", metavar="CSV", help="columns domain or glacier_id, and of GrnlndcN, OfficialN, AltName, RefName"
    )
    parser.add_argument("--version", default="1.0", help="version of the data, in file names (default 1.0)")
    told = "icemask: months without a scene take the ice of up to this many months before (default 0: none)"
    parser.add_argument("--carry", type=int, default=0, metavar="MONTHS", help=told)
    told = "levelset: one file of all domains at its x and y, not one each on grids (NetCDF as of ISSM, or a table)"
    parser.add_argument("--mesh", type=Path, metavar="FILE", help=told)
    parser.add_argument("--base", type=Path, metavar="FILE", help="levelset on a mesh: ice outside of all domains")
    parser.add_argument("--mesh-crs", metavar="CRS", help="CRS of the mesh (default that of the store)")


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin report`."""
    add_store(parser, out=True)
    parser.add_argument("--title", default="", help="title of the page (default: the names of the glaciers)")
    told = "most pictures to include, of the latest scenes (default 2000)"
    parser.add_argument("--pictures", type=flags.natural, default=2000, metavar="N", help=told)
    parser.add_argument("--reference", metavar="FILE", help="hand-drawn fronts, shown as a layer of their own")


def add_review(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin review`."""
    add_store(parser)
    parser.add_argument("--apply", type=Path, metavar="FILE", help="verdicts, as the report saves them")
    parser.add_argument(
        "--training", type=Path, metavar="DIR", help="write reviewed scenes for `calfin train` into this folder"
    )


def add_reconcile(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin reconcile`."""
    add_store(parser)
    told = "metres a day that a front moves at most, but for calving (default 50: no glacier is faster)"
    parser.add_argument("--rate", type=float, metavar="M", help=told)


def add_show(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin show`."""
    add_store(parser)
    parser.add_argument("scene", metavar="SCENE", help="scene id, or DOMAIN/SCENE")
    parser.add_argument(
        "--picture", type=flags.outside, metavar="PNG", help="save the picture of the scene with its fronts"
    )


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
    parser.add_argument("--ice", metavar="FILE", help="polygons of ice or basins: they tell where the sea lies")
    parser.add_argument("--crs", metavar="CRS", help="projected CRS to measure in, e.g. EPSG:3413")
    parser.add_argument("--glaciers", nargs="+", action="extend", metavar="ID", help="only these glaciers")
    told = "columns of vector files that are not recognised, e.g. datetime=when; of two files each uses those it has"
    parser.add_argument("--columns", nargs="+", action="extend", metavar="OURS=THEIRS", help=told)
