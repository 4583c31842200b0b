"""One recipe, trained once without each glacier: networks by which every labelled glacier is measured unseen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from calfin_cloud.datasets import Sample
from calfin_cloud.schema import check_name
from calfin_cloud.training.fitting import fit
from calfin_cloud.training.records import checked_path
from calfin_cloud.training.settings import TrainingSettings


def fit_folds(
    samples: Iterable[Sample], folder: Path | str, settings: TrainingSettings, *, glaciers: Iterable[str] | None = None
) -> dict[str, Path]:
    """Train a network without each glacier in turn, each glacier's in a file of its own below `folder`.

    What an earlier call finished with the same settings is not trained again, and what it began is continued, so the
    schedule can be stopped at any time.

    Parameters
    ----------
    samples
        Labelled scenes of at least two glaciers; those of all glaciers but one train a network.
    folder
        Gets `<glacier>.weights.h5` and what `fit` writes beside it.
    settings
        What makes each run again; `leave_out` is replaced by the glacier.
    glaciers
        Those to leave out, in this order; all that the samples show where None.

    Returns
    -------
    dict
        Path of the weights by the glacier that they have not seen.

    Raises
    ------
    ValueError
        The samples show one glacier only, or none of a glacier that is named, a glacier's name cannot be that of a
        file, or `folder` has networks of other settings or samples.

    Examples
    --------
    >>> from calfin_cloud.datasets import read_samples
    >>> from calfin_cloud.training import TrainingSettings, fit_folds
    >>> settings = TrainingSettings(steps=1200, architecture="efficient", start="efficientnet-lite0")
    >>> fit_folds(read_samples("caffe256"), "weights/folds", settings)["JAC"]  # doctest: +SKIP
    PosixPath('weights/folds/JAC.weights.h5')
    """
    samples = list(samples)
    shown = sorted({sample.glacier for sample in samples})
    wanted = shown if glaciers is None else list(dict.fromkeys(glaciers))
    if len(shown) < 2 or not set(wanted) <= set(shown):
        raise ValueError(
            f"samples of two or more glaciers, among them {wanted}, are needed, got {shown}: give more image sets, or "
            "correct the names"
        )
    paths = {glacier: fold_path(folder, glacier) for glacier in wanted}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for glacier, path in paths.items():
        fit(samples, path, replace(settings, leave_out=(glacier,)))
    return paths


def fold_path(folder: Path | str, glacier: str) -> Path:
    """Path of the weights in a folder of `fit_folds` that have not seen a glacier.

    Raises
    ------
    ValueError
        The name of the glacier cannot be that of a file, or has a dot.
    """
    return checked_path(Path(folder) / f"{check_name(glacier, what='glacier')}.weights.h5")
