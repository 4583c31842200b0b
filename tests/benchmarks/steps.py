"""Core-milliseconds of each step of a scene; the network gives made-up masks: `python tests/benchmarks/steps.py`.

Eight synthetic scenes of some 600 px, read from COGs on disk, on a bare domain and on one with all that can be known of
it: termini of 30 years, ice, ocean, a fjord boundary. `network step, host` is what the network's task does beside the
network.
"""

import argparse
import pickle
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from datetime import date
from functools import partial

import numpy as np
import shapely
from shapely.geometry import LineString

from calfin_cloud import inference, opinions
from calfin_cloud.domains import Domain, box_grid, read_domains
from calfin_cloud.pipeline import MapSettings
from calfin_cloud.pipeline.scene import Group, look, map_looks
from calfin_cloud.sample import write_sample
from calfin_cloud.scenes import search_scenes
from calfin_cloud.schema import LEVELS
from calfin_cloud.storage import add_scenes, open_store
from calfin_cloud.termini import Terminus

RESOLUTION_M = 20.0


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeat", type=int, default=5)
    call = options.parse_args()
    network = opinions.networks.predict_pictures
    opinions.networks.predict_pictures = made_up_masks
    with tempfile.TemporaryDirectory() as folder:
        write_sample(folder, scenes=9, seed=3)
        (drawn,) = read_domains(f"{folder}/domains.geojson")
        bare = Domain(drawn.name, box_grid(drawn.grid.boundingbox.bbox, drawn.crs, RESOLUTION_M))
        open_store(f"{folder}/store", crs=bare.crs, made_by={})
        measured = [measure(folder, domain, call.repeat) for domain in (bare, well_known(bare))]
    opinions.networks.predict_pictures = network
    print(f"{'core-ms a scene':24}{'bare':>8}{'known':>8}   {bare.shape[0]} x {bare.shape[1]} px")
    for name in [*measured[0], "all"]:
        print(f"{name:24}{''.join(f'{spent.get(name, sum(spent.values())) * 1000:8.1f}' for spent in measured)}")


def measure(folder: str, domain: Domain, repeat: int) -> dict[str, float]:
    """Core-seconds of each step for a scene."""
    items = search_scenes(f"{folder}/catalog.json", domain, "1984/2030")
    places = add_scenes(f"{folder}/store", domain, {item.id: np.datetime64("2020-01-01") for item in items})
    records = [item.to_dict(transform_hrefs=False) for item in items]
    spent: dict[str, float] = defaultdict(float)
    for n in range(repeat + 1):
        if n == 1:
            spent.clear()  # what is imported and compiled once
        # A group comes to its worker as a copy.
        sent = Group(f"{folder}/store", domain, records, [places[item.id] for item in items])
        run(pickle.loads(pickle.dumps(sent)), MapSettings(), spent)
    return {name: seconds / len(items) / repeat for name, seconds in spent.items()}


def well_known(domain: Domain) -> Domain:
    """A domain of whose place all is known; its termini lie where the made-up masks have their front."""
    left, bottom, right, top = domain.polygon.bounds
    rng, middle = np.random.default_rng(0), (bottom + top) / 2
    x = np.linspace(left + 0.1 * (right - left), right - 0.3 * (right - left), 80)
    termini = tuple(
        Terminus(
            LineString(np.column_stack([x, middle + rng.normal() * 400 + 200 * np.sin(x / 700)])),
            date(1990 + n // 2, 1 + 6 * (n % 2), 1),
        )
        for n in range(60)
    )
    ice, ocean = shapely.box(left, bottom, right, middle), shapely.box(left, middle, right, top)
    fjord = shapely.segmentize(domain.polygon, 20 * RESOLUTION_M).buffer(-15 * RESOLUTION_M)
    return replace(domain, termini=termini, ice=ice, ocean=ocean, fjord_boundary=fjord)


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
