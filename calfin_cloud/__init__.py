"""Glacier calving fronts from satellite scenes: the public names. Each is loaded when it is first used."""

from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "domains": ["Domain", "box_grid", "domains_from_termini", "read_domains", "write_domains"],
        "evaluation": ["compare_fronts", "score", "write_scores"],
        "glaciers": ["domain_from_box", "domain_from_glacier", "domain_from_point", "find_glacier"],
        "products": ["read_product"],
        "results": [
            "compare_products",
            "explore",
            "export_store",
            "measure_series",
            "open_store",
            "paper_figures",
            "store_product",
            "summarise_pairs",
            "usable_fronts",
            "write_composite",
            "write_figures",
            "write_report",
            "write_store_report",
        ],
        "fronts": ["Front", "Trace", "TraceSettings", "trace_fronts"],
        "imagery": ["stack_scenes"],
        "inference": ["predict_scene", "prepare_scene"],
        "network": ["InferenceSettings", "calfin_network", "load_network"],
        "pipeline": [
            "MapSettings",
            "map_fronts",
            "retrace_fronts",
            "summarise_scenes",
            "trace_image",
        ],
        "polygons": ["close_polygons"],
        "sensors": ["Quality", "Sensor", "register_sensor"],
        "sample": ["write_real_sample", "write_sample"],
        "scenes": ["items_from_images", "join_granules", "search_scenes", "stream_scenes"],
        "storage": ["read_features", "read_fronts", "read_masks", "read_polygons", "read_rejected"],
        "training": ["TrainingSettings", "fit"],
    },
)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the public names
    if name == "__version__":  # looked up when it is asked for, in what pip has installed
        from importlib.metadata import version  # noqa: PLC0415

        return version("calfin-cloud")
    return _load(name)
