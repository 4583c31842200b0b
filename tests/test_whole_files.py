"""What is written for people is whole, or as it was before."""

import errno
import os
import resource
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from matplotlib.figure import Figure
from shapely.geometry import box
from storing import DOMAIN

import calfin_cloud as cc
from calfin_cloud import whole_files
from calfin_cloud.figures.paper import save_figure
from calfin_cloud.results.training_scenes import write_domain_files
from calfin_cloud.whole_files import whole_file, write_whole_file


@contextmanager
def no_file_may_grow():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_domain_file_that_cannot_be_replaced_is_as_it_was(tmp_path):
    path = cc.write_domains([DOMAIN], tmp_path / "domains.geojson")
    before = path.read_bytes()
    with no_file_may_grow(), pytest.raises(OSError, match=r"domains\.geojson"):
        cc.write_domains([DOMAIN], path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["domains.geojson"]


def test_an_interrupted_file_is_as_it_was_and_one_that_ended_well_keeps_link_and_mode(tmp_path):
    file, link = tmp_path / "a.txt", tmp_path / "link.txt"
    file.write_text("before")
    file.chmod(0o640)
    link.symlink_to(file)
    with pytest.raises(ZeroDivisionError), whole_file(link) as unfinished:
        unfinished.write_text("ha" * (1 // unfinished.write_text("")))
    assert file.read_text() == "before"
    with whole_file(link) as unfinished:
        unfinished.write_text("after")
    assert (file.read_text(), file.stat().st_mode & 0o777, link.is_symlink()) == ("after", 0o640, True)
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "link.txt"]


def test_figures_that_cannot_be_replaced_are_as_they_were(tmp_path):
    figure = Figure()
    figure.add_subplot()
    before = {path: path.read_bytes() for path in save_figure(figure, tmp_path, "coverage")}
    assert len(before) == 2
    with no_file_may_grow(), pytest.raises(OSError, match=r"coverage\.pdf"):
        save_figure(figure, tmp_path, "coverage")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_pictures_that_gdal_closes_without_a_word_of_what_no_longer_fitted_are_as_they_were(tmp_path):
    domain = replace(DOMAIN, fjord_boundary=box(300, 300, 2000, 2000))
    assert len(write_domain_files(domain, tmp_path)) == 3
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with no_file_may_grow(), pytest.raises(OSError, match=r"Store\.shp'$"):
        write_domain_files(domain, tmp_path)
    for driver, name in (("PNG", "Store_fjord_boundaries.png"), ("GTiff", "Store_fjord_boundaries.tif")):
        about = {"driver": driver, "width": 100, "height": 80, "count": 1, "dtype": "uint8"}
        path = tmp_path / "fjord_boundaries" / name
        with (
            no_file_may_grow(),
            pytest.raises(OSError, match=name),
            whole_file(path) as unfinished,
            rasterio.open(unfinished, "w", transform=domain.grid.transform, **about) as file,
        ):
            file.write(np.ones((80, 100), np.uint8), 1)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_long_name_leaves_room_for_the_folder_beside_it(tmp_path):
    write_whole_file(tmp_path / f"{'g' * 251}.png", b"a")
    assert (tmp_path / f"{'g' * 251}.png").read_bytes() == b"a"


def test_any_error_on_a_full_disk_is_told_as_that(tmp_path, monkeypatch):
    monkeypatch.setattr(whole_files, "FULL_BYTES", 2**80)
    with pytest.raises(OSError, match="table") as error, whole_file(tmp_path / "table.gpkg"):
        raise RuntimeError("sqlite3_exec failed")
    assert error.value.errno == errno.ENOSPC
