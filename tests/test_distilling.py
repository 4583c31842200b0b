"""A narrow network learns from a wide one: where it starts, what it is shown, what it is asked for."""

from dataclasses import replace

import numpy as np
import pytest

from calfin_cloud.network import PICTURE_SIZE, TILE_SIZE, build_network, load_network, narrow_decoder
from calfin_cloud.network.files import noted
from calfin_cloud.training import TrainingSettings, distil, distilling, masks_loss, synthetic_samples
from calfin_cloud.training.distilling import Lessons, distilled_loss, lesson_batch, read_lessons, write_lessons

STUDENT = TrainingSettings(
    architecture="efficient", rock=True, width=0.25, batch=1, steps=1, start="calfin-efficient", leave_out=()
)


@pytest.fixture
def few(monkeypatch):
    """Lessons so few that a test can wait for them."""
    for name, n in (("N_SYNTHETIC", 1), ("N_ADVERSE", 2), ("A_FILE", 2)):
        monkeypatch.setattr(distilling, name, n)


def lessons(n=3, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n, PICTURE_SIZE, PICTURE_SIZE)
    pictures = rng.integers(1, 255, (*shape, 3), dtype=np.uint8)
    return Lessons(pictures, rng.integers(0, 255, shape, dtype=np.uint8), pictures.copy())


def test_a_decoder_that_is_not_narrowed_is_that_of_the_teacher():
    teacher = load_network("calfin-efficient", size=64)
    student = narrow_decoder(teacher, build_network("efficient", size=64, rock=True))
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(student(picture), teacher(picture), atol=1e-6)


def test_a_narrower_decoder_keeps_the_encoder_and_filters_of_the_teacher():
    teacher = load_network("calfin-efficient", size=64)
    student = narrow_decoder(teacher, build_network("efficient", size=64, width=0.5, rock=True))
    for name in ("stem_conv", "block15_project_conv"):
        np.testing.assert_array_equal(student.get_layer(name).kernel, teacher.get_layer(name).kernel)
    kernels = [np.asarray(n.get_layer("up0_conv1_conv").kernel) for n in (student, teacher)]
    assert kernels[0].shape[3] * 2 == kernels[1].shape[3]
    assert {k.tobytes() for k in np.moveaxis(kernels[0], 3, 0)} <= {k.tobytes() for k in np.moveaxis(kernels[1], 3, 0)}
    with pytest.raises(ValueError, match="must have at most 64 filters, got 128"):
        narrow_decoder(student, teacher)


def test_a_batch_shows_parts_of_pictures_with_truth_and_taught_masks_turned_alike():
    of = lessons()
    patches, goals = lesson_batch(of, replace(STUDENT, batch=64), 3)
    assert patches.shape == (64, TILE_SIZE, TILE_SIZE, 3)
    assert goals.shape == (64, TILE_SIZE, TILE_SIZE, 8)
    untoned = [n for n in range(64) if np.allclose((patches[n] + 1) / 2, goals[n, ..., 5:], atol=1e-6)]
    assert 30 < len(untoned) < 60  # the others have tones of their own
    again, _ = lesson_batch(of, replace(STUDENT, batch=64), 3)
    np.testing.assert_array_equal(again, patches)


def test_the_loss_is_least_where_masks_are_both_the_truth_and_what_is_taught():
    truth = np.zeros((1, 64, 64, 5), "float32")
    truth[:, :20, :, :] = 1
    truth[..., (2, 4)] = 1
    taught = truth[..., (0, 1, 3)]
    goal = np.concatenate([truth, taught], axis=-1)
    right = float(distilled_loss(goal, taught, front_weight=0.8))
    for wrong in (0.9 * taught, np.roll(taught, 3, axis=1), np.full_like(taught, 0.5)):
        assert float(distilled_loss(goal, wrong, front_weight=0.8)) > right + 0.01
    alone = 0.4 * float(masks_loss(truth, taught, front_weight=0.8))
    assert right == pytest.approx(alone, abs=1e-4)


def test_a_student_is_taught_and_needs_no_verifier(few, tmp_path):
    samples = list(synthetic_samples(2, seed=3))
    out = distil(samples, tmp_path / "student.weights.h5", STUDENT, lessons=tmp_path / "lessons", pictures=3)
    about = noted(out)
    assert (about.architecture, about.width, about.rock, about.verifier) == ("efficient", 0.25, True, None)
    of = read_lessons(tmp_path / "lessons", 3)
    assert of.taught.shape == (3, PICTURE_SIZE, PICTURE_SIZE, 3)
    assert of.taught[..., 1].max() > 200  # the teacher sees ice
    before = (tmp_path / "lessons/000.npz").read_bytes()
    write_lessons(samples, tmp_path / "lessons", teacher="calfin-efficient", pictures=3, seed=STUDENT.seed)
    assert (tmp_path / "lessons/000.npz").read_bytes() == before
    with pytest.raises(ValueError, match="give another folder"):
        write_lessons(samples, tmp_path / "lessons", teacher="calfin-small-2", pictures=3, seed=STUDENT.seed)


def test_a_student_of_nobody_is_refused(tmp_path):
    with pytest.raises(ValueError, match="name the teacher as start"):
        distil([], tmp_path / "s.weights.h5", replace(STUDENT, start=None), lessons=tmp_path)
