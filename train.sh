#!/usr/bin/env bash
# Train every config of a folder, one after another, one per GPU, or on a cluster; see: bash train.sh --help
# PYTHON names the interpreter, by default the `python` of the active environment.
set -euo pipefail
root=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -P -m infonerf.batch "$@"
