"""Labelled scenes of one place go in; a network whose last layers have moved a little for that place comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt

from calfin_cloud.datasets import Sample
from calfin_cloud.network import (
    DEFAULT_NETWORK,
    LEVELS,
    PICTURE_SIZE,
    network_id,
    predict_pictures,
    verifier_of,
    weights_path,
)
from calfin_cloud.network.backend import keras, layers
from calfin_cloud.network.files import noted
from calfin_cloud.opinions import ROCK, ROCK_WINDOW_PX
from calfin_cloud.preprocess import eight_bit_channels, resize_channels, to_eight_bit
from calfin_cloud.resampling import resize
from calfin_cloud.training.fitting import fit, trainable_network
from calfin_cloud.training.patches import frame_scale
from calfin_cloud.training.settings import TrainingSettings
from calfin_cloud.whole_files import read_json, write_whole_file

LAST_LAYERS = {
    "efficient": ("up", "masks", "rock"),
    "calfin": ("decoder_conv", "feature_projection", "custom_logits"),
    "unet": ("up", "features", "masks"),
    "unet-4": ("up", "features", "masks"),
}
"""Beginnings of the names of the layers that are adapted, by architecture: those of the decoder."""

STEPS, BATCH, RATE, ANCHOR = 200, 4, 3e-4, 1e-3
"""Batches of a training and their patches, peak of the learning rate, strength of the pull back to the start."""

SHARE = 0.25
"""Share of the adapted weights in the mean with those of the start: what few scenes do not show is not forgotten."""

LEAST_LABELS, N_FOLDS = 5, 3


def adapt(
    samples: Sequence[Sample],
    out: Path | str,
    *,
    start: str = DEFAULT_NETWORK,
    steps: int = STEPS,
    learning_rate: float = RATE,
    anchor: float = ANCHOR,
    share: float = SHARE,
) -> Path:
    """Train the last layers of a network on scenes of one place, and write it to `out` as `fit` does.

    Weights are pulled back to where they started, batch normalisation stays as it is; what is written is the weighted
    mean of start and end. It keeps the verifier of the start, and the note beside it says what it was adapted from.

    Parameters
    ----------
    samples
        Labelled scenes of the place.
    out
        Path of the weights, ending in `.weights.h5`.
    start
        Network to adapt, by name or path of `.weights.h5`.
    steps, learning_rate
        Batches of `BATCH` patches, and the peak of their one-cycle schedule.
    anchor, share
        Strength of the pull back to the start, and share of the way from there that is kept, see `TrainingSettings`.

    Raises
    ------
    ValueError
        `start` is no `.weights.h5`, `out` has another ending or a further dot, or `anchor` or `share` is out of its
        range.
    """
    note = noted(weights_path(start))
    settings = TrainingSettings(
        architecture=note.architecture,
        width=note.width,
        rock=note.rock,
        batch=BATCH,
        steps=steps,
        learning_rate=learning_rate,
        leave_out=(),
        start=start,
        verifier=verifier_of(start),
        anchor=anchor,
        share=share,
    )
    samples = [with_rock(sample, start) for sample in samples] if note.rock else samples
    return fit(samples, out, settings, make_network=decoder_network, overwrite=True)


def with_rock(sample: Sample, network: str) -> Sample:
    """Label rock where a network sees it, but for what is beside a drawn front: that is glacier, since it calves.

    Fronts beside rock are not believed (`opinions.beside_glaciers`); without these labels, the mask of rock would
    drift with the layers that it shares.
    """
    channels = resize_channels(eight_bit_channels(to_eight_bit(sample.image)), (PICTURE_SIZE, PICTURE_SIZE))
    seen = predict_pictures(np.rint(channels).astype(np.uint8)[None], network=network)[0]
    rock = resize(seen[..., ROCK], sample.front.shape, nearest=True) > LEVELS / 2
    reach = ROCK_WINDOW_PX / 2 * frame_scale(sample.front.shape)
    return replace(sample, rock=(rock & (distance_transform_edt(~sample.front) > reach)).astype(np.uint8))


def check_labels(samples: Sequence[Sample]) -> None:
    """Refuse fewer labelled scenes than can be learnt from and held out.

    Raises
    ------
    ValueError
        There are fewer than `LEAST_LABELS`.
    """
    if len(samples) < LEAST_LABELS:
        raise ValueError(
            f"at least {LEAST_LABELS} labelled scenes are needed, got {len(samples)}: accept or redraw fronts of more"
        )


def split_in_time(samples: Sequence[Sample]) -> list[tuple[list[Sample], list[Sample]]]:
    """Split samples, sorted by date, into `N_FOLDS` pairs of learnt and held out ones: each is held out once.

    Those held out follow one another in time, so that they differ from those learnt as scenes of other years do.
    """
    ends = [round(len(samples) * k / N_FOLDS) for k in range(N_FOLDS + 1)]
    return [([*samples[:a], *samples[b:]], list(samples[a:b])) for a, b in pairwise(ends)]


def decoder_network(settings: TrainingSettings) -> keras.Model:
    """Make the network of the settings, of which only the last layers learn."""
    network = trainable_network(settings)
    for layer in network.layers:
        is_last = layer.name.startswith(LAST_LAYERS[settings.architecture])
        layer.trainable = is_last and not isinstance(layer, layers.BatchNormalization)
    return network


def is_better(compared: Mapping[str, float]) -> bool:
    """Whether held-out fronts are clearly nearer: the 95 % interval of `metrics.compare_paired` lies below 0."""
    return compared["difference_high"] < 0


def trial_table(table: pd.DataFrame, compared: Mapping[str, float]) -> list[str]:
    """Tell a trial as lines of Markdown: fronts found and mean symmetric distances, before and adapted.

    Parameters
    ----------
    table
        Of `evaluation.Scores`, methods `before` and `adapted` on the same scenes.
    compared
        Of `metrics.compare_paired`, `adapted` with `before`, a missed front counting as a far one.
    """
    by_method = table.groupby(level="method")
    rows = {f"fronts found in {compared['n_scenes']:.0f} scenes": by_method["mean"].count()}
    rows |= {"mean distance, px": by_method["mean"].mean(), "mean distance, m": by_method["mean_m"].mean()}
    told = [f"| {what} | {of['before']:.4g} | {of['adapted']:.4g} |" for what, of in rows.items() if of.notna().all()]
    low, high = compared["difference_low"], compared["difference_high"]
    return [
        "| on held-out scenes | before | adapted |",
        "|---|---|---|",
        *told,
        "",
        f"Missed fronts counting as far as false ones: {compared['difference']:+.2f} px (95 % interval {low:+.2f} to "
        f"{high:+.2f}), nearer in {compared['a_is_closer']:.0f} scenes.",
    ]


def write_card(weights: Path, samples: Sequence[Sample], trial: Sequence[str], *, start: str, command: str) -> Path:
    """Write the model card of adapted weights beside them, `<name>.md`: what they are for, made of, and worth."""
    name = weights.name.removesuffix(".weights.h5")
    share = read_json(weights.with_name(f"{name}.json"))["settings"]["share"]
    places = ", ".join(sorted({sample.glacier for sample in samples}))
    days = ", ".join(f"{sample.datetime:%Y-%m-%d}" for sample in samples if sample.datetime)
    text = f"""# {name}

{network_id(start)}, adapted to one place: **{places}**. These weights are never the default anywhere, and nobody has
measured them at other places: name them with `--network`, and for this place alone.

* Weights: `{network_id(weights)}`, as fronts that they draw say in `model`
* Made by `{command}`
* {len(samples)} scenes with drawn or accepted fronts: {days}
* Trained: the layers {", ".join(LAST_LAYERS[noted(weights_path(start)).architecture])}..., pulled back to
  their start; {share:.0%} of what they moved is kept

## What it is worth

Each third of the scenes, in time, was held out once: a network adapted to the others drew its fronts. The weights
beside this card have learnt all of them.

"""
    path = weights.with_name(f"{name}.md")
    write_whole_file(path, text + "\n".join(trial) + "\n")
    return path
