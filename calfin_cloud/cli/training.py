"""Verbs of networks: training, scores, calibration."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from calfin_cloud.cli import flags
from calfin_cloud.cli.output import bar, how_many, note, records, tell

TRAINING_FLAGS = ("seed", "architecture", "width", "learning_rate", "synthetic", "start", "verifier", "ema")
TEACHER_PICTURES = 8000
EACH = "each"  # of --leave-out: a network without each glacier in turn


def train(options: argparse.Namespace) -> int:
    """Train a network on labelled image sets; the same call resumes a training that was interrupted."""
    from calfin_cloud.training import RECIPES, distil, fit, fit_folds

    changes = {name: getattr(options, name) for name in TRAINING_FLAGS if getattr(options, name) is not None}
    if options.steps is not None or options.minutes is not None:
        changes |= {"steps": options.steps, "minutes": options.minutes}
    if options.leave_out and options.leave_out != [EACH]:
        changes["leave_out"] = tuple(options.leave_out)
    switches = {"rock": options.rock, "mixed_precision": options.mixed_precision}
    settings = replace(RECIPES[options.recipe], **switches, **changes)
    if options.teacher and (options.start or options.leave_out == [EACH]):
        raise ValueError("--teacher trains one network that starts from it: leave out --start and --leave-out each")
    if options.pictures and not options.teacher:
        raise ValueError("--pictures says how many a teacher looks at: give --teacher, or leave it out")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.leave_out == [EACH]:
        folds = fit_folds(_samples(options.data), options.out / options.name, settings)
        tell(options, {"weights": folds}, *(f"without {name}: {path}" for name, path in folds.items()))
        return 0
    path = options.out / f"{options.name}.weights.h5"
    if options.teacher:
        settings = replace(settings, start=options.teacher, architecture="efficient", rock=True)
        lessons = options.out / f"{options.name}.lessons"
        pictures = options.pictures or TEACHER_PICTURES
        weights = distil(_samples(options.data), path, settings, lessons=lessons, pictures=pictures)
    else:
        weights = fit(_samples(options.data), path, settings)
    tell(options, {"weights": weights}, f"weights: {weights}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Score methods on labelled image sets: by default on the validation glaciers Kangerlussuaq and Crane."""
    from calfin_cloud.datasets import VALIDATION_GLACIERS
    from calfin_cloud.evaluation import adverse_samples

    if not options.data and not options.adverse:
        raise ValueError("give --data FOLDER with labelled images, --adverse N, or both: there is nothing to score")
    parts = {options.out: _samples(options.data, options.glaciers, VALIDATION_GLACIERS)} if options.data else {}
    if options.adverse:  # synthetic scenes have a table of their own: no mean joins them with real ones
        parts[options.out / "adverse"] = list(adverse_samples(options.adverse))
    results, lines = [], []
    for out, samples in parts.items():
        path, summary = _score(options, samples, out)
        results.append({"scores": path, "summary": records(summary)})
        lines += [summary.query("group in ['all', 'glacier']").round(3).T.to_string(), f"scores: {path}"]
    tell(options, results[0] if len(results) == 1 else results, *lines)
    return 0


def _score(options: argparse.Namespace, samples: list[Any], out: Path) -> tuple[Path, Any]:
    """Score the methods of a call on samples, write the tables into a folder, and return their path and summary."""
    from calfin_cloud.evaluation import (
        PERSISTENCE,
        describe_methods,
        join_scores,
        make_methods,
        score,
        score_persistence,
        score_sequences,
        summarise_scores,
        write_scores,
    )
    from calfin_cloud.network import DEFAULT_NETWORK
    from calfin_cloud.pipeline import VARIANTS

    variant = VARIANTS[options.variant]
    names = [options.network or DEFAULT_NETWORK, *(options.against or [])]
    about = describe_methods(names)
    trained_on = {name: of["trained_on"] for name, of in about.items() if of["trained_on"] is not None}
    methods = make_methods(names, trace=variant.trace, settings=variant.inference)
    of_methods = [
        score(bar(options, name, "scene", samples), {name: method}, trace=variant.trace, trained_on=trained_on)
        for name, method in methods.items()
    ]
    if any(sample.datetime for sample in samples):
        if options.sequences:
            first, method = next(iter(methods.items()))
            label = f"{first} reconciled"
            about[label] = about[first]
            seen = trained_on.get(first)
            of_methods.append(score_sequences(samples, label, method, trace=variant.trace, trained_on=seen))
        of_methods.append(score_persistence(samples))
        about[PERSISTENCE] = {"weights": None, "trained_on": []}
    scores = join_scores(of_methods)
    return write_scores(scores, samples, out, about=about), summarise_scores(scores)


def calibrate(options: argparse.Namespace) -> int:
    """Calibrate the uncertainty of a network's fronts on labelled scenes, and check it on glaciers left out."""
    from calfin_cloud.evaluation import (
        check_calibration,
        check_left_out,
        fit_calibration,
        known_termini,
        make_cases,
        reliability,
        unseen_of,
    )
    from calfin_cloud.figures.reliability import reliability_png
    from calfin_cloud.fronts import calibration_beside, write_calibration
    from calfin_cloud.network import SHIPPED, network_id, weights_path
    from calfin_cloud.pipeline import VARIANTS
    from calfin_cloud.whole_files import write_whole_file

    variant = VARIANTS[options.variant]
    network = options.network or variant.network
    if not options.out and network in SHIPPED:
        raise ValueError(f"the calibration of {network} is part of the package: give --out FILE for another one")
    samples = _samples(options.data, options.glaciers)
    shown = bar(options, "scenes traced", "scene", samples)
    cases = make_cases(
        shown,
        network,
        folds=options.folds,
        trace=variant.trace,
        settings=variant.inference,
        known=known_termini(samples),
    )
    if all(case.guided for case in cases):
        raise ValueError(_no_front(samples, network))
    if all(case.seen for case in cases):
        known = ", ".join(sorted({case.glacier for case in cases}))
        note(
            f"{network} was trained on {known}, and on others it errs more: there the half-widths will be too small. "
            "Give scenes of other glaciers, or --folds"
        )
    calibration = fit_calibration(cases, network=network)
    path = options.out or calibration_beside(weights_path(network))
    write_calibration(path, calibration)
    picture = path.with_suffix(".png")
    free, guided = ([case for case in cases if case.guided == is_guided] for is_guided in (False, True))
    write_whole_file(picture, reliability_png(reliability(unseen_of(free), calibration), title=network_id(network)))
    checks: dict[str, Any] = {}
    for alike, how in ((free, ""), (guided, ", along the front of another year")):
        if alike:
            checks |= {
                f"as fitted{how}": check_calibration(unseen_of(alike), calibration.of("guided" if how else "free")),
                f"scenes left out{how}": check_left_out(alike, by="scene"),
                f"glaciers left out{how}": check_left_out(alike, by="glacier"),
            }
    lines = []
    for title, table in checks.items():
        lines += [title, "too few fronts" if table.empty else table.round(3).to_string()]
    result = {"calibration": path, "picture": picture}
    result |= {title: records(table.reset_index()) for title, table in checks.items()}
    tell(options, result, *lines, f"calibration: {path}, {picture}")
    return 0


def _no_front(samples: Sequence[Any], network: str) -> str:
    """Say why there is no front to calibrate on: none is drawn, or the network finds none."""
    n_drawn = sum(sample.front.any() for sample in samples)
    why = f"{network} finds none" if n_drawn else "none of the labels has one"
    return (
        f"no front to calibrate on in {how_many(len(samples), 'labelled scene')} ({n_drawn} with a drawn one): "
        f"{why}; `calfin evaluate` with the same --data and --network says why of each scene"
    )


def _samples(
    folders: Sequence[Path], glaciers: Collection[str] | None = None, usual: Collection[str] = ()
) -> list[Any]:
    """Labelled images of folders: those of the glaciers that are named, each of which must be there; else the usual."""
    from calfin_cloud.datasets import read_samples

    samples = [sample for folder in folders for sample in read_samples(folder)]
    shown = {sample.glacier for sample in samples}
    wanted = set(glaciers or usual or shown)
    missing = wanted - shown
    if missing and (glaciers or missing == wanted):
        raise ValueError(f"no image shows {sorted(missing)}, got {sorted(shown)}: name others with --glaciers")
    return [sample for sample in samples if sample.glacier in wanted]


def _add_data(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    flags.many(
        parser,
        "--data",
        "folders in the layout of mohajerani2019, caffe256 or CALFIN",
        type=Path,
        metavar="FOLDER",
        required=required,
    )


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin train`."""
    _add_data(parser)
    parser.add_argument(
        "--out", required=True, type=flags.outside, metavar="DIR", help="folder for weights, settings and curves"
    )
    parser.add_argument(
        "--name", type=flags.weights_name, default="calfin", help="name of the weights (default calfin)"
    )
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
    parser.add_argument("--width", type=flags.positive, help="factor on the number of the network's filters")
    parser.add_argument("--steps", type=flags.count, help="stop after this many batches")
    parser.add_argument("--minutes", type=flags.positive, help="stop after this many minutes")
    parser.add_argument(
        "--synthetic", type=flags.natural, metavar="N", help="number of synthetic scenes to train on as well"
    )
    parser.add_argument("--start", metavar="NAME_OR_PATH", help="weights to start from in place of random ones")
    parser.add_argument(
        "--teacher",
        metavar="NAME_OR_PATH",
        help="train a narrower efficient network on what these weights and their verifier believe, beside the truth",
    )
    parser.add_argument(
        "--pictures",
        type=flags.count,
        metavar="N",
        help=f"pictures that a teacher looks at (default {TEACHER_PICTURES})",
    )
    parser.add_argument("--learning-rate", type=flags.positive, help="highest learning rate")
    parser.add_argument("--ema", type=float, metavar="SHARE", help="validate and save a running average of the weights")
    parser.add_argument(
        "--rock", action="store_true", help="learn a mask of rock as well, which helps with fjord walls"
    )
    parser.add_argument("--mixed-precision", action="store_true", help="compute in bfloat16")
    parser.add_argument("--seed", type=flags.natural, help="seed of weights and patches")
    parser.add_argument(
        "--verifier",
        metavar="NAME",
        help="shipped network that must see a front in optical scenes too, e.g. calfin-small-2",
    )
    flags.many(
        parser,
        "--leave-out",
        "validate on these glaciers in place of Kangerlussuaq and Crane; `each` trains a network without each glacier "
        "in turn, into DIR/NAME, and continues where an earlier call stopped",
        metavar="NAME",
    )


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin calibrate`."""
    _add_data(parser)
    parser.add_argument("--network", metavar="NAME_OR_PATH", help="shipped network or weights file")
    parser.add_argument("--out", type=flags.outside, metavar="FILE", help="JSON to write (default: beside the weights)")
    parser.add_argument(
        "--folds",
        type=Path,
        metavar="DIR",
        help="networks of `calfin train --leave-out each`: they map the glaciers that the network was trained on",
    )
    flags.many(parser, "--glaciers", "calibrate on these glaciers in place of all", metavar="NAME")
    flags.add_variant(parser)


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `calfin evaluate`."""
    _add_data(parser, required=False)
    parser.add_argument(
        "--out", required=True, type=flags.outside, metavar="DIR", help="folder for tables and pictures"
    )
    parser.add_argument("--network", metavar="NAME_OR_PATH", help="shipped network or weights file")
    flags.many(
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
    flags.many(parser, "--glaciers", "score these glaciers in place of the validation ones", metavar="NAME")
    flags.add_variant(parser)
    parser.add_argument(
        "--adverse",
        type=flags.natural,
        default=0,
        metavar="N",
        help="score N synthetic scenes of each adverse case, such as melange, into DIR/adverse; needs no --data",
    )
