"""The main job: domains and a search become masks, fronts and polygons in a store; resumable at any time."""

from calfin_cloud.pipeline.images import trace_image, write_image_fronts
from calfin_cloud.pipeline.mapping import check_wanted, map_fronts
from calfin_cloud.pipeline.settings import VARIANTS, MapSettings, made_by, settings_from
from calfin_cloud.pipeline.tables import summarise_scenes
from calfin_cloud.pipeline.updating import recompute_changed, retrace_fronts, retry_failed

__all__ = [
    "VARIANTS",
    "MapSettings",
    "check_wanted",
    "made_by",
    "map_fronts",
    "recompute_changed",
    "retrace_fronts",
    "retry_failed",
    "settings_from",
    "summarise_scenes",
    "trace_image",
    "write_image_fronts",
]
