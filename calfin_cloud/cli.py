"""`calfin VERB ...`: parse the command line, call one function, print."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

# Imports that take seconds (TensorFlow, Dask) wait until a verb needs them, so that --help answers at once.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is loaded, which logs the abilities of the CPU

TRAINING_FLAGS = ("seed", "architecture", "width", "learning_rate", "painted", "start", "ema")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return 0 if all went well, 1 if scenes failed, 2 for a mistake in the call."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    warnings.filterwarnings("ignore", message="Use `@` matmul", category=PendingDeprecationWarning)
    try:
        return int(options.run(options))
    except (ValueError, OSError) as error:
        print(f"calfin {options.verb}: {error}", file=sys.stderr)
        return 2


def sample(options: argparse.Namespace) -> int:
    """Paint a sample glacier."""
    from calfin_cloud.sample import write_sample

    catalog = write_sample(options.folder, scenes=options.scenes, seed=options.seed)
    print(f"{options.scenes} scenes of a painted glacier: {catalog}")
    return 0


def search(options: argparse.Namespace) -> int:
    """List the scenes of each domain, one a line, tab-separated."""
    from calfin_cloud.domains import read_domains

    total = 0
    find_scenes = _finder(options)
    for domain in read_domains(options.domains, options.domain):
        for item in find_scenes(domain):
            total += 1
            when = item.datetime.isoformat() if item.datetime else ""
            print(domain.name, when, item.properties.get("platform", ""), item.collection_id, item.id, sep="\t")
    print(f"{total} scenes", file=sys.stderr)
    return 0


def map_(options: argparse.Namespace) -> int:
    """Map calving fronts into a store; print the table of scenes, the counts and the path of the report."""
    from tqdm import tqdm

    from calfin_cloud import clusters  # brings loggers of its own, at the level INFO
    from calfin_cloud.domains import read_domains
    from calfin_cloud.evaluation import compare_fronts, read_reference
    from calfin_cloud.network import DEFAULT_NETWORK
    from calfin_cloud.pipeline import VARIANTS, map_fronts, recompute_changed

    logging.getLogger("distributed").setLevel(logging.INFO if options.verbose else logging.ERROR)
    domains = read_domains(options.domains, options.domain)
    reference = read_reference(options.reference) if options.reference else None
    settings = replace(
        VARIANTS[options.variant],
        network=options.network or DEFAULT_NETWORK,
        max_cloud=options.max_cloud,
        max_nodata=options.max_nodata,
    )
    with clusters.connect(options.cluster) as client, tqdm(desc="scenes mapped", unit="scene") as bar:
        counts = map_fronts(
            domains,
            _finder(options),
            options.store,
            settings=settings,
            client=client,
            batch_size=options.batch_size,
            on_batch=lambda fronts: _advance(bar, fronts["key"].nunique()),
        )
        if options.recompute:
            again = recompute_changed(options.store, domains, _finder(options), client=client)
            print(f"{sum(again.values())} scenes had changed and were mapped again", file=sys.stderr)
            counts["failed"] += again["failed"]
    _show_store(options.store, counts, None if reference is None else partial(compare_fronts, reference=reference))
    if counts["found"] == 0:
        print("no scene was found: check period, collections and domains with `calfin search`", file=sys.stderr)
    return 1 if counts["failed"] else 0


def retrace(options: argparse.Namespace) -> int:
    """Trace all fronts of a store anew from its masks, with other settings or fjord boundaries."""
    from tqdm import tqdm

    from calfin_cloud import clusters
    from calfin_cloud.domains import read_domains
    from calfin_cloud.pipeline import VARIANTS, retrace_fronts

    logging.getLogger("distributed").setLevel(logging.INFO if options.verbose else logging.ERROR)
    with clusters.connect(options.cluster) as client, tqdm(desc="scenes traced", unit="scene") as bar:
        counts = retrace_fronts(
            options.store,
            read_domains(options.domains) if options.domains else (),
            settings=VARIANTS[options.variant],
            client=client,
            on_batch=lambda fronts: _advance(bar, fronts["key"].nunique()),
        )
    _show_store(options.store, counts, None)
    return 1 if counts["failed"] else 0


def status(options: argparse.Namespace) -> int:
    """Count the scenes of a store by state and reason; the counts add up to the scenes it has."""
    from calfin_cloud.storage import read_fronts

    scenes = read_fronts(options.store).drop_duplicates("key")
    for (state, reason), n in scenes.groupby(["state", "reason"]).size().items():
        print(n, state, reason, sep="\t")
    print(len(scenes), "scenes", sep="\t")
    for scene in scenes[scenes["state"] == "failed"].itertuples():
        print(f"{scene.key}: {scene.reason}: {scene.detail}", file=sys.stderr)
    return 0


def retry(options: argparse.Namespace) -> int:
    """Map the failed scenes of a store once more."""
    from tqdm import tqdm

    from calfin_cloud import clusters
    from calfin_cloud.pipeline import retry_failed

    logging.getLogger("distributed").setLevel(logging.INFO if options.verbose else logging.ERROR)
    with clusters.connect(options.cluster) as client, tqdm(desc="scenes mapped", unit="scene") as bar:
        counts = retry_failed(
            options.store, client=client, on_batch=lambda fronts: _advance(bar, fronts["key"].nunique())
        )
    _show_store(options.store, counts, None)
    return 1 if counts["failed"] else 0


def _show_store(store: str, counts: Mapping[str, int], compare: Callable[[Any], Any] | None) -> None:
    """Write the report of a store; print the table of its scenes, the counts and the path of the report."""
    from calfin_cloud.pipeline import summarise_scenes, write_store_report
    from calfin_cloud.storage import read_fronts

    fronts = read_fronts(store)
    scenes = summarise_scenes(fronts, compare(fronts) if compare else None)
    report = write_store_report(store, scenes)
    print(scenes.head(200).to_string(index=False, na_rep=""))
    print(", ".join(f"{n} {state}" for state, n in counts.items()))
    print(f"report: {report}")


def _advance(bar: Any, n: int) -> None:  # noqa: ANN401 - tqdm is untyped
    bar.update(n)


def domains(options: argparse.Namespace) -> int:
    """Make one domain around the termini of each glacier id."""
    import geopandas as gpd

    from calfin_cloud.domains import domains_from_termini, write_domains

    path = str(options.from_termini)
    termini = gpd.read_parquet(path) if path.endswith("parquet") else gpd.read_file(path)
    made = domains_from_termini(
        termini,
        id_column=options.id_column,
        resolution_m=options.resolution,
        margin=options.margin,
        crs=options.crs,
    )
    write_domains(made, options.out)
    print(f"{len(made)} domains: {options.out}")
    return 0


def fjords(options: argparse.Namespace) -> int:
    """Give domains without a fjord boundary one: drawn polygons, or derived from the scenes of a store."""
    import geopandas as gpd

    from calfin_cloud.domains import read_domains, with_fjord_polygons, write_domains
    from calfin_cloud.pipeline import derive_fjords

    found = read_domains(options.domains)
    if options.polygons:
        found = with_fjord_polygons(found, gpd.read_file(options.polygons))
    if options.store:
        ice_mask = gpd.read_file(options.ice_mask) if options.ice_mask else None
        found = derive_fjords(options.store, found, ice_mask=ice_mask)
    write_domains(found, options.out)
    for domain in found:
        print(domain.name, domain.fjord_source or "none", sep="\t")
    return 0


def trace(options: argparse.Namespace) -> int:
    """Trace fronts in plain images, in pixel coordinates."""
    from tqdm import tqdm

    from calfin_cloud.network import DEFAULT_NETWORK
    from calfin_cloud.pipeline import VARIANTS, trace_image, write_image_fronts

    settings = VARIANTS[options.variant]
    network = options.network or DEFAULT_NETWORK
    traced = [
        trace_image(path, network=network, settings=settings.inference, trace=settings.trace)
        for path in tqdm(options.images, desc="images traced", unit="image")
    ]
    features = [feature for of_image in traced for feature in of_image]
    write_image_fronts(features, options.out)
    failed = [f["properties"] for f in features if f["properties"]["state"] == "failed"]
    for properties in failed:
        print(f"calfin trace: {properties['image']}: {properties['detail']}", file=sys.stderr)
    found = sum(f["geometry"] is not None for f in features)
    print(f"{found} fronts in {len(options.images)} images, {len(failed)} images failed: {options.out}")
    return 1 if failed else 0


def train(options: argparse.Namespace) -> int:
    """Train a network on labelled image sets; run again after an interruption, it resumes."""
    from calfin_cloud.training import RECIPES, fit

    changes = {name: getattr(options, name) for name in TRAINING_FLAGS if getattr(options, name) is not None}
    if options.steps or options.minutes:
        changes |= {"steps": options.steps, "minutes": options.minutes}
    if options.leave_out:
        changes["leave_out"] = tuple(options.leave_out)
    settings = replace(RECIPES[options.recipe], mixed_precision=options.mixed_precision, **changes)
    options.out.mkdir(parents=True, exist_ok=True)
    weights = fit(_samples(options.data), options.out / f"{options.name}.weights.h5", settings)
    print(f"weights: {weights}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Score methods on labelled image sets: by default on the validation glaciers Kangerlussuaq and Crane."""
    from tqdm import tqdm

    from calfin_cloud.datasets import VALIDATION_GLACIERS
    from calfin_cloud.evaluation import (
        describe_methods,
        join_scores,
        make_methods,
        score,
        summarise_scores,
        write_scores,
    )
    from calfin_cloud.network import DEFAULT_NETWORK

    glaciers = set(options.glaciers or VALIDATION_GLACIERS)
    samples = [s for s in _samples(options.data) if s.glacier in glaciers]
    names = [options.network or DEFAULT_NETWORK, *(options.against or [])]
    about = describe_methods(names)
    trained_on = {name: of["trained_on"] for name, of in about.items() if of["trained_on"] is not None}
    scores = join_scores(
        score(tqdm(samples, desc=name, unit="scene"), {name: method}, trained_on=trained_on)
        for name, method in make_methods(names).items()
    )
    path = write_scores(scores, samples, options.out, about=about)
    print(summarise_scores(scores).query("group in ['all', 'glacier']").round(3).T.to_string())
    print(f"scores: {path}")
    return 0


def calibrate(options: argparse.Namespace) -> int:
    """Calibrate the uncertainty of a network's fronts on labelled scenes, and check it on glaciers left out."""
    from tqdm import tqdm

    from calfin_cloud.evaluation import check_calibration, check_left_out, fit_calibration, make_cases, reliability
    from calfin_cloud.figures.reliability import reliability_png
    from calfin_cloud.fronts import calibration_beside, write_calibration
    from calfin_cloud.network import DEFAULT_NETWORK, network_id, weights_path

    network = options.network or DEFAULT_NETWORK
    cases = make_cases(tqdm(_samples(options.data), desc="scenes traced", unit="scene"), network)
    calibration = fit_calibration(cases, network=network)
    path = options.out or calibration_beside(weights_path(network))
    write_calibration(path, calibration)
    unseen = [case for case in cases if not case.seen]
    picture = path.with_suffix(".png")
    picture.write_bytes(reliability_png(reliability(unseen, calibration), title=network_id(network)))
    for title, table in (
        ("as fitted", check_calibration(unseen, calibration)),
        ("scenes left out", check_left_out(cases, by="scene")),
        ("glaciers left out", check_left_out(cases, by="glacier")),
    ):
        print(title, table.round(3).to_string(), sep="\n")
    print(f"calibration: {path}, {picture}")
    return 0


def _samples(folders: Sequence[Path]) -> list[Any]:
    from calfin_cloud.datasets import read_samples

    return [sample for folder in folders for sample in read_samples(folder)]


def _finder(options: argparse.Namespace) -> Callable[..., Any]:
    """Return what finds the scenes of a domain: a search in the catalogue, or the given images that touch it."""
    from calfin_cloud.scenes import images_of, items_from_images, search_scenes

    if options.images:
        return partial(images_of, items_from_images(options.images, options.datetime, platform=options.platform))
    if options.period is None:
        raise ValueError("--period is needed with --catalog, e.g. --period 2019-06/2019-09")
    return partial(
        search_scenes,
        options.catalog,
        period=options.period,
        collections=options.collections,
        max_cloud=options.max_scene_cloud,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="calfin", description="Calving fronts from satellite scenes.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_sample(_verb(verbs, "sample", sample, "calfin sample demo --scenes 12"))
    _add_search(
        _verb(
            verbs,
            "search",
            search,
            "calfin search --catalog earth-search --domains domains.geojson --period 2019-06/2019-09",
        )
    )
    _add_map(
        _verb(
            verbs,
            "map",
            map_,
            "calfin map --catalog earth-search --domains domains.geojson --period 2019-06/2019-09 --store fronts\n"
            "  calfin map --images scene.tif --datetime 2021-09-27 --domains domains.geojson --store fronts",
        )
    )
    _add_retrace(_verb(verbs, "retrace", retrace, "calfin retrace fronts --domains domains.geojson"))
    _add_status(_verb(verbs, "status", status, "calfin status fronts"))
    _add_retry(_verb(verbs, "retry", retry, "calfin retry fronts"))
    _add_domains(_verb(verbs, "domains", domains, "calfin domains --from-termini termini.shp --out domains.geojson"))
    _add_fjords(
        _verb(
            verbs, "fjords", fjords, "calfin fjords --domains domains.geojson --store fronts --out with_fjords.geojson"
        )
    )
    _add_trace(_verb(verbs, "trace", trace, "calfin trace a.png b.tif --out fronts.geojson"))
    _add_train(_verb(verbs, "train", train, "calfin train --data mohajerani2019 caffe256 --out weights --minutes 60"))
    _add_calibrate(
        _verb(verbs, "calibrate", calibrate, "calfin calibrate --data mohajerani2019 caffe256 --network my.weights.h5")
    )
    _add_evaluate(_verb(verbs, "evaluate", evaluate, "calfin evaluate --data mohajerani2019 caffe256 --out scores"))
    return parser


def _verb(
    verbs: Any,  # noqa: ANN401 - argparse's own type is private
    name: str,
    run: Callable[[argparse.Namespace], int],
    example: str,
) -> argparse.ArgumentParser:
    text = (run.__doc__ or "").strip()
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--verbose", action="store_true", help="log a line for every batch")
    parser.set_defaults(run=run)
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


def _add_find(parser: argparse.ArgumentParser, *, images: bool) -> None:
    """Add what says where and when to look; `images` allows plain GeoTIFFs in place of a catalogue."""
    source = parser.add_mutually_exclusive_group(required=True)
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
    parser.add_argument("--domains", required=True, metavar="FILE", help="domain file, see `calfin domains`")
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
    parser.add_argument("--network", metavar="NAME_OR_PATH", help="shipped network or weights file")
    _add_variant(parser)
    _add_cluster(parser)
    parser.add_argument("--batch-size", type=int, default=32, help="scenes that are written together (default 32)")
    parser.add_argument(
        "--max-cloud", type=float, default=0.15, help="cloudy above this part of the domain (default 0.15)"
    )
    parser.add_argument("--max-nodata", type=float, default=0.25, help="nodata above this part (default 0.25)")
    parser.add_argument(
        "--recompute", action="store_true", help="map scenes again whose item has changed since they were mapped"
    )
    parser.add_argument(
        "--reference", metavar="FILE", help="hand-drawn fronts: their distances go into table and report"
    )


def _add_variant(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--variant",
        default="default",
        choices=("default", "calfin", "mohajerani", "zhang", "baumhoer"),
        help="settings of all steps: ours (default), or those of CALFIN's release for one of its sets of scenes",
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster",
        default="local",
        metavar="local|none|ADDRESS",
        help="workers on this machine (default), none at all, or those of a scheduler at tcp://host:port",
    )


def _add_retrace(parser: argparse.ArgumentParser) -> None:
    _add_status(parser)
    parser.add_argument("--domains", metavar="FILE", help="domains with new fjord boundaries (default: as mapped)")
    _add_variant(parser)
    _add_cluster(parser)


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="folder or object prefix that `calfin map` made")


def _add_retry(parser: argparse.ArgumentParser) -> None:
    _add_status(parser)
    _add_cluster(parser)


def _add_domains(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from-termini", required=True, metavar="VECTOR_FILE", help="lines with a glacier id")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="domain file to write (GeoJSON)")
    parser.add_argument("--id-column", metavar="NAME", help="column with the glacier id, where it is not recognised")
    parser.add_argument("--resolution", type=float, default=30.0, metavar="M", help="pixel side in metres (default 30)")
    parser.add_argument("--margin", type=float, default=0.75, help="room on either side, in fronts (default 0.75)")
    parser.add_argument("--crs", help="CRS of the domains (default: EPSG:3413, EPSG:3031 or UTM, by place)")


def _add_fjords(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--domains", required=True, metavar="FILE", help="domain file, see `calfin domains`")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="domain file to write (GeoJSON)")
    parser.add_argument("--polygons", metavar="FILE", help="polygons where fronts may lie, drawn by hand")
    parser.add_argument("--store", metavar="URI", help="derive the others from the scenes of this store")
    parser.add_argument("--ice-mask", metavar="FILE", help="polygons of all glacier ice: land beside it is wall")


def _add_trace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="PNG or GeoTIFF, grey or RGB(A), 8 or 16 bit"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="GeoJSON in pixels: x column, y row")
    parser.add_argument("--network", metavar="NAME_OR_PATH", help="shipped network or weights file")
    _add_variant(parser)


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
        choices=("calfin", "unet", "unet-4"),
        help="CALFIN-NN, or the U-Net of Mohajerani with two or four levels",
    )
    parser.add_argument("--width", type=float, help="part of the network's filters")
    parser.add_argument("--steps", type=int, help="end after so many batches")
    parser.add_argument("--minutes", type=float, help="end after so many minutes")
    parser.add_argument("--painted", type=int, metavar="N", help="painted scenes to train on too")
    parser.add_argument("--start", metavar="NAME_OR_PATH", help="weights to start from in place of random ones")
    parser.add_argument("--learning-rate", type=float, help="highest learning rate")
    parser.add_argument("--ema", type=float, metavar="SHARE", help="validate and save a running average of the weights")
    parser.add_argument("--mixed-precision", action="store_true", help="compute in bfloat16")
    parser.add_argument("--seed", type=int, help="of weights and patches")
    _many(parser, "--leave-out", "validate on these glaciers in place of Kangerlussuaq and Crane", metavar="NAME")


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    _add_data(parser)
    parser.add_argument("--network", metavar="NAME_OR_PATH", help="shipped network or weights file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON to write (default: beside the weights)")


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
    _many(parser, "--glaciers", "score these glaciers in place of the validation ones", metavar="NAME")


if __name__ == "__main__":
    sys.exit(main())
