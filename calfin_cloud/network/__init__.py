"""Normalised tiles go in, front and ice probabilities come out: networks in Keras 3, weights by name or path.

Keras and its backend take seconds to import: what only names or checks weights does without them.
"""

import os

import lazy_loader

AS_NEEDED = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""TensorFlow and JAX take the whole memory of a GPU at their first step, unless their environment says otherwise."""

for _name, _value in AS_NEEDED.items():
    os.environ.setdefault(_name, _value)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
