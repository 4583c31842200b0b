"""Fjord boundaries from a painted store: derived, drawn, or left out, from Python and from the command line."""

import json
import logging
import shutil
from functools import partial

import geopandas as gpd
import numpy as np
import pytest
from shapely.geometry import LineString, box

from calfin_cloud.cli import main
from calfin_cloud.domains import Domain, box_grid, read_domains, write_domains
from calfin_cloud.fronts import FEWEST_DATES
from calfin_cloud.pipeline import map_fronts
from calfin_cloud.pipeline.settings import VARIANTS
from calfin_cloud.results import apply_verdicts, derive_fjords
from calfin_cloud.sample import write_sample
from calfin_cloud.scenes import search_scenes
from calfin_cloud.storage import Tables, read_batches, read_fronts, read_items, read_tables, write_batch

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
N_SCENES = 7


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """Folder of a painted glacier with seven scenes."""
    folder = tmp_path_factory.mktemp("painted")
    write_sample(folder, scenes=N_SCENES, seed=3)
    return folder


@pytest.fixture(scope="module")
def domain(painted):
    """Domain of the painted glacier; nobody has drawn its fjord."""
    (domain,) = read_domains(painted / "domains.geojson")
    return domain


@pytest.fixture(scope="module")
def store(painted, domain, tmp_path_factory):
    """Store of the painted scenes."""
    store = tmp_path_factory.mktemp("mapped") / "store"
    find = partial(search_scenes, painted / "catalog.json", period="1984/2030")
    counts = map_fronts([domain], find, str(store), settings=VARIANTS["once"])
    assert counts["front"] >= FEWEST_DATES
    return store


@pytest.fixture(scope="module")
def truth(painted, domain):
    """True fronts inside the domain."""
    return gpd.read_parquet(painted / "truth.parquet").geometry.intersection(domain.polygon)


def beyond_the_ends(front, metres):
    """Points on rock: so far beyond either end of a front, on the line through both ends."""
    ends = np.array([front.coords[0], front.coords[-1]])
    along = (ends[1] - ends[0]) / np.hypot(*(ends[1] - ends[0]))
    return gpd.points_from_xy(*np.array([ends[0] - metres * along, ends[1] + metres * along]).T)


def test_the_derived_fjord_holds_the_true_fronts_and_leaves_out_the_rock_beyond_their_ends(store, domain, truth):
    (made,) = derive_fjords(str(store), [domain])
    assert made.fjord_source == "dates"
    seen = truth[[bool(i) for i in truth.length > 0]]
    inside = [line.intersection(made.fjord_boundary).length / line.length for line in seen]
    assert np.mean(inside) > 0.95
    rock = [point for line in seen for point in beyond_the_ends(line, 1500.0)]
    assert np.mean([made.fjord_boundary.contains(point) for point in rock]) < 0.1


def test_only_the_boundary_of_a_domain_changes(store, domain):
    (made,) = derive_fjords(str(store), [domain])
    assert (made.name, made.grid, made.glacier_id, made.centerline) == (
        domain.name,
        domain.grid,
        domain.glacier_id,
        domain.centerline,
    )
    assert made.fjord_mask.shape == domain.shape


def test_a_fjord_drawn_by_hand_stays(store, domain):
    drawn = Domain(domain.name, domain.grid, fjord_boundary=domain.polygon.buffer(-3000))
    assert derive_fjords(str(store), [drawn]) == [drawn]


def test_a_domain_without_scenes_stays_alone_and_the_log_says_what_it_lacks(store, domain, caplog):
    other = Domain("Elsewhere", box_grid((0, -2_000_000, 6000, -1_994_000), 3413, 30.0))
    with caplog.at_level(logging.WARNING):
        left, made = derive_fjords(str(store), [other, domain])
    assert left == other
    assert made.fjord_source == "dates"
    assert f"Elsewhere: 0 scenes with a front, {FEWEST_DATES} are needed" in caplog.text


def test_fronts_that_a_person_rejected_tell_nothing_of_a_fjord(store, domain, tmp_path, caplog):
    own = str(shutil.copytree(store, tmp_path / "own"))
    fronts = read_fronts(own).query("state == 'front'")
    rest = set(sorted(fronts["key"].unique())[: FEWEST_DATES - 1])
    wrong = fronts[~fronts["key"].isin(rest)]
    said = {"verdict": "reject", "author": "M", "time": "2024-05-01T12:00:00Z"}
    apply_verdicts(own, [said | {"key": row.key, "front": int(row.front)} for row in wrong.itertuples()])
    with caplog.at_level(logging.WARNING):
        assert derive_fjords(own, [domain]) == [domain]
    assert f"{FEWEST_DATES - 1} scenes with a front, {FEWEST_DATES} are needed" in caplog.text


@pytest.fixture
def scanty(store, tmp_path):
    """Store with one front fewer than dates are needed."""
    shutil.copytree(store, tmp_path / "scanty")
    with_front = sorted(read_fronts(str(store)).query("state == 'front'")["key"].unique())[: FEWEST_DATES - 1]
    for stored in read_batches(str(store)):
        tables = read_tables(str(store), stored)
        fewer = [table[table["key"].isin(with_front)] for table in tables]
        (tmp_path / "scanty/fronts" / stored.name).unlink()
        items = read_items(str(store), stored)
        write_batch(str(tmp_path / "scanty"), Tables(*fewer), items, recipe=stored.recipe)
    return tmp_path / "scanty"


def test_too_few_dates_leave_a_domain_alone_unless_a_map_shows_the_ice(scanty, domain, caplog):
    with caplog.at_level(logging.WARNING):
        assert derive_fjords(str(scanty), [domain]) == [domain]
    assert f"{FEWEST_DATES - 1} scenes with a front, {FEWEST_DATES} are needed" in caplog.text
    ice = gpd.GeoDataFrame(geometry=[domain.polygon], crs=domain.crs)
    (made,) = derive_fjords(str(scanty), [domain], ice_mask=ice)
    assert made.fjord_source == "ice_mask"


@pytest.mark.parametrize("crs", [3413, 4326])
def test_ice_on_a_map_belongs_to_the_fjord_in_any_crs(store, domain, truth, crs):
    left, bottom, right, top = domain.polygon.bounds
    ice = box(left, bottom, (left + right) / 2, top)
    mask = gpd.GeoDataFrame(geometry=[ice.segmentize(100)], crs=domain.crs).to_crs(crs)
    (made,), (dates,) = derive_fjords(str(store), [domain], ice_mask=mask), derive_fjords(str(store), [domain])
    assert made.fjord_boundary.intersection(ice).area > 0.99 * ice.area
    assert made.fjord_boundary.difference(ice.buffer(60)).difference(dates.fjord_boundary.buffer(60)).area == 0


def test_an_ice_mask_that_lies_elsewhere_adds_nothing(store, domain):
    elsewhere = gpd.GeoDataFrame(geometry=[box(0, 0, 1000, 1000)], crs=3413)
    (made,), (dates,) = derive_fjords(str(store), [domain], ice_mask=elsewhere), derive_fjords(str(store), [domain])
    assert np.array_equal(made.fjord_mask, dates.fjord_mask)
    assert (made.fjord_source, dates.fjord_source) == ("ice_mask", "dates")


def test_the_command_writes_a_domain_file_and_says_where_each_boundary_is_from(painted, store, tmp_path, capsys):
    out = tmp_path / "out.geojson"
    assert (
        main(["fjords", "--domains", str(painted / "domains.geojson"), "--store", str(store), "--out", str(out)]) == 0
    )
    assert capsys.readouterr().out.splitlines() == ["Synthetic-Glacier: fjord boundary from scenes"]
    assert read_domains(out) == derive_fjords(str(store), read_domains(painted / "domains.geojson"))


def test_the_command_prefers_drawn_polygons_and_derives_the_others(store, domain, tmp_path, capsys):
    x, y = domain.polygon.centroid.coords[0]
    other = Domain("Other", box_grid((x - 3000, y + 50_000, x + 3000, y + 56_000), 3413, 30.0))
    lonely = Domain("Lonely", box_grid((x - 3000, y + 90_000, x + 3000, y + 96_000), 3413, 30.0))
    write_domains([domain, other, lonely], tmp_path / "domains.geojson")
    drawn = gpd.GeoDataFrame(geometry=[LineString([(x, y + 53_000), (x, y + 54_000)]).buffer(500)], crs=3413)
    drawn.to_file(tmp_path / "drawn.gpkg")
    call = ["fjords", "--domains", str(tmp_path / "domains.geojson"), "--polygons", str(tmp_path / "drawn.gpkg")]
    assert main([*call, "--store", str(store), "--out", str(tmp_path / "out.geojson")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Synthetic-Glacier: fjord boundary from scenes",
        "Other: drawn fjord boundary",
        "Lonely: no fjord boundary",
    ]
    written = json.loads((tmp_path / "out.geojson").read_text())["features"]
    assert [f["properties"]["fjord_source"] for f in written] == ["dates", "fjord_boundary", None]


def test_the_command_takes_an_ice_mask(painted, store, domain, tmp_path, capsys):
    gpd.GeoDataFrame(geometry=[domain.polygon], crs=domain.crs).to_file(tmp_path / "ice.gpkg")
    call = ["fjords", "--domains", str(painted / "domains.geojson"), "--store", str(store)]
    assert main([*call, "--ice-mask", str(tmp_path / "ice.gpkg"), "--out", str(tmp_path / "out.geojson")]) == 0
    assert capsys.readouterr().out.splitlines() == ["Synthetic-Glacier: fjord boundary from the ice mask, map of ice"]
    (made,) = read_domains(tmp_path / "out.geojson")
    assert made.fjord_mask.all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", ["polygons", "ice-mask", "ocean", "termini"])
def test_a_file_that_adds_nothing_to_a_domain_is_named(painted, tmp_path, capsys, what):
    away = LineString([(0, 0), (9000, 0)])
    shapes = [away, LineString(), None] if what == "termini" else [away.buffer(500)]
    table = gpd.GeoDataFrame({"glacier_id": ["synthetic"] * len(shapes)}, geometry=shapes, crs=3413)
    table.to_parquet(tmp_path / "away.parquet")
    call = ["fjords", "--domains", str(painted / "domains.geojson"), "--out", str(tmp_path / "out.geojson")]
    assert main([*call, f"--{what}", str(tmp_path / "away.parquet")]) == 0
    assert "away.parquet adds nothing to a domain" in capsys.readouterr().err


def test_a_folder_that_is_no_store_is_told_in_one_line(painted, tmp_path, capsys):
    call = ["fjords", "--domains", str(painted / "domains.geojson"), "--store", str(tmp_path)]
    assert main([*call, "--out", str(tmp_path / "out.geojson")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out.geojson").exists()
