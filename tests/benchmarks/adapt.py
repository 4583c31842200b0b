"""What a few drawn fronts of a place are worth: `training.adapt` on the images of one glacier.

    python tests/benchmarks/adapt.py --data ../shared/data --out /tmp/adapt [--glaciers Crane] [--labels 10]

Adapts the shipped network to some images of a glacier, the earliest ones or random ones, and scores both networks on
all other images of it: Crane (SAR) and Kangerlussuaq (optical), which it never saw, and Jakobshavn (optical), which it
was trained on. Prints a row a case, as soon as it is there.

With `--calibrate` it also calibrates the adapted weights as `calfin adapt` does, on fronts that three further trainings
hold out, and says how many truths of the other images lie inside the half-widths.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from calfin_cloud.cli.adapting import LEAST_CALIBRATED, score_held_out
from calfin_cloud.datasets import Sample, read_samples
from calfin_cloud.evaluation import check_calibration, fit_calibration, make_cases, make_methods, score
from calfin_cloud.metrics import compare_paired
from calfin_cloud.network import DEFAULT_NETWORK
from calfin_cloud.training import adapting

SETS = {"Crane": "caffe256", "Kangerlussuaq": "mohajerani2019", "Jakobshavn": "mohajerani2019"}


def main() -> None:
    """Adapt, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the shared data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, which a second run scores again")
    parser.add_argument("--glaciers", nargs="+", default=list(SETS))
    parser.add_argument("--labels", nargs="+", type=int, default=[5, 10, 20])
    parser.add_argument("--orders", nargs="+", default=["earliest", "random"], choices=("earliest", "random"))
    parser.add_argument("--steps", type=int, default=adapting.STEPS)
    parser.add_argument("--rate", type=float, default=adapting.RATE)
    parser.add_argument("--anchor", type=float, default=adapting.ANCHOR)
    parser.add_argument("--share", type=float, default=adapting.SHARE)
    parser.add_argument("--calibrate", action="store_true", help="three further trainings a row, from 20 labels on")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for glacier in options.glaciers:
        samples = samples_of(options.data, glacier)
        before = means(samples, DEFAULT_NETWORK, options.out / f"{glacier}.scores.csv")
        for order in options.orders:
            for n in options.labels:
                print(row(glacier, samples, before, order, n, options), flush=True)


def samples_of(data: Path, glacier: str) -> list[Sample]:
    """Images of a glacier by date; without zones of rock, since a store of reviewed fronts has none."""
    found = [s for s in read_samples(data / SETS[glacier]) if s.glacier == glacier]
    return [replace(s, rock=None) for s in sorted(found, key=lambda s: (s.datetime, s.name))]


def means(samples: Sequence[Sample], network: str, kept: Path) -> pd.Series:
    """Mean distance in px of each image, NaN where no front is found; kept in a table."""
    if not kept.is_file():
        scores = score(samples, make_methods([f"it={network}"]))
        scores.table.loc["it", ["mean", "n_false", "hit"]].to_csv(kept)
    return pd.read_csv(kept, index_col="scene")["mean"]


def row(
    glacier: str, samples: Sequence[Sample], before: pd.Series, order: str, n: int, options: argparse.Namespace
) -> str:
    """Adapt to `n` images, and say what that did to the others."""
    rng = np.random.default_rng(n)
    chosen = set(range(n)) if order == "earliest" else set(rng.choice(len(samples), n, replace=False).tolist())
    learnt = [s for i, s in enumerate(samples) if i in chosen]
    rest = [s for i, s in enumerate(samples) if i not in chosen]
    name = f"{glacier}-{order}-{n}-{options.steps}-{options.rate:.0e}-{options.anchor:.0e}-{100 * options.share:.0f}"
    out, started = options.out / f"{name}.weights.h5", time.process_time()
    if not out.is_file():
        adapting.adapt(
            learnt, out, steps=options.steps, learning_rate=options.rate, anchor=options.anchor, share=options.share
        )
    core_minutes = (time.process_time() - started) / 60
    held = calibrated(learnt, rest, out, options.steps) if options.calibrate and n >= LEAST_CALIBRATED else ""
    after = means(rest, str(out), options.out / f"{name}.scores.csv")
    of = compare_paired(after, before[after.index])
    found = (after.notna().sum(), before[after.index].notna().sum())
    return (
        f"{name}: {len(rest)} others, found {found[1]} -> {found[0]}, mean px {of['mean_b']:.2f} -> {of['mean_a']:.2f}"
        f", median {before[after.index].median():.2f} -> {after.median():.2f}"
        f", difference {of['difference']:.2f} ({of['difference_low']:.2f} to {of['difference_high']:.2f}), nearer in "
        f"{of['a_is_closer']:.0f}, {core_minutes:.1f} core minutes{held}"
    )


def calibrated(learnt: Sequence[Sample], rest: Sequence[Sample], weights: Path, steps: int) -> str:
    """Calibrate adapted weights on held-out fronts of their labels, and say how that holds on all other images."""
    _, cases = score_held_out(adapting.split_in_time(learnt), DEFAULT_NETWORK, steps)
    table = check_calibration(make_cases(rest, str(weights)), fit_calibration(cases))
    inside = "/".join(f"{100 * table.loc['all', f'front_inside{level}']:.0f}" for level in (68, 95))
    vertices = "/".join(f"{100 * table.loc['all', f'vertex_inside{level}']:.0f}" for level in (68, 95))
    sigma, mean = (table.loc["all", f"front_{name}"] for name in ("sigma", "mean"))
    return (
        f", calibrated on {len(cases)}: fronts inside 68/95 % {inside}, vertices {vertices}, median half-width "
        f"{sigma:.1f} px, mean distance {mean:.1f} px"
    )


if __name__ == "__main__":
    main()
