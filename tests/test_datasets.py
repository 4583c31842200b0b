import datetime as dt
import shutil
from functools import partial

import cv2
import numpy as np
import pytest

from calfin_cloud.datasets import (
    ICE,
    OCEAN,
    UNKNOWN,
    VALIDATION_GLACIERS,
    Sample,
    coastline,
    read_caffe256,
    read_calfin_folder,
    read_mohajerani2019,
    read_samples,
    split_by_glacier,
)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def optical(tmp_path):
    """Two Landsat crops in the layout of mohajerani2019; the front is row 20 of columns 5 to 34."""
    folder = tmp_path / "mohajerani2019"
    label = np.full((60, 40, 3), 255, np.uint8)
    label[20, 5:35] = 0
    rows = ["glacier,image,label"]
    for i, glacier in enumerate(["Sverdrup", "Kangerlussuaq"]):
        write(folder / "train" / "images" / f"scene{i}_Subset.png", np.full((60, 40, 4), 90 + i, np.uint8))
        write(folder / "train" / "labels_1px" / f"scene{i}_Front.png", label)
        rows.append(f"{glacier},scene{i}_Subset.png,scene{i}_Front.png")
    (folder / "scenes.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def radar(tmp_path):
    """One SAR image in the layout of caffe256 with a row of each zone."""
    folder = tmp_path / "caffe256"
    zones = np.repeat(np.array([1, 2, 3, 4], np.uint8), 16)[:, None] * np.ones((1, 64), np.uint8)
    image = np.where(zones == 1, 0, 120).astype(np.uint8)
    image[0, 0] = 9  # shadow, not missing
    front = np.zeros((64, 64), np.uint8)
    front[48] = 255
    write(folder / "sar" / "Crane_1.png", image)
    write(folder / "zones" / "Crane_1_zones.png", zones)
    write(folder / "fronts" / "Crane_1_front.png", front)
    (folder / "index.csv").write_text("name,glacier\nCrane_1,Crane\n")
    return folder


@pytest.fixture
def pairs(tmp_path):
    """Two pairs as CALFIN stores them, one optical and one SAR; the lower half is ice."""
    folder = tmp_path / "calfin"
    mask = np.zeros((80, 70), np.uint8)
    mask[40:] = 255
    for name in ("Rink_LC08_L1TP_2015-07-03", "Getz-1_S1B_EW_2018-06-26"):
        write(folder / f"{name}.png", np.full((80, 70), 33, np.uint8))
        write(folder / f"{name}_mask.png", mask)
    return folder


def test_optical_front_is_the_black_line_with_ice_below_and_ocean_above(optical):
    sample = next(read_mohajerani2019(optical))
    assert (sample.name, sample.glacier, sample.sensor) == ("scene0", "Sverdrup", "optical")
    assert sample.image.dtype == np.float32
    assert (sample.image == 90).all()
    np.testing.assert_array_equal(np.argwhere(sample.front), [[20, column] for column in range(5, 35)])
    assert (sample.ice[21:, 5:35] == ICE).all()
    assert (sample.ice[:20, 5:35] == OCEAN).all()
    assert (sample.ice[20] == UNKNOWN).all()
    assert (sample.ice[:, [0, 4, 35, 39]] == UNKNOWN).all()


def test_radar_zones_become_ice_ocean_rock_and_unknown(radar):
    (sample,) = read_caffe256(radar)
    assert sample.sensor == "sar"
    np.testing.assert_array_equal(sample.ice[::16, 0], [UNKNOWN, ICE, ICE, OCEAN])
    np.testing.assert_array_equal(sample.rock[::16, 0], [UNKNOWN, 1, 0, 0])
    assert np.isnan(sample.image[1:16]).all()
    assert sample.image[0, 0] == 9
    assert np.isfinite(sample.image[16:]).all()
    assert sample.front[48].all()


def test_dates_satellites_and_hemispheres_are_read_where_the_sets_tell_them(optical, radar, pairs):
    (optical / "scenes.csv").write_text(
        "glacier,image,label,date,sensor\nSverdrup,scene0_Subset.png,scene0_Front.png,2014-08-01,LC08\n"
    )
    (radar / "index.csv").write_text(
        'name,glacier,glacier_name,date,sensor\nCrane_1,Crane,"Crane, Antarctic Peninsula",2002-11-09,ERS\n'
    )
    told = {s.name: (s.datetime, s.platform, s.is_southern) for s in read_samples(optical.parent)}
    day = partial(dt.datetime, tzinfo=dt.UTC)
    assert told == {
        "scene0": (day(2014, 8, 1), "LC08", False),
        "Crane_1": (day(2002, 11, 9), "ERS", True),
        "Rink_LC08_L1TP_2015-07-03": (day(2015, 7, 3), "LC08", False),
        "Getz-1_S1B_EW_2018-06-26": (day(2018, 6, 26), "S1B", True),
    }


def test_a_scene_of_an_unknown_day_and_satellite_says_so(optical):
    sample = next(read_mohajerani2019(optical))
    assert (sample.datetime, sample.platform, sample.is_southern) == (None, "", False)
    assert (sample.pixel_size_m, next(s for s in read_mohajerani2019(optical) if s.name == "scene1").pixel_size_m) == (
        62.0,
        67.0,
    )


def test_calfin_pairs_get_the_edge_of_the_mask_about_three_pixels_wide(pairs):
    samples = {sample.glacier: sample for sample in read_calfin_folder(pairs)}
    assert {glacier: sample.sensor for glacier, sample in samples.items()} == {"Rink": "optical", "Getz-1": "sar"}
    sample = samples["Rink"]
    assert (sample.ice[40:] == ICE).all()
    assert (sample.ice[:40] == OCEAN).all()
    assert np.flatnonzero(sample.front[:, 35]).tolist() in ([38, 39, 40], [39, 40, 41])


def test_of_calfins_layers_the_raw_one_is_read(pairs):
    path = pairs / "Rink_LC08_L1TP_2015-07-03.png"
    raw, hdr, shadows = 10, 20, 30
    cv2.imwrite(str(path), np.full((80, 70, 3), (shadows, hdr, raw), np.uint8))  # blue, green, red
    samples = {sample.glacier: sample for sample in read_calfin_folder(pairs)}
    assert (samples["Rink"].image == raw).all()


def test_an_empty_or_full_mask_has_no_coastline():
    assert not coastline(np.zeros((64, 64), bool)).any()
    assert not coastline(np.ones((64, 64), bool)).any()


def test_a_folder_of_sets_yields_all_of_them(optical, radar, pairs):
    assert len(list(read_samples(optical.parent))) == 5
    assert len(list(read_samples(radar))) == 1


def test_a_folder_without_any_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no image set"):
        list(read_samples(tmp_path))
    with pytest.raises(ValueError, match="is not a folder"):
        list(read_samples(tmp_path / "nowhere"))


@pytest.mark.parametrize("gone", ["train/images/scene1_Subset.png", "train/labels_1px/scene1_Front.png", "scenes.csv"])
def test_a_missing_optical_file_is_an_error_not_a_skip(optical, gone):
    (optical / gone).unlink()
    with pytest.raises(ValueError, match="missing"):
        list(read_mohajerani2019(optical))


@pytest.mark.parametrize("gone", ["sar/Crane_1.png", "zones/Crane_1_zones.png", "fronts/Crane_1_front.png"])
def test_a_missing_radar_file_is_an_error_not_a_skip(radar, gone):
    (radar / gone).unlink()
    with pytest.raises(ValueError, match="missing"):
        list(read_caffe256(radar))


@pytest.mark.parametrize("gone", ["Rink_LC08_L1TP_2015-07-03.png", "Rink_LC08_L1TP_2015-07-03_mask.png"])
def test_half_a_calfin_pair_is_an_error_not_a_skip(pairs, gone):
    (pairs / gone).unlink()
    with pytest.raises(ValueError, match=r"unpaired: .*Rink"):
        list(read_calfin_folder(pairs))


def test_a_broken_image_is_named(optical):
    (optical / "train" / "images" / "scene1_Subset.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(ValueError, match=r"scene1_Subset\.png is missing or no image"):
        list(read_mohajerani2019(optical))


def test_a_label_without_a_front_is_named(optical):
    write(optical / "train" / "labels_1px" / "scene0_Front.png", np.full((60, 40), 255, np.uint8))
    with pytest.raises(ValueError, match="holds no front"):
        list(read_mohajerani2019(optical))


def test_unknown_zones_are_refused(radar):
    write(radar / "zones" / "Crane_1_zones.png", np.full((64, 64), 200, np.uint8))
    with pytest.raises(ValueError, match=r"values \[200\]"):
        list(read_caffe256(radar))


def test_masks_of_another_size_than_the_image_are_refused():
    with pytest.raises(ValueError, match="must share one"):
        Sample("a", "b", "sar", np.zeros((4, 4), np.float32), np.zeros((4, 4), bool), np.zeros((4, 5), np.uint8))


def test_glaciers_left_out_are_never_trained_on(optical, radar):
    samples = list(read_samples(optical.parent))
    training, validation = split_by_glacier(samples)
    assert {sample.glacier for sample in training} == {"Sverdrup"}
    assert {sample.glacier for sample in validation} == VALIDATION_GLACIERS
    assert split_by_glacier(training)[1] == []
    with pytest.raises(ValueError, match=r"no sample shows \['Sverdrop'\]"):
        split_by_glacier(samples, leave_out=["Sverdrop"])


def test_the_real_sets_are_complete(shared):
    optical = list(read_mohajerani2019(shared / "data" / "mohajerani2019"))
    radar = list(read_caffe256(shared / "data" / "caffe256"))
    assert (len(optical), len(radar)) == (123, 482)
    training, validation = split_by_glacier([*optical, *radar])
    assert (len(training), len(validation)) == (100 + 413, 23 + 69)
    assert all(sample.datetime and sample.platform for sample in [*optical, *radar])
    assert {sample.glacier for sample in radar if sample.is_southern} == {"Crane", "DBE", "SI"}
    for sample in optical:  # ice is below the front and ocean above it
        rows = np.arange(sample.ice.shape[0])[:, None] * np.ones(sample.ice.shape)
        assert rows[sample.ice == ICE].mean() > rows[sample.front].mean() > rows[sample.ice == OCEAN].mean()


def test_a_set_may_be_copied_and_read_elsewhere(optical, tmp_path):
    copy = shutil.copytree(optical, tmp_path / "elsewhere" / "copy")
    assert [s.name for s in read_samples(copy)] == [s.name for s in read_samples(optical)]
