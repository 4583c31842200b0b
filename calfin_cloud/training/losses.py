"""Masks and their truth go in, the loss of the original comes out: cross-entropy and soft Jaccard index.

Weights that shall not move far add a loss of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calfin_cloud.network import Tensor
from calfin_cloud.network.backend import keras, ops
from calfin_cloud.training.settings import FRONT_WEIGHT

ROCK_WEIGHT = 0.1
"""Weight of the rock mask beside the others, where it is learnt."""


def masks_loss(truth: Tensor, masks: Tensor, *, front_weight: float = FRONT_WEIGHT) -> Tensor:
    """Cross-entropy minus the log of the soft Jaccard index, for front and ice mask (Cheng et al. 2021).

    Parameters
    ----------
    truth
        (n, y, x, 3): front, ice, and 1 where the ice is known; elsewhere the ice terms are left out. For a network that
        learns rock too (n, y, x, 5), with rock, and 1 where that is known.
    masks
        (n, y, x, 2) or (n, y, x, 3): predicted probabilities of front, ice and rock.
    front_weight
        Weight of the front terms, 25/26 in the original; the ice terms have the rest.
    """
    front = _mask_loss(truth[..., 0], masks[..., 0], ops.ones_like(truth[..., 0]))
    ice = _mask_loss(truth[..., 1], masks[..., 1], truth[..., 2])
    loss = front_weight * front + (1 - front_weight) * ice
    if masks.shape[-1] == 3:
        loss = loss + ROCK_WEIGHT * _mask_loss(truth[..., 3], masks[..., 2], truth[..., 4])
    return loss


def _mask_loss(truth: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    clipped = ops.clip(mask, 1e-7, 1 - 1e-7)
    entropy = -(truth * ops.log(clipped) + (1 - truth) * ops.log(1 - clipped))
    cross_entropy = ops.sum(entropy * known) / ops.maximum(ops.sum(known), 1)
    has_known = ops.cast(ops.max(known, axis=(1, 2)) > 0, mask.dtype)
    jaccard = ops.sum(soft_jaccard(truth * known, mask * known) * has_known) / ops.maximum(ops.sum(has_known), 1)
    # A batch without any known pixel has no Jaccard index, and nothing to learn from it.
    return cross_entropy - ops.where(ops.sum(has_known) > 0, ops.log(ops.maximum(jaccard, 1e-7)), 0.0)


def soft_jaccard(truth: Tensor, mask: Tensor) -> Tensor:
    """Soft Jaccard index of each image, (n, y, x) -> (n,)."""
    both = ops.sum(truth * mask, axis=(1, 2))
    return (both + 1e-12) / (ops.sum(truth, axis=(1, 2)) + ops.sum(mask, axis=(1, 2)) - both + 1e-12)


def anchor_weights(network: keras.Model, strength: float) -> None:
    """Pull the weights of a network that learn back to where they are now."""
    for variable in network.trainable_weights:
        variable.regularizer = Anchor(np.array(variable), strength)


class Anchor(keras.regularizers.Regularizer):  # type: ignore[misc]  # keras is an untyped border
    """Pulls weights back to where they were (L2-SP, Li et al. 2018, arXiv:1802.01483)."""

    def __init__(self, home: NDArray[Any], strength: float) -> None:
        self.home, self.strength = home, strength

    def __call__(self, weights: Tensor) -> Tensor:
        """Return the sum of the squares of how far the weights have moved, times the strength."""
        return self.strength * ops.sum(ops.square(weights - self.home))
