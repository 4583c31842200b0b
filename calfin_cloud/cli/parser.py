"""Verbs and flags of the command line."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import calfin_cloud
from calfin_cloud.cli import adapting, domains, mapping, planning, results, training
from calfin_cloud.cli.searching import FEW_SCENES

TRACED = ("default", "calfin", "mohajerani", "zhang", "baumhoer")
VARIANTS = (*TRACED, "once")
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
        "--config", type=Path, metavar="TOML", help="file with options by name, e.g. max-cloud = 0.3; the call wins"
    )


def _many(parser: Any, flag: str, help_: str, **more: Any) -> None:  # noqa: ANN401 - argparse's own types
    """Add a flag that takes one or more values and may be repeated."""
    parser.add_argument(flag, nargs="+", action="extend", help=help_, **more)


def _add_sample(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write the catalogue, scenes and truth into")
    parser.add_argument("--real", action="store_true", help="a real Landsat scene of Harald Moltke Brae instead")
    parser.add_argument("--scenes", type=int, default=12, metavar="N", help="number of scenes (default 12)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="another seed makes another glacier (default 0)"
    )
    parser.add_argument(
        "--features", action="store_true", help="paint icebergs, sea ice, melange and plumes too, with their truth"
    )


def _add_search(parser: argparse.ArgumentParser) -> None:
    _add_find(parser, images=False)
    parser.add_argument(
        "--out", type=Path, metavar="FILE.parquet", help="freeze the scenes into a catalogue (stac-geoparquet)"
    )


def _add_find(parser: argparse.ArgumentParser, *, images: bool, required: bool = True) -> None:
    """Add what says where and when to look; `images` allows plain GeoTIFFs in place of a catalogue."""
    source = parser.add_mutually_exclusive_group(required=required)
    source.add_argument(
        "--catalog",
        metavar="URL_OR_FILE",
        help="STAC API, static catalogue, item collection file (GeoJSON, stac-geoparquet), or a name: earth-search, "
        "planetary-computer, usgs",
    )
    parser.set_defaults(images=None)
    if images:
        _many(source, "--images", "GeoTIFFs in place of a catalogue", metavar="GEOTIFF")
        _many(parser, "--datetime", "when the images were taken: one date for all, or one each", metavar="DATE")
        parser.add_argument("--platform", default="unknown", help="satellite that took the images (default unknown)")
    parser.add_argument("--domains", required=required, metavar="FILE", help="domain file, see `calfin domains`")
    _many(parser, "--domain", "only the domains with these names", metavar="NAME")
    parser.add_argument(
        "--period",
        metavar="A/B",
        help="days, months or years, e.g. 2019-06/2019-09; last-30-days; newest-30-days counts back from the newest "
        "scene of the store",
    )
    _many(parser, "--collections", "only these collections", metavar="ID")
    parser.add_argument(
        "--max-scene-cloud",
        type=float,
        metavar="PERCENT",
        help="skip scenes that are cloudier than this by the catalogue (eo:cloud_cover of the whole scene, 0 to 100; "
        "default: skip none)",
    )


def _add_map(parser: argparse.ArgumentParser) -> None:
    _add_find(parser, images=True)
    parser.add_argument(
        "--store",
        required=True,
        metavar="URI",
        help="folder or bucket address (s3://bucket/fronts) to keep masks and fronts in",
    )
    _add_settings(parser)
    _add_cluster(parser)
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="first map scenes again: those whose item has changed since, or all if model or settings have changed",
    )
    parser.add_argument(
        "--retry",
        action="store_true",
        help="first try failed scenes again that are due: three times, at growing intervals",
    )
    parser.add_argument(
        "--fail-above",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="exit with 1 only where more than this share of the new scenes failed (default 0)",
    )
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="K/N",
        help="map the Kth of N shares of the glaciers, into STORE/shards/K-of-N; `calfin merge STORE` makes them one",
    )
    parser.add_argument(
        "--reference", metavar="FILE", help="hand-drawn fronts: distances to them go into the table and the report"
    )


def _add_network(parser: argparse.ArgumentParser) -> None:
    """Add the network, what runs it, and the variant."""
    parser.add_argument(
        "--network",
        metavar="NAME_OR_PATH",
        help="neural network: calfin-efficient (default), calfin-small-2, calfin-small, or a file of weights",
    )
    _add_engine(parser)
    _add_variant(parser)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        default="auto",
        choices=("auto", "keras", "keras-bfloat16", "openvino"),
        help="what runs the network (default auto: openvino where there is no GPU, if the weights come with a file for "
        "it); the fronts are the same; bfloat16 is faster on a GPU and moves fronts slightly",
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add what decides the results of a run, and their batches."""
    _add_network(parser)
    parser.add_argument(
        "--batch-size",
        type=_count,
        default=32,
        metavar="N",
        help="number of scenes that are written together (default 32)",
    )
    parser.add_argument(
        "--max-cloud",
        type=_share,
        default=0.15,
        metavar="SHARE",
        help="leave out scenes with more than this share of the domain under cloud, 0 to 1 (default 0.15)",
    )
    parser.add_argument(
        "--max-nodata",
        type=_share,
        default=0.25,
        metavar="SHARE",
        help="leave out scenes with more than this share of the domain without data, 0 to 1 (default 0.25)",
    )
    _many(
        parser,
        "--features",
        "measure these in each scene too, in tables of their own: icebergs melange plumes (default none)",
        choices=("icebergs", "melange", "plumes"),
        metavar="FEATURE",
        default=[],
    )


def _add_plan(parser: argparse.ArgumentParser) -> None:
    _add_find(parser, images=True)
    parser.add_argument("--store", metavar="URI", help="store of the run: scenes that it has already are left out")
    _add_settings(parser)
    _add_cluster(parser)
    parser.add_argument(
        "--sample",
        type=int,
        default=12,
        metavar="N",
        help="number of scenes to map as a trial; four times as many are read (default 12)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed tries other scenes (default 0)")
    for name, of in planning.PRICES.items():
        parser.add_argument(f"--price-{name}", type=float, default=0.0, metavar="X", help=f"price of {of} (default 0)")


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    _add_find(parser, images=False, required=False)
    parser.add_argument("--store", metavar="URI", help="check that it can be written, or continued")
    _add_settings(parser)
    _add_cluster(parser)


def _add_variant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--variant",
        default="default",
        choices=VARIANTS,
        help="settings of all steps: ours (default); ours with each picture shown to the network once, half its "
        "price (once); or those of CALFIN's release for one of its sets of scenes",
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster",
        default=os.environ.get("DASK_SCHEDULER_ADDRESS", "auto"),
        metavar="auto|local|cuda|kubernetes|gateway|none|ADDRESS",
        help="workers on this machine, on its GPUs, in pods of the Dask operator, behind a Dask Gateway, none at all, "
        "or those of a scheduler at tcp://host:port (the default where DASK_SCHEDULER_ADDRESS names one); auto, the "
        f"default elsewhere, is none below {FEW_SCENES} scenes and local above",
    )
    parser.add_argument(
        "--workers",
        type=_workers,
        metavar="N|MIN:MAX",
        help="workers to start; with two numbers Dask starts and ends them as the work asks",
    )
    parser.add_argument("--worker-memory", type=_value, metavar="SIZE", help="memory of a worker, e.g. 4GiB")
    _many(
        parser,
        "--cluster-option",
        "what else starts the cluster, e.g. image=NAME:TAG namespace=NAME gpu_workers=2 (kubernetes), or what the "
        "server of the gateway offers",
        type=_option,
        metavar="KEY=VALUE",
        default=[],
    )


def _workers(text: str) -> int | tuple[int, int]:
    """Read a number, or two with a colon between."""
    fewest, colon, most = text.partition(":")
    if not fewest.isdigit() or (colon and not most.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a number, as 4, or two, as 2:16, got {text!r}")
    return (int(fewest), int(most)) if colon else int(fewest)


def _shard(text: str) -> tuple[int, int]:
    """Read K/N with 1 <= K <= N."""
    k, slash, n = text.partition("/")
    if not (slash and k.isdigit() and n.isdigit() and 1 <= int(k) <= int(n)):
        raise argparse.ArgumentTypeError(f"must be K/N with 1 <= K <= N, got {text!r}")
    return int(k), int(n)


def _count(text: str) -> int:
    """Read a whole number from 1 on."""
    if not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return int(text)


def _share(text: str) -> float:
    """Read a share from 0 to 1."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"must be a share from 0 to 1, as 0.15 for 15 %, got {text!r}")
    return share


def _option(text: str) -> tuple[str, Any]:
    """Read KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not (key.isidentifier() and equals):
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, got {text!r}")
    return key, _value(value)


def _value(text: str) -> Any:  # noqa: ANN401 - number, truth, list, ...
    """Read a value as JSON where it is JSON, else as it stands: 4 is a number, 4GiB a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _add_retrace(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument("--domains", metavar="FILE", help="domains with new fjord boundaries (default: as mapped)")
    parser.add_argument("--variant", choices=TRACED, help="settings of the tracing (default: as mapped)")
    parser.add_argument("--all", action="store_true", help="trace all scenes, even where nothing has changed")
    parser.add_argument("--back", action="store_true", help="undo a `calfin retrace` that was stopped half way")
    _add_cluster(parser)


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="folder or bucket address that `calfin map` wrote to")


def _add_retry(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    _add_engine(parser)
    _add_cluster(parser)


def _add_status(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument("--serve", type=int, metavar="PORT", help="answer Prometheus there with the counts, for ever")


def _add_compact(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument(
        "--scenes",
        type=int,
        default=4096,
        metavar="N",
        help="merge files into ones of up to this many scenes (default 4096)",
    )


def _add_fjords(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--domains", required=True, metavar="FILE", help="domain file, see `calfin domains`")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="domain file to write (GeoJSON)")
    parser.add_argument("--polygons", metavar="FILE", help="polygons where fronts may lie, drawn by hand")
    parser.add_argument(
        "--store", metavar="URI", help="derive the fjord boundaries of the other domains from the scenes of this store"
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
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="GeoJSON in pixels: x column, y row")
    parser.add_argument(
        "--sensor",
        default="unknown",
        choices=("optical", "sar", "unknown"),
        help="kind of sensor that took the images; it decides how fronts along coasts are doubted (default unknown)",
    )
    _add_network(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    _many(
        parser,
        "--data",
        "folders in the layout of mohajerani2019, caffe256 or CALFIN",
        type=Path,
        metavar="FOLDER",
        required=True,
    )


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder for weights, settings and curves"
    )
    parser.add_argument("--name", default="calfin", help="name of the weights (default calfin)")
    parser.add_argument(
        "--recipe",
        default="default",
        choices=("default", "calfin"),
        help="settings where the other flags say nothing: ours (default), or those of CALFIN's release",
    )
    parser.add_argument(
        "--architecture",
        choices=("calfin", "efficient", "unet", "unet-4"),
        help="CALFIN-NN, a U-Net on EfficientNet-Lite0, or the U-Net of Mohajerani with two or four levels",
    )
    parser.add_argument("--width", type=float, help="factor on the number of the network's filters")
    parser.add_argument("--steps", type=int, help="stop after this many batches")
    parser.add_argument("--minutes", type=float, help="stop after this many minutes")
    parser.add_argument("--painted", type=int, metavar="N", help="number of synthetic scenes to train on as well")
    parser.add_argument("--start", metavar="NAME_OR_PATH", help="weights to start from in place of random ones")
    parser.add_argument("--learning-rate", type=float, help="highest learning rate")
    parser.add_argument("--ema", type=float, metavar="SHARE", help="validate and save a running average of the weights")
    parser.add_argument(
        "--rock", action="store_true", help="learn a mask of rock as well, which helps with fjord walls"
    )
    parser.add_argument("--mixed-precision", action="store_true", help="compute in bfloat16")
    parser.add_argument("--seed", type=int, help="seed of weights and patches")
    parser.add_argument(
        "--verifier", metavar="NAME", help="shipped network that must see a front in optical scenes too"
    )
    _many(
        parser,
        "--leave-out",
        "validate on these glaciers in place of Kangerlussuaq and Crane; `each` trains a network without each glacier "
        "in turn, into DIR/NAME, and goes on where an earlier call stopped",
        metavar="NAME",
    )


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument("--network", metavar="NAME_OR_PATH", help="shipped network or weights file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON to write (default: beside the weights)")
    parser.add_argument(
        "--folds",
        type=Path,
        metavar="DIR",
        help="networks of `calfin train --leave-out each`: they map the glaciers that the network was trained on",
    )
    _many(parser, "--glaciers", "calibrate on these glaciers in place of all", metavar="NAME")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for tables and pictures")
    parser.add_argument("--network", metavar="NAME_OR_PATH", help="shipped network or weights file")
    _many(
        parser,
        "--against",
        "compare with these: sobel, networks or weights files",
        metavar="[LABEL=]METHOD",
    )
    parser.add_argument(
        "--sequences",
        action="store_true",
        help="score the fronts too that `calfin reconcile` would choose of all dates of a glacier together",
    )
    _many(parser, "--glaciers", "score these glaciers in place of the validation ones", metavar="NAME")
    _add_variant(parser)
    parser.add_argument(
        "--adverse",
        type=int,
        default=0,
        metavar="N",
        help="score N synthetic scenes of each adverse case too, into DIR/adverse: melange, winter, shadow, ...",
    )


FIND = "--catalog earth-search --domains domains.geojson --period"

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
    "status": (mapping.status, _add_status, "fronts"),
    "retry": (mapping.retry, _add_retry, "fronts"),
    "report": (results.report, results.add_report, "fronts --out report"),
    "review": (results.review, results.add_review, "fronts --apply verdicts.json"),
    "reconcile": (results.reconcile, results.add_reconcile, "fronts", "fronts --rate 10"),
    "show": (results.show, results.add_show, "fronts LC08_L2SP_016008_20130724_02_T1"),
    "timeseries": (
        results.timeseries,
        results.add_timeseries,
        "fronts --out series",
        "termini.shp --ice basins.shp --regions basins.shp --crs EPSG:3413 --out series",
    ),
    "compare": (results.compare, results.add_compare, "fronts termini.shp --days 15 --out comparison"),
    "composite": (
        results.composite,
        results.add_composite,
        "termini.shp --ice basins.shp --regions basins.shp --crs EPSG:3413 --base icemask.gpkg --out composite",
    ),
    "figures": (
        results.figures,
        results.add_figures,
        "fronts --out figures",
        "termini.shp --ice basins.shp --regions basins.shp --crs EPSG:3413 --against fronts --out figures",
    ),
    "export": (results.export, results.add_export, "fronts --format calfin issm icemask --out products"),
    "fjords": (domains.fjords, _add_fjords, "--domains domains.geojson --store fronts --out with_fjords.geojson"),
    "retrace": (mapping.retrace, _add_retrace, "fronts --domains domains.geojson"),
    "trace": (mapping.trace, _add_trace, "a.png b.tif --out fronts.geojson"),
    "merge": (mapping.merge, _add_store, "fronts"),
    "compact": (mapping.compact, _add_compact, "fronts"),
    "train": (training.train, _add_train, "--data mohajerani2019 caffe256 --out weights --minutes 60"),
    "calibrate": (training.calibrate, _add_calibrate, "--data mohajerani2019 caffe256 --network my.weights.h5"),
    "adapt": (adapting.adapt, adapting.add_adapt, "fronts --out adapted", "fronts --lines drawn.gpkg --out adapted"),
    "evaluate": (training.evaluate, _add_evaluate, "--data mohajerani2019 caffe256 --out scores"),
}
"""What each verb runs, what adds its flags, and examples of a call without `calfin VERB`."""
