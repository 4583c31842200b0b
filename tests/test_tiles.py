import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calfin_cloud.tiles import blend_tiles, cut_tiles


def painted(height, width, channels=2, seed=0):
    return np.random.default_rng(seed).random((height, width, channels), dtype=np.float32)


def test_256_px_give_the_nine_tiles_of_calfin_row_by_row():
    tiles, offsets = cut_tiles(painted(256, 256, 3))
    assert tiles.shape == (9, 224, 224, 3)
    assert offsets.tolist() == [[r, c] for r in (0, 16, 32) for c in (0, 16, 32)]


@settings(max_examples=30)
@given(
    height=st.integers(64, 200),
    width=st.integers(64, 200),
    size=st.integers(16, 128),
    data=st.data(),
)
def test_cutting_and_blending_is_the_identity(height, width, size, data):
    stride = data.draw(st.integers(max(1, size // 4), size))
    image = painted(height, width)
    tiles, offsets = cut_tiles(image, size=size, stride=stride)
    np.testing.assert_allclose(blend_tiles(tiles, offsets, (height, width)), image, atol=1e-6)


def test_an_image_smaller_than_a_tile_is_mirrored_not_darkened():
    image = painted(100, 300)
    tiles, _ = cut_tiles(image)
    np.testing.assert_array_equal(tiles[0, 100:200], tiles[0, 99::-1])


def test_overlapping_tiles_are_averaged_by_their_count():
    tiles = np.stack([np.full((2, 2, 1), value, np.float32) for value in (1, 4)])
    blended = blend_tiles(tiles, np.array([[0, 0], [0, 1]]), (2, 3))
    np.testing.assert_array_equal(blended[..., 0], [[1, 2.5, 4], [1, 2.5, 4]])


def test_a_pixel_without_a_tile_is_refused():
    tiles, offsets = cut_tiles(painted(70, 70), size=64)
    with pytest.raises(ValueError, match="lie in no tile"):
        blend_tiles(tiles, offsets, (80, 70))


@pytest.mark.parametrize("shape", [(63, 200, 3), (200, 63, 3), (100, 100)])
def test_images_too_small_or_flat_are_refused(shape):
    with pytest.raises(ValueError, match="at least 64 px"):
        cut_tiles(np.zeros(shape, np.float32))


def test_a_stride_that_leaves_gaps_is_refused():
    with pytest.raises(ValueError, match="leave gaps"):
        cut_tiles(painted(100, 100), size=32, stride=33)


def test_tiles_and_offsets_must_match():
    tiles, offsets = cut_tiles(painted(70, 70), size=64)
    with pytest.raises(ValueError, match="as many of both"):
        blend_tiles(tiles, offsets[:-1], (70, 70))
