"""Normalised tiles go in, front and ice probabilities come out: networks in Keras 3, weights by name or path."""

from calfin_cloud.network.calfin import TILE_SIZE, AlignCornersResize, Tensor, calfin_network, interpolation_matrix
from calfin_cloud.network.unet import PUBLISHED_GLACIERS, predict_front, preprocess_grey, unet_network
from calfin_cloud.network.weights import (
    ARCHITECTURES,
    CHUNK_TILES,
    DEFAULT_NETWORK,
    PUBLISHED_UNET,
    SHIPPED,
    WEIGHTS_FOLDER,
    Shipped,
    build_network,
    load_network,
    network_id,
    predict_tiles,
    prepare_compilation,
    read_weights,
    save_weights,
    training_glaciers,
)

__all__ = [
    "ARCHITECTURES",
    "CHUNK_TILES",
    "DEFAULT_NETWORK",
    "PUBLISHED_GLACIERS",
    "PUBLISHED_UNET",
    "SHIPPED",
    "TILE_SIZE",
    "WEIGHTS_FOLDER",
    "AlignCornersResize",
    "Shipped",
    "Tensor",
    "build_network",
    "calfin_network",
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
]
