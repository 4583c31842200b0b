#!/usr/bin/env bash
# Certificates for Dask's connections: ca.crt, tls.crt, tls.key in a folder.   deploy/certificates.sh FOLDER [DAYS]
# Scheduler, workers and driver share one; Dask asks whether the CA signed it, not whose name it bears. The CA's key is not kept.
set -euo pipefail
folder=${1:?"a folder is needed: deploy/certificates.sh FOLDER [DAYS]"}
days=${2:-365}
umask 077
mkdir -p "$folder"
cd "$folder"
openssl req -x509 -newkey rsa:3072 -nodes -subj /CN=calfin-dask-ca -days "$days" -keyout ca.key -out ca.crt 2>/dev/null
openssl req -newkey rsa:3072 -nodes -subj /CN=calfin-dask -keyout tls.key -out tls.csr 2>/dev/null
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" -out tls.crt 2>/dev/null
rm ca.key tls.csr ca.srl
