"""Fronts that retreat along a box, the polygons that they close, and a mesh of a model, for tests of exports."""

import geopandas as gpd
import h5netcdf
import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox
from shapely.geometry import LineString, MultiPolygon, box

X, Y = -200_000.0, -2_200_000.0
GRID = GeoBox.from_bbox((X, Y, X + 1000, Y + 1000), crs="EPSG:3413", resolution=10)


def fronts_of(x=500.0, dates=("2004-06-19", "2004-06-29", "2004-08-01")):
    rows = [
        {
            "key": f"Dom/{i}",
            "domain": "Dom",
            "scene_id": f"LE07_L2SP_016008_{date}",
            "glacier_id": "7",
            "platform": "landsat-7",
            "datetime": pd.Timestamp(date, tz="UTC"),
            "state": "front",
            "quality_flag": 13,
            "geometry": LineString([(X + x + 100 * i, Y), (X + x + 100 * i, Y + 1000)]),
        }
        for i, date in enumerate(dates)
    ]
    missing = rows[0] | {"key": "Dom/none", "state": "no_front", "geometry": None}
    return gpd.GeoDataFrame([*rows, missing], crs=3413)


def polygons_of(fronts, width=100.0):
    rows = []
    for front in fronts[fronts["state"] == "front"].itertuples():
        x = front.geometry.coords[0][0]
        shapes = {"ocean": box(x, Y, X + 1000, Y + 1000), "ice": box(x - width, Y, x, Y + 1000)}
        for kind, shape in shapes.items():
            same = {"key": front.key, "domain": "Dom", "scene_id": front.scene_id, "datetime": front.datetime}
            more = {"kind": kind, "glacier_id": "7", "platform": front.platform, "geometry": MultiPolygon([shape])}
            rows.append(same | more)
    return gpd.GeoDataFrame(rows, crs=3413)


def issm_model(path, x, y):
    """A model as ISSM's export_netCDF writes it: a group a class, dimensions at the top."""
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"VertNum": len(x), "EltNum": 1, "VertPerElt": 3, "Time": 1}
        mesh = file.create_group("mesh")
        mesh.attrs["classtype"] = "mesh2d.mesh2d"
        mesh.create_variable("x", ("VertNum",), data=np.asarray(x, float))
        mesh.create_variable("y", ("VertNum",), data=np.asarray(y, float))
        mesh.create_variable("elements", ("EltNum", "VertPerElt"), data=np.array([[1, 2, 3]]))
        file.create_group("mask").create_variable("ice_levelset", ("VertNum",), data=np.ones(len(x)))
    return path
