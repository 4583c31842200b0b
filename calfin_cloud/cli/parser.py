"""Verbs and flags of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import calfin_cloud
from calfin_cloud.cli import adapting, domains, flags, groups, mapping, measuring, planning, results, stores, training

FIRST_STEPS = """first steps, offline:
  calfin sample demo
  calfin map --catalog demo/catalog.json --domains demo/domains.geojson --period 1984/2024 --store demo/fronts
  calfin report demo/fronts --out demo/report
then open demo/report/index.html in a browser; `calfin VERB --help` has examples of every verb."""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="calfin",
        description="Map the calving fronts of glaciers in satellite scenes.",
        epilog=FIRST_STEPS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"calfin {calfin_cloud.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (run, add_flags, *examples) in VERBS.items():
        text = (run.__doc__ or "").strip()
        verb = verbs.add_parser(
            name,
            help=text,
            description=text,
            epilog="\n".join(["example:", *(f"  calfin {name} {example}" for example in examples)]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.set_defaults(run=run)
        add_flags(verb)
        _add_common(verb)
    return parser


def _add_common(verb: argparse.ArgumentParser) -> None:
    """Add what every verb takes."""
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    verb.add_argument("--verbose", action="store_true", help="log a line for every batch")
    verb.add_argument(
        "--log-format",
        default="text",
        choices=("text", "json"),
        help="notes and log as lines of JSON with time and run",
    )
    verb.add_argument(
        "--config",
        type=Path,
        metavar="TOML",
        help="file with options by name, e.g. max-cloud = 0.3; options on the command line override it",
    )


def _add_sample(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=flags.outside, metavar="DIR", help="folder to write the catalogue, scenes and truth into"
    )
    parser.add_argument("--real", action="store_true", help="a real Landsat scene of Harald Moltke Brae instead")
    parser.add_argument("--scenes", type=int, default=12, metavar="N", help="number of scenes (default 12)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="another seed makes another glacier (default 0)"
    )
    parser.add_argument(
        "--features", action="store_true", help="add synthetic icebergs, sea ice, melange and plumes, with their truth"
    )


def _add_search(parser: argparse.ArgumentParser) -> None:
    groups.add_find(parser, images=False)
    parser.add_argument(
        "--out",
        type=flags.outside,
        metavar="FILE.parquet",
        help="freeze the scenes into a catalogue (stac-geoparquet)",
    )


def _add_map(parser: argparse.ArgumentParser) -> None:
    groups.add_find(parser, images=True)
    parser.add_argument(
        "--store",
        required=True,
        metavar="URI",
        help="folder or bucket address (s3://bucket/fronts) to keep masks and fronts in",
    )
    groups.add_settings(parser)
    groups.add_cluster(parser)
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="first map scenes again: those whose item has changed since, or all if model or settings have changed",
    )
    parser.add_argument(
        "--retry",
        action="store_true",
        help="first try failed scenes again that are due: three times, at growing intervals, or whose item has changed",
    )
    parser.add_argument(
        "--fail-above",
        type=flags.share,
        default=0.0,
        metavar="SHARE",
        help="exit with 1 only where more than this share of the new scenes failed (default 0)",
    )
    parser.add_argument(
        "--shard",
        type=flags.shard,
        metavar="K/N",
        help="map the Kth of N shares of the glaciers, into STORE/shards/K-of-N; `calfin merge STORE` makes them one",
    )
    parser.add_argument("--reference", metavar="FILE", help="hand-drawn fronts: the table has the distances to them")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    groups.add_find(parser, images=True)
    parser.add_argument("--store", metavar="URI", help="store of the run: scenes that it has already are left out")
    groups.add_settings(parser)
    groups.add_cluster(parser)
    parser.add_argument(
        "--sample",
        type=int,
        default=12,
        metavar="N",
        help="number of scenes to map as a trial; four times as many are read (default 12)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed tries other scenes (default 0)")
    for name, of in planning.PRICES.items():
        parser.add_argument(
            f"--price-{name}", type=flags.not_negative, default=0.0, metavar="X", help=f"price of {of} (default 0)"
        )


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    groups.add_find(parser, images=False, required=False)
    parser.add_argument("--store", metavar="URI", help="check that it can be written, or continued")
    groups.add_settings(parser)
    groups.add_cluster(parser)


def _add_retrace(parser: argparse.ArgumentParser) -> None:
    stores.add_store(parser)
    parser.add_argument("--domains", metavar="FILE", help="domains with new fjord boundaries (default: as mapped)")
    parser.add_argument("--variant", choices=flags.TRACED, help="settings of the tracing (default: as mapped)")
    parser.add_argument("--all", action="store_true", help="trace all scenes, even where nothing has changed")
    parser.add_argument("--back", action="store_true", help="undo a `calfin retrace` that was stopped half way")
    groups.add_cluster(parser)


def _add_retry(parser: argparse.ArgumentParser) -> None:
    stores.add_store(parser)
    groups.add_engine(parser)
    groups.add_cluster(parser)


def _add_fjords(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--domains", required=True, metavar="FILE", help="domain file, see `calfin domains`")
    parser.add_argument(
        "--out", required=True, type=flags.geojson, metavar="FILE", help="domain file to write (GeoJSON)"
    )
    parser.add_argument("--polygons", metavar="FILE", help="polygons where fronts may lie, drawn by hand")
    parser.add_argument(
        "--store",
        metavar="URI",
        help="for domains without --polygons: derive fjord boundaries from the scenes of this store",
    )
    parser.add_argument(
        "--ice-mask", metavar="FILE", help="polygons of all glacier ice: fronts lie near it, land beside it is wall"
    )
    parser.add_argument("--ocean", metavar="FILE", help="polygons of the sea: away from its coast fronts may lie too")
    parser.add_argument("--termini", metavar="FILE_OR_STORE", help="known fronts, which guide the tracing of others")


def _add_trace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="PNG or GeoTIFF, grey or RGB(A), 8 or 16 bit"
    )
    parser.add_argument(
        "--out", required=True, type=flags.geojson, metavar="FILE", help="GeoJSON in pixels: x column, y row"
    )
    parser.add_argument(
        "--sensor",
        default="unknown",
        choices=("optical", "sar", "unknown"),
        help="kind of sensor that took the images; it decides how fronts along coasts are doubted (default unknown)",
    )
    groups.add_network(parser)


FIND = "--catalog planetary-computer --domains domains.geojson --period"

VERBS: dict[str, tuple[Any, ...]] = {
    "sample": (mapping.sample, _add_sample, "demo --scenes 12", "--real real"),
    "domains": (domains.domains, domains.add_domains, "--glacier Store --out domains.geojson"),
    "search": (mapping.search, _add_search, f"{FIND} 2019-06/2019-09"),
    "doctor": (planning.doctor, _add_doctor, f"{FIND} 2019 --store s3://bucket/fronts"),
    "plan": (planning.plan, _add_plan, f"{FIND} 2019 --price-cpu-hour 0.05"),
    "map": (
        mapping.map_,
        _add_map,
        f"{FIND} 2019-06/2019-09 --store fronts",
        "--config run.toml --period 2020",
        "--images scene.tif --datetime 2021-09-27 --domains domains.geojson --store fronts",
    ),
    "status": (stores.status, stores.add_status, "fronts"),
    "retry": (mapping.retry, _add_retry, "fronts"),
    "report": (results.report, results.add_report, "fronts --out report"),
    "review": (results.review, results.add_review, "fronts --apply verdicts.json"),
    "reconcile": (results.reconcile, results.add_reconcile, "fronts", "fronts --rate 10"),
    "show": (results.show, results.add_show, "fronts LC08_L2SP_016008_20130724_02_T1"),
    "timeseries": (
        measuring.timeseries,
        measuring.add_timeseries,
        "fronts --out series",
        "termini.shp --ice basins.shp --regions basins.shp --crs EPSG:3413 --out series",
    ),
    "compare": (measuring.compare, measuring.add_compare, "fronts termini.shp --days 15 --out comparison"),
    "composite": (
        measuring.composite,
        measuring.add_composite,
        "termini.shp --ice basins.shp --regions basins.shp --crs EPSG:3413 --base icemask.gpkg --out composite",
    ),
    "figures": (
        measuring.figures,
        measuring.add_figures,
        "fronts --out figures",
        "termini.shp --ice basins.shp --regions basins.shp --crs EPSG:3413 --against fronts --out figures",
    ),
    "export": (results.export, results.add_export, "fronts --format calfin issm icemask --out products"),
    "fjords": (domains.fjords, _add_fjords, "--domains domains.geojson --store fronts --out with_fjords.geojson"),
    "retrace": (mapping.retrace, _add_retrace, "fronts --domains domains.geojson"),
    "trace": (mapping.trace, _add_trace, "a.png b.tif --out fronts.geojson"),
    "merge": (stores.merge, stores.add_store, "fronts"),
    "compact": (stores.compact, stores.add_compact, "fronts"),
    "train": (training.train, training.add_train, "--data mohajerani2019 caffe256 --out weights --minutes 60"),
    "calibrate": (training.calibrate, training.add_calibrate, "--data mohajerani2019 caffe256 --network my.weights.h5"),
    "adapt": (adapting.adapt, adapting.add_adapt, "fronts --out adapted", "fronts --lines drawn.gpkg --out adapted"),
    "evaluate": (training.evaluate, training.add_evaluate, "--data mohajerani2019 caffe256 --out scores"),
}
"""What each verb runs, what adds its flags, and examples of a call without `calfin VERB`."""
