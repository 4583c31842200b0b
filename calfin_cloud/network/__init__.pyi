from .calfin import TILE_SIZE, AlignCornersResize, Tensor, calfin_network, interpolation_matrix
from .efficient import efficient_network
from .engines import OpenVinoNetwork
from .files import (
    DEFAULT_NETWORK,
    ENCODERS,
    PUBLISHED_GLACIERS,
    PUBLISHED_UNET,
    SHIPPED,
    WEIGHTS_FOLDER,
    Engine,
    Shipped,
    network_id,
    training_glaciers,
    weights_path,
)
from .unet import predict_front, preprocess_grey, unet_network
from .weights import (
    ARCHITECTURES,
    CHUNK_TILES,
    build_network,
    load_network,
    predict_tiles,
    prepare_compilation,
    read_weights,
    save_weights,
)

__all__ = [
    "ARCHITECTURES",
    "CHUNK_TILES",
    "DEFAULT_NETWORK",
    "ENCODERS",
    "PUBLISHED_GLACIERS",
    "PUBLISHED_UNET",
    "SHIPPED",
    "TILE_SIZE",
    "WEIGHTS_FOLDER",
    "AlignCornersResize",
    "Engine",
    "OpenVinoNetwork",
    "Shipped",
    "Tensor",
    "build_network",
    "calfin_network",
    "efficient_network",
    "interpolation_matrix",
    "load_network",
    "network_id",
    "predict_front",
    "predict_tiles",
    "prepare_compilation",
    "preprocess_grey",
    "read_weights",
    "save_weights",
    "training_glaciers",
    "unet_network",
    "weights_path",
]
