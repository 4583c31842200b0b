"""Verbs beside the main job: domains, fjords, plain images, training, scores, calibration."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

TRAINING_FLAGS = ("seed", "architecture", "width", "learning_rate", "painted", "start", "ema")


def domains(options: argparse.Namespace) -> int:
    """Make one domain around the termini of each glacier id, which it keeps."""
    from calfin_cloud.domains import domains_from_termini, write_domains

    made = domains_from_termini(
        _vectors(options.from_termini),
        id_column=options.id_column,
        resolution_m=options.resolution,
        margin=options.margin,
        crs=options.crs,
    )
    write_domains(made, options.out)
    print(f"{len(made)} domains: {options.out}")
    return 0


def fjords(options: argparse.Namespace) -> int:
    """Tell domains more of their place: fjord boundaries, maps of ice and ocean, known termini."""
    import geopandas as gpd

    from calfin_cloud.domains import read_domains, with_fjord_polygons, write_domains
    from calfin_cloud.pipeline import derive_fjords
    from calfin_cloud.surroundings import with_maps, with_termini

    found = read_domains(options.domains)
    if options.polygons:
        found = with_fjord_polygons(found, gpd.read_file(options.polygons))
    ice = _vectors(options.ice_mask) if options.ice_mask else None
    found = with_maps(found, ice=ice, ocean=_vectors(options.ocean) if options.ocean else None)
    if options.termini:
        found = with_termini(found, _vectors(options.termini))
    if options.store:
        found = derive_fjords(options.store, found, ice_mask=ice)
    write_domains(found, options.out)
    for domain in found:
        also = [name for name in ("ice", "ocean") if getattr(domain, name) is not None]
        also += [f"{len(domain.termini)} termini"] if domain.termini else []
        print(domain.name, domain.fjord_source or "none", *([", ".join(also)] if also else []), sep="\t")
    return 0


def _vectors(path: str) -> Any:  # noqa: ANN401 - geopandas waits until it is needed
    """Read a vector file, GeoParquet, or the fronts of a store."""
    import geopandas as gpd

    from calfin_cloud.storage import is_store, read_fronts

    if is_store(path):
        return read_fronts(path)
    return gpd.read_parquet(path) if path.endswith("parquet") else gpd.read_file(path)


def trace(options: argparse.Namespace) -> int:
    """Trace fronts in plain images, in pixel coordinates."""
    from tqdm import tqdm

    from calfin_cloud.network import DEFAULT_NETWORK
    from calfin_cloud.pipeline import VARIANTS, trace_image, write_image_fronts

    settings = VARIANTS[options.variant]
    inference = replace(settings.inference, engine=options.engine)
    network = options.network or DEFAULT_NETWORK
    traced = [
        trace_image(path, network=network, settings=inference, trace=settings.trace, kind=options.sensor)
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
    switches = {"rock": options.rock, "mixed_precision": options.mixed_precision}
    settings = replace(RECIPES[options.recipe], **switches, **changes)
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

    from calfin_cloud.evaluation import (
        check_calibration,
        check_left_out,
        fit_calibration,
        make_cases,
        reliability,
        unseen_of,
    )
    from calfin_cloud.figures.reliability import reliability_png
    from calfin_cloud.fronts import calibration_beside, write_calibration
    from calfin_cloud.network import DEFAULT_NETWORK, network_id, weights_path

    network = options.network or DEFAULT_NETWORK
    cases = make_cases(tqdm(_samples(options.data), desc="scenes traced", unit="scene"), network)
    calibration = fit_calibration(cases, network=network)
    path = options.out or calibration_beside(weights_path(network))
    write_calibration(path, calibration)
    unseen = unseen_of(cases)
    picture = path.with_suffix(".png")
    picture.write_bytes(reliability_png(reliability(unseen, calibration), title=network_id(network)))
    for title, table in (
        ("as fitted", check_calibration(unseen, calibration)),
        ("scenes left out", check_left_out(cases, by="scene")),
        ("glaciers left out", check_left_out(cases, by="glacier")),
    ):
        print(title, "too few fronts" if table.empty else table.round(3).to_string(), sep="\n")
    print(f"calibration: {path}, {picture}")
    return 0


def _samples(folders: Sequence[Path]) -> list[Any]:
    from calfin_cloud.datasets import read_samples

    return [sample for folder in folders for sample in read_samples(folder)]
