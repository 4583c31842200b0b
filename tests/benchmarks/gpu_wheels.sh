#!/usr/bin/env bash
# Collect what tests/benchmarks/gpu.py needs on a bare machine that has NumPy and JAX (or PyTorch).   gpu_wheels.sh FOLDER
# There:  pip install --no-index --no-deps --target wheels/site FOLDER/*.whl && PYTHONPATH=.:wheels/site python tests/benchmarks/gpu.py
set -euo pipefail
folder=${1:?"a folder is needed: gpu_wheels.sh FOLDER"}
python=${PYTHON:-python3}
# Of the machine that runs the benchmark, which may differ from this one.
version=${PYTHON_VERSION:-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version "$version" \
  --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform any --dest "$folder" \
  keras optree namex h5py absl-py rich markdown-it-py mdurl pygments typing-extensions ml-dtypes packaging lazy-loader pillow nvidia-ml-py
du -sh "$folder"
