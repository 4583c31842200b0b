"""How a picture is cut for a network, and what runs that: values, which import no engine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from calfin_cloud.outcomes import LEVELS

__all__ = [
    "CALFIN",
    "FAST",
    "LEVELS",
    "ONCE",
    "PICTURE_SIZE",
    "TILES",
    "TILE_SIZE",
    "Cut",
    "Engine",
    "InferenceSettings",
    "cut_of",
    "shown_whole",
    "tile_size",
]

TILE_SIZE = 224
"""Side of a tile in px, the input of the network (Cheng et al. 2021)."""

PICTURE_SIZE = 256
"""Side in px of a scene or window as networks see it (calfin-method 3.1)."""

Engine = Literal["auto", "keras", "keras-bfloat16", "openvino"]
"""What runs a network. The masks are the same up to rounding, but bfloat16 rounds to one part in 256.

`auto` is OpenVINO where weights come with a file for it and no GPU is seen, else Keras.
"""


@dataclass(frozen=True)
class InferenceSettings:
    """How a picture of 256 px is cut for the network, and what runs that.

    The original cuts nine tiles, 16 px apart (`CALFIN`). A network that has a verifier (`verifier_of`) sees pictures as
    a whole: optical ones once, others upright and turned. Other networks see four tiles, and those of the transpose
    (what else was tried, and on which glaciers: docs/attempts.md).

    Attributes
    ----------
    stride
        Pixels between tiles of 224 px; None shows the network the picture as a whole.
    transposed
        Average the masks with those of the transposed picture.
    optical_whole
        Show optical pictures as a whole, once, to a network that has a verifier and to that, whatever `stride` and
        `transposed` say of others.
    turned
        Show pictures that are not optical as a whole to a network that has a verifier, and average the masks with those
        of the picture turned by 180 degrees, whatever `stride` and `transposed` say. A front counts where the network
        sees one in the transpose of the whole scene, too.
    square_pixels
        Mirror a picture that is not square up to one; otherwise squeeze it, as the original does.
    verify_windows
        Show the windows of the second pass to the verifier too; else what it saw in the whole scene counts for them.
    eight_bit
        Multiply in numbers of 8 bits, a third of the price on CPUs with VNNI, where weights come with a file for that;
        elsewhere, as on a GPU, nothing changes.
    engine
        What runs the network, see `Engine`. Settings that differ in nothing else are equal, and a store does not
        keep it.

    Examples
    --------
    >>> InferenceSettings(engine="keras") == InferenceSettings(engine="openvino")
    True
    """

    stride: int | None = 32
    transposed: bool = True
    optical_whole: bool = True
    turned: bool = True
    square_pixels: bool = False
    verify_windows: bool = True
    eight_bit: bool = False
    engine: Engine = field(default="auto", compare=False)


CALFIN = InferenceSettings(stride=16, transposed=False, optical_whole=False, turned=False)

TILES = InferenceSettings(optical_whole=False, turned=False)
"""All pictures in four tiles and their transposes: the default until version 0.2.0, for stores made with it."""

ONCE = InferenceSettings(stride=None, transposed=False, optical_whole=False, turned=False)
"""All pictures as a whole, once: scenes of radar cost two fifths (docs/attempts.md)."""

FAST = replace(ONCE, verify_windows=False, eight_bit=True)
"""As `ONCE`, in numbers of 8 bits, and the verifier sees the whole scene alone (docs/attempts.md)."""


class Cut(NamedTuple):
    """Where square tiles of `size` px lie in a picture, by their first rows and columns; each also transposed, or not.

    A picture and its transpose are cut alike, so that a tile of the transpose is the transpose of a tile.
    """

    size: int
    offsets: tuple[tuple[int, int], ...]
    transposed: bool


def cut_of(settings: InferenceSettings, size: int) -> Cut:
    """Lay tiles of `size` px over a picture, row by row, the last of a row or column at its end.

    Raises
    ------
    ValueError
        For tiles that leave gaps between them, or are larger than the picture.

    Examples
    --------
    >>> [offset for offset in cut_of(CALFIN, 224).offsets if offset[0] == 0]
    [(0, 0), (0, 16), (0, 32)]
    """
    stride = settings.stride or size
    if not 1 <= stride <= size:
        raise ValueError(f"stride must lie in 1..{size}, the side of a tile, got {stride}: larger steps leave gaps")
    if size > PICTURE_SIZE:
        raise ValueError(
            f"a network must take tiles of at most {PICTURE_SIZE} px, the side of a picture, got one for {size} px: "
            "use weights in .h5, which fit every size"
        )
    last = PICTURE_SIZE - size
    starts = sorted({*range(0, last + 1, stride), last})
    return Cut(size, tuple((row, column) for row in starts for column in starts), settings.transposed)


def shown_whole(settings: InferenceSettings) -> InferenceSettings:
    """Return the same settings with the picture shown as a whole, once.

    Examples
    --------
    >>> shown_whole(InferenceSettings()) == ONCE
    True
    """
    return replace(settings, stride=None, transposed=False, optical_whole=False, turned=False)


def tile_size(settings: InferenceSettings) -> int:
    """Side in px of what the network is shown at once: a tile, or the whole picture."""
    return PICTURE_SIZE if settings.stride is None else TILE_SIZE
