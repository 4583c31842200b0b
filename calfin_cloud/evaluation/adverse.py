"""A number of scenes goes in; labelled synthetic scenes of every adverse case come out, to be scored as others are."""

from __future__ import annotations

from collections.abc import Iterator

from calfin_cloud.datasets import Sample, Sensor, synthetic_sample
from calfin_cloud.sample import ADVERSE_CASES, paint_adverse


def adverse_samples(n: int) -> Iterator[Sample]:
    """Paint the first `n` scenes of each case of `sample.ADVERSE_CASES`; the case stands for the glacier.

    Examples
    --------
    >>> [sample.glacier for sample in adverse_samples(1)][:3]
    ['shadow', 'unclear', 'tongue']
    """
    for case in ADVERSE_CASES:
        sensor: Sensor = "sar" if case.endswith("sar") else "optical"
        for number in range(n):
            yield synthetic_sample(f"{case}-{number}", case, sensor, paint_adverse(case, number))
