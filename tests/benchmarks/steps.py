"""Core-milliseconds of each step of a scene; the network gives made-up masks: `python tests/benchmarks/steps.py`.

Eight synthetic scenes of some 600 px, read from COGs on disk. `network step, host` is what the network's task does
beside the network.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from functools import partial

import numpy as np

from calfin_cloud import inference
from calfin_cloud.domains import Domain, box_grid, read_domains
from calfin_cloud.pipeline import MapSettings
from calfin_cloud.pipeline.scene import Group, look, map_looks
from calfin_cloud.sample import write_sample
from calfin_cloud.scenes import search_scenes
from calfin_cloud.schema import LEVELS
from calfin_cloud.storage import add_scenes, open_store

RESOLUTION_M = 20.0


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeat", type=int, default=5)
    call = options.parse_args()
    settings = MapSettings()
    with tempfile.TemporaryDirectory() as folder:
        write_sample(folder, scenes=9, seed=3)
        (drawn,) = read_domains(f"{folder}/domains.geojson")
        domain = Domain(drawn.name, box_grid(drawn.grid.boundingbox.bbox, drawn.crs, RESOLUTION_M))
        items = search_scenes(f"{folder}/catalog.json", domain, "1984/2030")
        open_store(f"{folder}/store", crs=domain.crs, made_by={})
        places = add_scenes(f"{folder}/store", domain, {item.id: np.datetime64("2020-01-01") for item in items})
        records = [item.to_dict(transform_hrefs=False) for item in items]
        group = Group(f"{folder}/store", domain, records, [places[item.id] for item in items])
        network = inference.networks.predict_pictures
        inference.networks.predict_pictures = made_up_masks
        spent: dict[str, float] = defaultdict(float)
        for n in range(call.repeat + 1):
            if n == 1:
                spent.clear()  # what is imported and compiled once
            run(group, settings, spent)
        inference.networks.predict_pictures = network
    print(f"{len(items)} scenes of {domain.shape[0]} x {domain.shape[1]} px; core-ms a scene")
    for name, seconds in spent.items():
        print(f"{name:24}{seconds / len(items) / call.repeat * 1000:8.1f}")
    print(f"{'all':24}{sum(spent.values()) / len(items) / call.repeat * 1000:8.1f}")


def run(group: Group, settings: MapSettings, spent: dict[str, float]) -> None:
    """Take a group through all steps, adding to the core-seconds of each."""

    def each(step, *groups):
        name = getattr(step, "func", step).__name__
        return [timed(name, step, *of_group) for of_group in zip(*groups, strict=True)]

    def timed(name, step, *arguments):
        began = time.process_time()
        result = step(*arguments)
        spent[name] += time.process_time() - began
        return result

    predict = partial(inference.predict_pictures, network=settings.network, settings=settings.inference)
    looks = each(partial(look, settings=settings), [group])
    map_looks(
        looks,
        settings,
        each=each,
        predict=lambda pictures: [timed("network step, host", predict, *of_group) for of_group in pictures],
    )


def made_up_masks(pictures: np.ndarray, **_: object) -> np.ndarray:
    """A front across the picture with ice below it, whatever the picture shows."""
    rows = np.arange(256)[:, None] - (128 + 20 * np.sin(np.arange(256) / 30))
    across = np.where(np.arange(256) > 200, 0, 1)  # a window of its own for the second pass
    front, ice = np.exp(-0.5 * (rows / 1.5) ** 2) * across, 1 / (1 + np.exp(-rows / 4))
    masks = np.rint(np.stack([front, ice, np.zeros_like(ice)], axis=-1) * LEVELS).astype(np.uint8)
    return np.broadcast_to(masks, (len(pictures), *masks.shape))


if __name__ == "__main__":
    main()
