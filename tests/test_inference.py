import keras
import numpy as np
import pytest
import xarray as xr

from calfin_cloud.domains import Domain, box_grid
from calfin_cloud.fronts import TraceSettings, trace_fronts
from calfin_cloud.inference import INPUT_SIZE, predict_masks, predict_scene, prepare_scene, prepare_scenes


@pytest.fixture(scope="module")
def brightness_network(tmp_path_factory) -> str:
    """A network of one 1x1 convolution: the brighter a pixel, the surer it is a front; ice is the lower right half."""
    inputs = keras.Input((224, 224, 3))
    layer = keras.layers.Conv2D(2, 1, activation="sigmoid")
    model = keras.Model(inputs, layer(inputs))
    kernel = np.zeros((1, 1, 3, 2), "float32")
    kernel[0, 0, 0] = [20, 4]  # the raw channel alone
    layer.set_weights([kernel, np.array([-8, 2], "float32")])
    path = tmp_path_factory.mktemp("network") / "brightness.keras"
    model.save(path)
    return str(path)


def scene_with_a_bright_line(side=1000, row=600, width=9) -> np.ndarray:
    """Scene (band, y, x): grey ice below a bright line, dark sea above it."""
    signal = np.full((side, side), 0.1, "float32")
    signal[row:] = 0.3
    signal[row - width // 2 : row + width // 2 + 1, 100:900] = 1.0
    return np.stack([signal, np.zeros_like(signal)])


def test_masks_have_the_shape_of_the_scene_whatever_its_size(brightness_network):
    for shape in ((64, 64), (300, 201), (97, 412)):
        rng = np.random.default_rng(0)
        channels = prepare_scene(rng.uniform(0, 1, (2, *shape)).astype("float32"), 30.0)
        assert channels.shape == (*shape, 4)
        masks = predict_scene(channels, network=brightness_network)
        assert masks.shape == (2, *shape)
        assert ((masks >= 0) & (masks <= 1)).all()


@pytest.mark.parametrize("row", [200, 600, 777])
def test_a_front_keeps_its_place_to_less_than_half_a_network_pixel(brightness_network, row):
    channels = prepare_scene(scene_with_a_bright_line(row=row), 30.0)
    front = predict_scene(channels, network=brightness_network)[0]
    ice = np.repeat(np.where(np.arange(1000) > row, 1.0, 0.0)[:, None], 1000, axis=1)
    (line,) = (f.line for f in trace_fronts(front, ice).fronts)
    middle = line[(line[:, 0] > 300) & (line[:, 0] < 700)]
    assert len(middle) > 300
    assert abs(middle[:, 1].mean() - row) < 0.5 * 1000 / INPUT_SIZE


def test_missing_data_is_missing_in_the_masks_but_narrow_stripes_are_looked_across(brightness_network):
    scene = scene_with_a_bright_line()
    scene[:, :, :200] = np.nan  # a collar of 6 km
    scene[:, 10::33] = np.nan
    scene[:, 11::33] = np.nan
    masks = predict_scene(prepare_scene(scene, 30.0), network=brightness_network)
    assert np.isnan(masks[:, :, :190]).all()
    assert np.isfinite(masks[:, :, 210:]).all()


def test_lazy_masks_equal_eager_ones_and_nothing_is_computed_before(brightness_network):
    domain = Domain("a", box_grid((0, 0, 3000, 2400), 3413, 30.0))
    rng = np.random.default_rng(1)
    values = rng.uniform(0, 1, (3, 2, 80, 100)).astype("float32")
    x, y = (np.arange(n) * 30.0 for n in (100, 80))
    named = {"scene_id": ("time", list("abc")), "platform": ("time", ["p"] * 3), "collection": ("time", ["c"] * 3)}
    scenes = xr.DataArray(
        values, dims=("time", "band", "y", "x"), coords={"band": ["signal", "cloud"], "x": x, "y": y, **named}
    ).chunk({"time": 1})
    masks = predict_masks(prepare_scenes(scenes), domain, network=brightness_network, trace=TraceSettings())
    assert masks.chunks[0] == (1, 1, 1)
    eager = [predict_scene(prepare_scene(v, 30.0), network=brightness_network) for v in values]
    np.testing.assert_array_equal(masks.compute(scheduler="synchronous"), np.stack(eager))
    assert masks["scene_id"].values.tolist() == list("abc")
