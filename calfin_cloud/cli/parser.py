"""Verbs and flags of the command line."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from calfin_cloud.cli import domains, mapping, planning, results, training

VARIANTS = ("default", "calfin", "mohajerani", "zhang", "baumhoer")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all verbs."""
    parser = argparse.ArgumentParser(prog="calfin", description="Calving fronts from satellite scenes.")
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
        verb.add_argument("--verbose", action="store_true", help="log a line for every batch")
        verb.set_defaults(run=run)
        add_flags(verb)
    return parser


def _many(parser: Any, flag: str, help_: str, **more: Any) -> None:  # noqa: ANN401 - argparse's own types
    """Add a flag that takes one or more values and may be repeated."""
    parser.add_argument(flag, nargs="+", action="extend", help=help_, **more)


def _add_sample(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write the catalogue, scenes and truth into")
    parser.add_argument("--scenes", type=int, default=12, metavar="N", help="number of scenes (default 12)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed is another glacier (default 0)")


def _add_search(parser: argparse.ArgumentParser) -> None:
    _add_find(parser, images=False)


def _add_find(parser: argparse.ArgumentParser, *, images: bool, required: bool = True) -> None:
    """Add what says where and when to look; `images` allows plain GeoTIFFs in place of a catalogue."""
    source = parser.add_mutually_exclusive_group(required=required)
    source.add_argument(
        "--catalog",
        metavar="URL_OR_FILE",
        help="STAC API, static catalogue, item collection file, or a name: earth-search, planetary-computer",
    )
    parser.set_defaults(images=None)
    if images:
        _many(source, "--images", "GeoTIFFs in place of a catalogue", metavar="GEOTIFF")
        _many(parser, "--datetime", "when the images were taken, one for all or one each", metavar="DATE")
        parser.add_argument("--platform", default="unknown", help="satellite of the images (default unknown)")
    parser.add_argument("--domains", required=required, metavar="FILE", help="domain file, see `calfin domains`")
    _many(parser, "--domain", "only the domains of these names", metavar="NAME")
    parser.add_argument("--period", metavar="A/B", help="days, months or years, e.g. 2019-06/2019-09")
    _many(parser, "--collections", "only these collections", metavar="ID")
    parser.add_argument(
        "--max-scene-cloud",
        type=float,
        metavar="PERCENT",
        help="skip items whose eo:cloud_cover is above (default: none)",
    )


def _add_map(parser: argparse.ArgumentParser) -> None:
    _add_find(parser, images=True)
    parser.add_argument("--store", required=True, metavar="URI", help="folder or object prefix for masks and fronts")
    _add_settings(parser)
    _add_cluster(parser)
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="first map scenes again whose item has changed since, or all if model or settings have",
    )
    parser.add_argument(
        "--reference", metavar="FILE", help="hand-drawn fronts: their distances go into table and report"
    )


def _add_network(parser: argparse.ArgumentParser) -> None:
    """Add the network, what runs it, and the variant."""
    parser.add_argument("--network", metavar="NAME_OR_PATH", help="shipped network or weights file")
    _add_engine(parser)
    _add_variant(parser)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        default="auto",
        choices=("auto", "keras", "keras-bfloat16", "openvino"),
        help="what runs the network (default auto: openvino where there is no GPU, if the weights come with a file for "
        "it); the fronts are the same; bfloat16 is quicker on a GPU, and moves fronts by little",
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add what decides the results of a run, and their batches."""
    _add_network(parser)
    parser.add_argument("--batch-size", type=int, default=32, help="scenes that are written together (default 32)")
    parser.add_argument(
        "--max-cloud", type=float, default=0.15, help="cloudy above this part of the domain (default 0.15)"
    )
    parser.add_argument("--max-nodata", type=float, default=0.25, help="nodata above this part (default 0.25)")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    _add_find(parser, images=True)
    parser.add_argument("--store", metavar="URI", help="store of the run, whose scenes are left out")
    _add_settings(parser)
    _add_cluster(parser)
    parser.add_argument(
        "--sample",
        type=int,
        default=12,
        metavar="N",
        help="scenes to map as a trial, and four times as many to read (default 12)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed tries others (default 0)")
    for name, of in planning.PRICES.items():
        parser.add_argument(f"--price-{name}", type=float, default=0.0, metavar="X", help=f"price of {of} (default 0)")
    _add_json(parser)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    _add_find(parser, images=False, required=False)
    parser.add_argument("--store", metavar="URI", help="check that it can be written, or gone on with")
    _add_settings(parser)
    _add_cluster(parser)
    _add_json(parser)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print as JSON, for a schedule")


def _add_variant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--variant",
        default="default",
        choices=VARIANTS,
        help="settings of all steps: ours (default), or those of CALFIN's release for one of its sets of scenes",
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster",
        default=os.environ.get("DASK_SCHEDULER_ADDRESS", "local"),
        metavar="local|cuda|kubernetes|gateway|none|ADDRESS",
        help="workers on this machine (default), on its GPUs, in pods of the Dask operator, behind a Dask Gateway, "
        "none at all, or those of a scheduler at tcp://host:port (the default where DASK_SCHEDULER_ADDRESS names one)",
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
    return (int(fewest), int(most)) if colon else int(fewest)


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
    parser.add_argument("--variant", choices=VARIANTS, help="settings of the tracing (default: as mapped)")
    parser.add_argument("--all", action="store_true", help="all scenes, also where nothing has changed")
    _add_cluster(parser)


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="folder or object prefix that `calfin map` made")


def _add_retry(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    _add_engine(parser)
    _add_cluster(parser)


def _add_status(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument("--json", action="store_true", help="print all counts as JSON, for a schedule")


def _add_compact(parser: argparse.ArgumentParser) -> None:
    _add_store(parser)
    parser.add_argument(
        "--scenes", type=int, default=4096, metavar="N", help="merge files until one has so many scenes (default 4096)"
    )


def _add_fjords(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--domains", required=True, metavar="FILE", help="domain file, see `calfin domains`")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="domain file to write (GeoJSON)")
    parser.add_argument("--polygons", metavar="FILE", help="polygons where fronts may lie, drawn by hand")
    parser.add_argument("--store", metavar="URI", help="derive the others from the scenes of this store")
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
        help="what took the images, which decides how fronts along coasts are doubted (default unknown)",
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
    parser.add_argument("--name", default="calfin", help="of the weights (default calfin)")
    parser.add_argument(
        "--recipe",
        default="default",
        choices=("default", "calfin"),
        help="where the other flags say nothing: ours (default), or that of CALFIN's release",
    )
    parser.add_argument(
        "--architecture",
        choices=("calfin", "efficient", "unet", "unet-4"),
        help="CALFIN-NN, a U-Net on EfficientNet-Lite0, or the U-Net of Mohajerani with two or four levels",
    )
    parser.add_argument("--width", type=float, help="part of the network's filters")
    parser.add_argument("--steps", type=int, help="end after so many batches")
    parser.add_argument("--minutes", type=float, help="end after so many minutes")
    parser.add_argument("--painted", type=int, metavar="N", help="painted scenes to train on too")
    parser.add_argument("--start", metavar="NAME_OR_PATH", help="weights to start from in place of random ones")
    parser.add_argument("--learning-rate", type=float, help="highest learning rate")
    parser.add_argument("--ema", type=float, metavar="SHARE", help="validate and save a running average of the weights")
    parser.add_argument("--rock", action="store_true", help="learn a mask of rock too, which helps with fjord walls")
    parser.add_argument("--mixed-precision", action="store_true", help="compute in bfloat16")
    parser.add_argument("--seed", type=int, help="of weights and patches")
    _many(parser, "--leave-out", "validate on these glaciers in place of Kangerlussuaq and Crane", metavar="NAME")


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument("--network", metavar="NAME_OR_PATH", help="shipped network or weights file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON to write (default: beside the weights)")
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


FIND = "--catalog earth-search --domains domains.geojson --period"

VERBS: dict[str, tuple[Any, ...]] = {
    "sample": (mapping.sample, _add_sample, "demo --scenes 12"),
    "search": (mapping.search, _add_search, f"{FIND} 2019-06/2019-09"),
    "map": (
        mapping.map_,
        _add_map,
        f"{FIND} 2019-06/2019-09 --store fronts",
        "--images scene.tif --datetime 2021-09-27 --domains domains.geojson --store fronts",
    ),
    "plan": (planning.plan, _add_plan, f"{FIND} 2019 --price-cpu-hour 0.05"),
    "doctor": (planning.doctor, _add_doctor, f"{FIND} 2019 --store s3://bucket/fronts"),
    "retrace": (mapping.retrace, _add_retrace, "fronts --domains domains.geojson"),
    "status": (mapping.status, _add_status, "fronts"),
    "retry": (mapping.retry, _add_retry, "fronts"),
    "compact": (mapping.compact, _add_compact, "fronts"),
    "domains": (domains.domains, domains.add_domains, "--glacier Store --out domains.geojson"),
    "fjords": (domains.fjords, _add_fjords, "--domains domains.geojson --store fronts --out with_fjords.geojson"),
    "trace": (mapping.trace, _add_trace, "a.png b.tif --out fronts.geojson"),
    "train": (training.train, _add_train, "--data mohajerani2019 caffe256 --out weights --minutes 60"),
    "calibrate": (training.calibrate, _add_calibrate, "--data mohajerani2019 caffe256 --network my.weights.h5"),
    "evaluate": (training.evaluate, _add_evaluate, "--data mohajerani2019 caffe256 --out scores"),
    "timeseries": (
        results.timeseries,
        results.add_timeseries,
        "fronts --out series",
        "termini.shp --ice basins.shp --regions basins.shp --crs EPSG:3413 --out series",
    ),
    "compare": (results.compare, results.add_compare, "fronts termini.shp --days 15 --out comparison"),
    "export": (results.export, results.add_export, "fronts --format calfin issm icemask --out products"),
    "report": (results.report, results.add_report, "fronts --out report"),
    "review": (results.review, results.add_review, "fronts --apply verdicts.json"),
    "reconcile": (results.reconcile, results.add_reconcile, "fronts", "fronts --rate 10"),
    "show": (results.show, results.add_show, "fronts LC08_L2SP_016008_20130724_02_T1"),
}
"""What each verb runs, what adds its flags, and examples of a call without `calfin VERB`."""
