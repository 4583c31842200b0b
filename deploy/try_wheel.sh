#!/usr/bin/env bash
# Install the wheel into an empty environment and map a synthetic scene with it.   deploy/try_wheel.sh PYTHON DIST
# The environment sees the packages beside PYTHON, so that nothing is downloaded, but not what is installed there in place.
set -euo pipefail
python=$(realpath --no-symlinks "${1:?"deploy/try_wheel.sh PYTHON DIST"}")
dist=$(realpath "${2:?"deploy/try_wheel.sh PYTHON DIST"}")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
unset PYTHONPATH
"$python" -m venv "$place/env"  # with a pip of its own: an environment that uv made has none
"$place/env/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile "$dist"/*.whl
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$place/packages"
cp "$place/packages" "$("$place/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
cd "$place"
"$place/env/bin/python" -c 'import calfin_cloud, sys; assert calfin_cloud.__file__.startswith(sys.prefix), calfin_cloud.__file__'
PATH="$place/env/bin:$PATH"
calfin --version
calfin sample scenes --scenes 1
calfin map --catalog scenes/catalog.json --domains scenes/domains.geojson --period 1984/2024 --store store --cluster none
calfin report store --out report
test -s report/index.html -a -s report/lib/ol.js
ls -l "$dist"
