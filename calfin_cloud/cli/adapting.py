"""The verb that adapts a network to one place, scores that on held-out fronts, and keeps it only where it helps."""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calfin_cloud.cli import flags
from calfin_cloud.cli.output import bar, note, tell

if TYPE_CHECKING:
    from calfin_cloud.datasets import Sample
    from calfin_cloud.evaluation import Scores

LEAST_CALIBRATED = 20
"""Held-out fronts from which half-widths are told: with fewer, one front alone decides the 95 % ones."""


def adapt(options: argparse.Namespace) -> int:
    """Adapt a network to one place by its reviewed fronts, and write it only if held-out fronts come nearer."""
    from calfin_cloud.results import labelled_samples
    from calfin_cloud.training import adapting

    start, steps = _start(options)
    samples = labelled_samples(options.store, domains=options.domain or (), lines=options.lines, days=options.days)
    adapting.check_labels(samples)
    note(f"{len(samples)} labelled scenes, for {_weights(options, samples)}")
    scores, cases = score_held_out(bar(options, "trials", "trial", adapting.split_in_time(samples)), start, steps)
    trial = compare_trial(scores, samples)
    lines = adapting.trial_table(scores.table, trial)
    if not adapting.is_better(trial):
        refusal = "no network is written: on held-out scenes the adapted one is not clearly better than the one before"
        tell(options, {"weights": None, "trial": trial}, *lines, "", refusal)
        return 1
    weights, card, told = keep_adapted(options, samples, cases, lines)
    result = {"weights": weights, "card": card, "trial": trial, "calibration": told}
    tell(options, result, *lines, "", told, f"weights: {weights}, card: {card}")
    return 0


def keep_adapted(
    options: argparse.Namespace, samples: Sequence[Sample], cases: Sequence[Any], lines: Sequence[str]
) -> tuple[Path, Path, str]:
    """Adapt to all samples; write weights, calibration and model card, and return both paths and what is calibrated.

    `cases` are the held-out fronts of the trial, `lines` what it came to.
    """
    from calfin_cloud.training import adapting

    start, steps = _start(options)
    options.out.mkdir(parents=True, exist_ok=True)
    weights = adapting.adapt(samples, _weights(options, samples), start=start, steps=steps)
    told = _calibrate(cases, weights)
    card = adapting.write_card(weights, samples, [*lines, "", told], start=start, command=_command(options))
    return weights, card, told


def score_held_out(
    folds: Iterable[tuple[Sequence[Sample], Sequence[Sample]]], start: str, steps: int
) -> tuple[Scores, list[Any]]:
    """Adapt to the first scenes of each fold and score the second ones, `before` and `adapted`.

    Returns
    -------
    tuple
        Scores of both methods on all scenes held out, and the fronts of the latter, for a calibration.
    """
    from calfin_cloud.evaluation import join_scores, make_cases, make_methods, score
    from calfin_cloud.training import adapting

    parts, cases = [], []
    with tempfile.TemporaryDirectory(prefix="calfin-adapt-") as folder:
        for number, (learnt, held_out) in enumerate(folds):
            weights = adapting.adapt(learnt, Path(folder) / f"{number}.weights.h5", start=start, steps=steps)
            parts.append(score(held_out, make_methods([f"before={start}", f"adapted={weights}"])))
            cases += make_cases(held_out, str(weights))
    return join_scores(parts), cases


def compare_trial(scores: Scores, samples: Sequence[Sample]) -> dict[str, float]:
    """Compare `adapted` with `before` by `metrics.compare_paired`, in px; a missed front is as far as a false one."""
    from calfin_cloud.evaluation.measures import REACH_PX
    from calfin_cloud.metrics import compare_paired

    missed = {sample.name: REACH_PX * max(sample.front.shape) / 256 for sample in samples}
    adapted, before = (scores.table.loc[name]["mean"].fillna(missed) for name in ("adapted", "before"))
    return compare_paired(adapted, before)


def _start(options: argparse.Namespace) -> tuple[str, int]:
    """Network to adapt, and the number of steps: as the call says, else the defaults."""
    from calfin_cloud.network import DEFAULT_NETWORK
    from calfin_cloud.training import adapting

    return options.network or DEFAULT_NETWORK, options.steps or adapting.STEPS


def _weights(options: argparse.Namespace, samples: Sequence[Sample]) -> Path:
    """Path of the weights, named as the call says or after the place."""
    from calfin_cloud.training.records import checked_path

    places = sorted({sample.glacier for sample in samples})
    name = options.name or (places[0].replace(".", "-") if len(places) == 1 else "adapted")
    return checked_path(options.out / f"{name}.weights.h5")


def _calibrate(cases: Sequence[Any], weights: Path) -> str:
    """Write the calibration of weights from held-out fronts, where they suffice, and say so."""
    from calfin_cloud.evaluation import fit_calibration
    from calfin_cloud.fronts import calibration_beside, write_calibration

    path = calibration_beside(weights)
    if len(cases) < LEAST_CALIBRATED:
        path.unlink(missing_ok=True)
        return (
            f"No calibration: it needs {LEAST_CALIBRATED} held-out fronts, got {len(cases)}. "
            "Fronts of these weights have no `sigma_m` and no `score`."
        )
    write_calibration(path, fit_calibration(cases, network=str(weights)))
    return f"Calibrated on {len(cases)} held-out fronts of the place: `{path.name}`."


def _command(options: argparse.Namespace) -> str:
    """Write the call that made weights, as one would type it."""
    given = {"lines": options.lines, "days": options.days or None, "network": options.network, "name": options.name}
    given |= {"steps": options.steps}
    words = [options.store, "--out", str(options.out), *(("--domain", *options.domain) if options.domain else ())]
    words += [word for flag, value in given.items() if value is not None for word in (f"--{flag}", str(value))]
    return shlex.join(["calfin", "adapt", *words])


def add_adapt(parser: Any) -> None:  # noqa: ANN401 - argparse's own types
    """Add the flags of `calfin adapt`."""
    parser.add_argument("store", metavar="STORE", help="folder or bucket address that `calfin map` wrote to")
    parser.add_argument(
        "--out", required=True, type=flags.outside, metavar="DIR", help="folder for weights and model card"
    )
    parser.add_argument("--name", type=flags.weights_name, help="name of the weights (default that of the domain)")
    parser.add_argument(
        "--lines", metavar="FILE", help="drawn fronts with dates, in place of the store's accepted and redrawn ones"
    )
    parser.add_argument(
        "--days",
        type=flags.natural,
        default=0,
        help="most days between a drawn front and its scene (default 0: the same day)",
    )
    parser.add_argument(
        "--domain", nargs="+", action="extend", metavar="NAME", help="only the domains with these names"
    )
    parser.add_argument("--network", metavar="NAME_OR_PATH", help="shipped network or weights file to adapt")
    parser.add_argument("--steps", type=flags.count, help="batches of each of the four trainings")
