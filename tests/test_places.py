"""Stores whose domains know termini: mapped, traced anew, and told by the verbs of the command line."""

import json
from functools import partial

import pytest
from painted import copy_sample
from shapely.geometry import box

from calfin_cloud import storage
from calfin_cloud.cli import main
from calfin_cloud.domains import read_domains, write_domains
from calfin_cloud.pipeline import map_fronts, retrace_fronts
from calfin_cloud.scenes import search_scenes
from calfin_cloud.surroundings import with_termini

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("painted")
    copy_sample(folder, 3, 3)
    return folder


@pytest.fixture(scope="module")
def store(painted):
    domains = read_domains(painted / "domains.geojson")
    find = partial(search_scenes, painted / "catalog.json", period="1984/2030")
    map_fronts(domains, find, str(painted / "store"))
    return str(painted / "store")


def test_a_store_s_fronts_guide_its_own_retracing(painted, store):
    before = storage.read_fronts(store)
    assert set(before["traced_by"]) <= {"free", ""}
    known = with_termini(read_domains(painted / "domains.geojson"), before)
    retrace_fronts(store, known)
    after = storage.read_fronts(store)
    found = after[after["state"] == "front"]
    assert set(found["key"]) == set(before[before["state"] == "front"]["key"])
    assert set(found["traced_by"]) == {"guided"}
    assert (found["guide_distance_m"] < 1000).all()
    assert (found["least_confidence"] <= found["confidence"]).all()
    assert storage.read_store_domains(store)[0].termini == known[0].termini


def test_fjords_takes_termini_and_maps_into_the_domain_file(painted, store, tmp_path, capsys):
    (domain,) = read_domains(painted / "domains.geojson")
    ice = tmp_path / "ice.geojson"
    shape = {"type": "Feature", "properties": {}, "geometry": box(*domain.area_lonlat.bounds).__geo_interface__}
    ice.write_text(json.dumps({"type": "FeatureCollection", "features": [shape]}))
    out = tmp_path / "known.geojson"
    call = ["fjords", "--domains", str(painted / "domains.geojson"), "--termini", store, "--ice-mask", str(ice)]
    assert main([*call, "--out", str(out)]) == 0
    (known,) = read_domains(out)
    assert len(known.termini) == int(storage.read_fronts(store)["geometry"].notna().sum())
    assert known.ice is not None
    assert f": no fjord boundary, map of ice, {len(known.termini)} known termini" in capsys.readouterr().out
    assert read_domains(write_domains([known], tmp_path / "again.geojson")) == [known]
