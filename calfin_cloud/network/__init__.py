"""Normalised tiles go in, front and ice probabilities come out: networks in Keras 3, weights by name or path.

Keras and its backend take seconds to import: what only names or checks weights does without them.
"""

import os

import lazy_loader

AS_NEEDED = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""TensorFlow and JAX take the whole memory of a GPU at their first step, unless their environment says otherwise."""

EXACT = {"NVIDIA_TF32_OVERRIDE": "0", "JAX_DEFAULT_MATMUL_PRECISION": "float32", "TF_CUDNN_DETERMINISTIC": "1"}
"""GPUs would round the factors of float32 products to 10 bits (TF32), and cuDNN may choose sums of varying order."""

for _name, _value in (AS_NEEDED | EXACT).items():
    os.environ.setdefault(_name, _value)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
