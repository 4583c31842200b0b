"""Synthetic series of a glacier, mapped and reconciled: melange, bare coasts, poor dates, a surge, a loss of 5 km.


Paints a scene every two months for four years, of several glaciers a kind, maps each alone with the shipped network,
and asks all dates (`calfin reconcile`). Prints how near the fronts are to the truth, alone and reconciled.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from calfin_cloud.datasets import Sample, synthetic_sample
from calfin_cloud.evaluation import make_methods, score, score_sequences
from calfin_cloud.network import DEFAULT_NETWORK
from calfin_cloud.sample.drawing import Glacier, Look, draw_glacier, draw_look, with_bare_coast
from calfin_cloud.sample.painting import paint, pixel_grid, with_clouds

SEED = 77
SHAPE, PIXEL_M = (320, 320), 50.0  # 16 km a side: a collapse of 5 km stays in the picture
HALF_WIDTH_M = 1800.0
FIRST, DAYS, DATES = datetime(2016, 1, 15, tzinfo=UTC), 61, 24
WINTER = (11, 12, 1, 2, 3, 4)
POOR = 0.5  # share of the optical dates of one kind that clouds or gaps spoil
EVENT = 12  # the date before which the surge is over and the collapse has happened
NEAR_M = 300.0

Rng = np.random.Generator


def quiet(day: int) -> float:
    """Retreat of 150 m a year with a season of 200 m."""
    return -150 * day / 365.25 + 200 * np.cos(2 * np.pi * day / 365.25)


def surge(day: int) -> float:
    """Advance of 2.5 km within the eight months before the event, then a slow retreat."""
    since = (day - EVENT * DAYS) / 365.25
    return float(-1500 + 2500 * np.clip(1 + since / 0.67, 0, 1) - 300 * max(since, 0))


def collapse(day: int) -> float:
    """Loss of 5 km between two dates."""
    return quiet(day) + (2500 if day < EVENT * DAYS - DAYS / 2 else -2500)


MOVES: dict[str, Callable[[int], float]] = {
    "quiet": quiet,
    "melange": quiet,
    "bare coast": quiet,
    "poor dates": quiet,
    "surge": surge,
    "collapse": collapse,
}


def main() -> None:
    """Paint, map, reconcile, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--glaciers", type=int, default=3, help="series of each kind (default 3)")
    parser.add_argument("--network", default=DEFAULT_NETWORK, help="name or path of weights")
    options = parser.parse_args()
    samples = [sample for kind in MOVES for n in range(options.glaciers) for sample in series(kind, n)]
    methods = make_methods([f"alone={options.network}"])
    kept: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def once(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """Masks of a sample, which both ways of asking share."""
        if sample.name not in kept:
            kept[sample.name] = methods["alone"](sample)
        return kept[sample.name]

    alone = score(samples, {"alone": once}).table.loc["alone"]
    together = score_sequences(samples, "reconciled", once).table.loc["reconciled"]
    rows = pd.concat([told(samples, table, name) for name, table in (("alone", alone), ("reconciled", together))])
    for part, title in ((rows, "all dates"), (rows[rows["date"] >= EVENT], "after the surge and the collapse")):
        print(f"\n{title}\n{summary(part).to_string()}")


def series(kind: str, number: int) -> Iterator[Sample]:
    """Scenes of one glacier of a kind, seen by light and radar by turns."""
    rng = np.random.default_rng((SEED, list(MOVES).index(kind), number))
    x, y = pixel_grid(SHAPE, PIXEL_M)
    glacier = replace(draw_glacier(rng, (float(x.mean()), float(y.mean())), HALF_WIDTH_M), bend=0.2)
    if kind == "bare coast":
        glacier, _ = with_bare_coast(glacier, draw_look(rng, "optical", HALF_WIDTH_M), rng)
    for n in range(DATES):
        day = n * DAYS
        when = FIRST + timedelta(days=day)
        sensor = "sar" if when.month in WINTER else "optical"  # no light in winter
        look = replace(draw_look(rng, sensor, HALF_WIDTH_M), position_m=MOVES[kind](day), bow=0.1, embayment=0.08)
        look = conditions(kind, glacier, look, when, rng)
        if kind == "poor dates" and sensor == "optical" and rng.random() < POOR:
            look = replace(with_clouds(look, x, y, rng.uniform(0.3, 0.6)), slc_off=bool(rng.random() < 0.5))
        scene = paint(glacier, look, x, y, rng)
        in_pixels = replace(scene, front=scene.front * (1 / PIXEL_M, -1 / PIXEL_M))
        made = synthetic_sample(f"{kind}-{number}-{n:02d}", f"{kind}-{number}", sensor, in_pixels)
        yield replace(made, datetime=when, pixel_size_m=PIXEL_M)


def conditions(kind: str, glacier: Glacier, look: Look, when: datetime, rng: Rng) -> Look:
    """Sea and coast of a day: melange as bright as the ice in the winters of one kind, bare coasts in another."""
    if kind == "melange" and when.month in WINTER:
        as_bright = look.ice + rng.uniform(-1, 1)  # dB: winter is seen by radar
        return replace(look, melange_m=HALF_WIDTH_M * rng.uniform(2, 5), sea_ice=as_bright, cliff=0.0)
    calm = replace(look, melange_m=0.0, bergs=min(look.bergs, 0.05))
    return with_bare_coast(glacier, calm, rng)[1] if kind == "bare coast" else calm


def told(samples: list[Sample], table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Table of what a way of asking found of each sample, in m."""
    rows = table.loc[[sample.name for sample in samples]]
    kinds = [sample.glacier.rpartition("-")[0] for sample in samples]
    dates = [int(sample.name.rpartition("-")[2]) for sample in samples]
    return pd.DataFrame({"kind": kinds, "asked": name, "date": dates, "m": rows["mean"].to_numpy(float) * PIXEL_M})


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Found of all dates, mean, median and worst distance in m, share of the dates within `NEAR_M`."""
    of = rows.groupby(["kind", "asked"], sort=False)["m"]
    table = of.agg(dates="size", found="count", mean="mean", median="median", worst="max").round(0)
    return table.assign(near=of.apply(lambda m: float((m <= NEAR_M).mean())).round(2)).astype({"found": int})


if __name__ == "__main__":
    main()
