"""Time of line extraction and tracing, as ratios to the dense definition of the release where it fits into memory.

`pytest tests/benchmarks --benchmark-only --benchmark-group-by=param:side,param:kind`
"""

import multiprocessing
import resource

import numpy as np
import pytest
from dense_line import dense_line
from scipy.ndimage import distance_transform_edt, gaussian_filter

from calfin_cloud.domains import box_grid
from calfin_cloud.fronts import draw_line, extract_line, georeference, trace_fronts
from calfin_cloud.polygons import close_polygons

SIDES = [256, 512, 1024, 2048]
KINDS = ["clean", "noisy"]


def masks(side, kind):
    """Front and ice mask of a wavy coast; the noisy kind has as many skeleton pixels as in calfin-method 11."""
    columns = np.arange(side)
    rows = side * (0.5 + 0.1 * np.sin(7 * columns / side))
    line = draw_line(np.column_stack([np.rint(rows), columns]).astype(int), (side, side))
    front = np.exp(-0.5 * (distance_transform_edt(~line) / 1.5) ** 2)
    ice = gaussian_filter((columns[:, None] > rows).astype(float), 3)
    if kind == "noisy":
        noise = gaussian_filter(np.random.default_rng(0).standard_normal((side, side)), 2.2)
        front = np.maximum(front, 1 / (1 + np.exp(-4 * (noise / noise.std() - 1.8))))
    return front, ice


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", SIDES)
def test_line_extraction(benchmark, side, kind):
    front, _ = masks(side, kind)
    line = benchmark(extract_line, front)
    assert len(line) > side / 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", SIDES)
def test_tracing_of_a_scene(benchmark, side, kind):
    front, ice = masks(side, kind)
    trace = benchmark(trace_fronts, front, ice)
    assert len(trace.fronts) >= 1


# Noise at 2048 px has 50,000 skeleton pixels: their distances alone would take 20 GB.
DENSE = [(side, kind) for side in SIDES for kind in KINDS if (side, kind) != (2048, "noisy")]


@pytest.mark.parametrize(("side", "kind"), DENSE)
def test_line_extraction_by_the_dense_definition(benchmark, side, kind):
    front, _ = masks(side, kind)
    line = benchmark.pedantic(dense_line, (front,), rounds=1 if side > 512 else 2)
    assert len(line) > side / 2
    if kind == "clean":
        np.testing.assert_array_equal(line, extract_line(front))


@pytest.mark.parametrize("side", SIDES)
def test_closing_of_polygons(benchmark, side):
    """Beside the distance transform of the same scene: `test_distance_transform`."""
    front, ice = masks(side, "clean")
    (found,) = trace_fronts(front, ice).fronts
    grid = box_grid((0, 0, side * 30, side * 30), 3413, 30.0)
    made = benchmark(close_polygons, [georeference(found.line, grid.transform)], ice, grid)
    assert made.ocean is not None


@pytest.mark.parametrize("side", SIDES)
def test_distance_transform(benchmark, side):
    _, ice = masks(side, "clean")
    assert benchmark(distance_transform_edt, ice > 0.5).max() > 0


def megabytes_for_noise(answer):
    """Additional MB of tracing a noisy prediction of 1024 px."""
    front, ice = masks(1024, "noisy")
    trace_fronts(*masks(256, "clean"))  # imports and first calls are not what is measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trace_fronts(front, ice)
    answer.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def test_noisy_prediction_of_1024_px_is_traced_in_bounded_memory():
    mine, other = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=megabytes_for_noise, args=(other,))
    process.start()
    megabytes = mine.recv()
    process.join()
    assert megabytes < 200
