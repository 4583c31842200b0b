"""Labelled image sets on disk go in, training and evaluation samples come out, one at a time."""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from calfin_cloud.sample import SyntheticScene

OCEAN, ICE, UNKNOWN = 0, 1, 255
"""Values of a sample's ice mask; ice means land or ice, ocean includes melange."""

VALIDATION_GLACIERS = frozenset({"Kangerlussuaq", "Crane"})
"""Never trained on: one optical glacier, one seen by radar."""

MOHAJERANI_PIXEL_M = {"Kangerlussuaq": 67.0, "Sverdrup": 62.0}
"""Estimated from front lengths, good to 10 % (README of the set); Jakobshavn's is unknown."""

OCEAN_REACH_PX = 40
"""How far seaward of a drawn front the mohajerani2019 images are surely ocean: further off the fjord bends."""

CAFFE_NODATA, CAFFE_ROCK, CAFFE_OCEAN = 1, 2, 4
"""Values of the zone masks; rock and glacier (3) are both ice here."""

Sensor = Literal["optical", "sar"]


@dataclass(frozen=True)
class Sample:
    """One labelled scene.

    Attributes
    ----------
    image
        (y, x) float32 grey levels; NaN = missing.
    front
        (y, x) bool, the drawn calving front or coastline as a line.
    ice
        (y, x) uint8: 1 land or ice, 0 ocean or melange, 255 unknown.
    rock
        (y, x) uint8: 1 land that does not calve, 0 glacier or ocean, 255 unknown; None where nobody has drawn it.
    pixel_size_m
        Metres per pixel, or None where the scale is lost.
    datetime
        When it was taken, in UTC; the set's day at midnight, None where it is unknown.
    platform
        Satellite in the words of its set, such as LE07, ERS, S1B; empty where it is unknown.
    is_southern
        Whether the glacier lies on the southern hemisphere, where seasons are turned.
    """

    name: str
    glacier: str
    sensor: Sensor
    image: NDArray[np.float32]
    front: NDArray[np.bool_]
    ice: NDArray[np.uint8]
    rock: NDArray[np.uint8] | None = None
    pixel_size_m: float | None = None
    datetime: dt.datetime | None = None
    platform: str = ""
    is_southern: bool = False

    def __post_init__(self) -> None:
        masks = {"front": self.front, "ice": self.ice} | ({} if self.rock is None else {"rock": self.rock})
        if self.image.ndim != 2 or any(mask.shape != self.image.shape for mask in masks.values()):
            shapes = ", ".join(f"{name} {mask.shape}" for name, mask in masks.items())
            raise ValueError(
                f"{self.name}: image {self.image.shape}, {shapes} must share one (y, x) shape: give the masks the size "
                "of the image"
            )


def synthetic_sample(
    name: str,
    glacier: str,
    sensor: Sensor,
    scene: SyntheticScene,
) -> Sample:
    """Label a synthetic scene: its front is drawn as a line, land beside the fjord is rock.

    Examples
    --------
    >>> from calfin_cloud.sample import paint_adverse
    >>> sample = synthetic_sample("shelf-0", "shelf", "optical", paint_adverse("shelf", 0))
    >>> sample.front.shape, sample.front.any()
    ((320, 320), np.True_)
    """
    drawn = np.zeros(scene.signal.shape, np.uint8)
    cv2.polylines(drawn, [np.rint(scene.front).astype(np.int32)[:, None]], isClosed=False, color=1)
    rock = (scene.ice & ~scene.fjord).astype(np.uint8)
    return Sample(name, glacier, sensor, scene.signal.astype(np.float32), drawn > 0, scene.ice.astype(np.uint8), rock)


def read_samples(folder: Path | str) -> Iterator[Sample]:
    """Yield the samples of any known image set, told by its files, or of all sets in the subfolders of a folder.

    Raises
    ------
    ValueError
        The folder holds no image set of a known layout.
    """
    folder = _folder(folder)
    if (folder / "train" / "labels_1px").is_dir():
        yield from read_mohajerani2019(folder)
    elif (folder / "zones").is_dir():
        yield from read_caffe256(folder)
    elif any(folder.glob("*_mask.png")):
        yield from read_calfin_folder(folder)
    else:
        known = [f for f in sorted(folder.iterdir()) if f.is_dir() and _is_image_set(f)]
        if not known:
            raise ValueError(
                f"{folder} holds no image set: expected train/labels_1px (mohajerani2019), zones (caffe256) "
                "or *_mask.png (CALFIN), in it or in its subfolders"
            )
        for inner in known:
            yield from read_samples(inner)


def read_mohajerani2019(folder: Path | str) -> Iterator[Sample]:
    """Yield the Landsat crops of Mohajerani et al. (2019) with their hand-drawn fronts, 1 px wide.

    Only the front is drawn. In all images ice flows up, so below the front is ice, and a strip above it ocean; the rest
    stays unknown.

    Raises
    ------
    ValueError
        An image has no drawn front.
    """
    folder = _folder(folder)
    for row in _rows(folder / "scenes.csv"):
        image = _read_grey(folder / "train" / "images" / row["image"]).astype(np.float32)
        front = _read_grey(folder / "train" / "labels_1px" / row["label"]) < 128
        if not front.any():
            raise ValueError(f"{row['label']} holds no front (black line): restore the file")
        name, glacier = row["image"].removesuffix("_Subset.png"), row["glacier"]
        yield Sample(
            name,
            glacier,
            "optical",
            image,
            front,
            _ice_below(front),
            pixel_size_m=MOHAJERANI_PIXEL_M.get(glacier),
            datetime=_date_in(row.get("date", "")),
            platform=row.get("sensor", ""),
        )


def read_caffe256(folder: Path | str) -> Iterator[Sample]:
    """Yield the SAR images of CaFFe (Gourmelon et al. 2022), 256 px; ice = glacier or rock, no data = unknown.

    Raises
    ------
    ValueError
        A file of zones has other values than 1 to 4.
    """
    folder = _folder(folder)
    for row in _rows(folder / "index.csv"):
        name = row["name"]
        image = _read_grey(folder / "sar" / f"{name}.png")
        zones = _read_grey(folder / "zones" / f"{name}_zones.png")
        front = _read_grey(folder / "fronts" / f"{name}_front.png") > 127
        if not np.isin(zones, (1, 2, 3, 4)).all():
            values = np.unique(zones).tolist()
            raise ValueError(f"{name}_zones.png has the values {values}, expected 1 to 4: restore the file")
        ice = np.select([zones == CAFFE_NODATA, zones == CAFFE_OCEAN], [UNKNOWN, OCEAN], ICE).astype(np.uint8)
        rock = np.select([zones == CAFFE_NODATA, zones == CAFFE_ROCK], [UNKNOWN, 1], 0).astype(np.uint8)
        missing = (zones == CAFFE_NODATA) & (image == 0)
        yield Sample(
            name,
            row["glacier"],
            "sar",
            np.where(missing, np.nan, image).astype(np.float32),
            front,
            ice,
            rock,
            datetime=_date_in(row.get("date", name)),
            platform=row.get("sensor", ""),
            is_southern="Antarctic" in row.get("glacier_name", ""),
        )


def read_calfin_folder(folder: Path | str) -> Iterator[Sample]:
    """Yield pairs `<name>.png`, `<name>_mask.png` as CALFIN stores them: 255 = land or ice, 0 = ocean.

    The front is the edge of the mask (`coastline`). Names are `<Domain>_<sensor>_..._<date>_...`; S1... and TSX... are
    SAR. All of CALFIN's Sentinel-1 scenes show Antarctica, and no other (calfin-method 1.2, 5.1).

    Raises
    ------
    ValueError
        An image or a mask has no partner.
    """
    folder = _folder(folder)
    masks = sorted(folder.glob("*_mask.png"))
    images = {path.stem for path in folder.glob("*.png")} - {path.stem for path in masks}
    unpaired = images ^ {path.stem.removesuffix("_mask") for path in masks}
    if unpaired or not masks:
        raise ValueError(f"{folder} needs pairs <name>.png and <name>_mask.png, unpaired: {sorted(unpaired)[:5]}")
    for path in masks:
        name = path.stem.removesuffix("_mask")
        glacier, sensor = [*name.split("_"), ""][:2]
        ice = _read_grey(path) > 127
        kind: Sensor = "sar" if sensor.startswith(("S1", "TSX")) else "optical"
        image = _read_grey(folder / f"{name}.png").astype(np.float32)
        yield Sample(
            name,
            glacier,
            kind,
            image,
            coastline(ice),
            ice.astype(np.uint8),
            datetime=_date_in(name),
            platform=sensor,
            is_southern=sensor.startswith("S1"),
        )


def coastline(ice: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Edge of an ice mask (y, x), about 3 px wide: Canny and a 3x3 dilation (Cheng et al. 2021, training labels)."""
    edge = cv2.Canny(ice.astype(np.uint8) * 255, 250, 510)
    return np.asarray(cv2.dilate(edge, np.ones((3, 3), np.uint8)) > 127)


def split_by_glacier(
    samples: Iterable[Sample], *, leave_out: Iterable[str] | None = None
) -> tuple[list[Sample], list[Sample]]:
    """Split into training and validation samples: the glaciers left out are validated on, never trained on.

    Without `leave_out` these are `VALIDATION_GLACIERS`, as far as the samples show them; a glacier named must be there.

    Raises
    ------
    ValueError
        No sample shows a glacier that is named.
    """
    samples, left_out = list(samples), set(VALIDATION_GLACIERS if leave_out is None else leave_out)
    unknown = left_out - {sample.glacier for sample in samples}
    if unknown and leave_out is not None:
        raise ValueError(
            f"no sample shows {sorted(unknown)}, got {sorted({s.glacier for s in samples})}: "
            "correct leave_out or read their set"
        )
    training = [sample for sample in samples if sample.glacier not in left_out]
    return training, [sample for sample in samples if sample.glacier in left_out]


def _ice_below(front: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Ice mask of an image whose ice flows up, known only in the columns that the front spans."""
    rows = np.arange(front.shape[0])[:, None]
    spanned = front.any(axis=0)
    first = np.where(spanned, front.argmax(axis=0), 0)
    last = np.where(spanned, front.shape[0] - 1 - front[::-1].argmax(axis=0), 0)
    ocean = spanned & (rows < first) & (rows >= first - OCEAN_REACH_PX)
    return np.select([ocean, spanned & (rows > last)], [OCEAN, ICE], UNKNOWN).astype(np.uint8)


def _date_in(text: str) -> dt.datetime | None:
    """First day (YYYY-MM-DD) that a name holds, at midnight UTC."""
    found = re.search(r"(?<!\d)\d{4}-\d{2}-\d{2}(?!\d)", text)
    return dt.datetime.fromisoformat(found[0]).replace(tzinfo=dt.UTC) if found else None


def _is_image_set(folder: Path) -> bool:
    return (folder / "train" / "labels_1px").is_dir() or (folder / "zones").is_dir() or any(folder.glob("*_mask.png"))


def _folder(folder: Path | str) -> Path:
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is not a folder: give the folder of an image set")
    return Path(folder)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if not path.is_file():
        raise ValueError(f"{path} is missing: the image set is incomplete, fetch it again")
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _read_grey(path: Path) -> NDArray[np.uint8]:
    """First channel of a PNG as it is stored, (y, x) uint8 or uint16: of CALFIN's layers the raw one (2.2)."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError(f"{path} is missing or no image: the image set is incomplete, fetch it again")
    return np.asarray(pixels if pixels.ndim == 2 else pixels[..., 2])  # OpenCV turns red, green, blue around
