"""Scenes and fronts go in; pictures (PNG) come out."""

from calfin_cloud.figures.pictures import MAX_PICTURES, contact_sheet, scene_png

__all__ = ["MAX_PICTURES", "contact_sheet", "scene_png"]
