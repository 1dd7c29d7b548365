#!/usr/bin/env bash
# Train every config of a folder, one after another or one per GPU; see: bash train.sh --help
# PYTHON names the interpreter, by default the `python` of the active environment.
set -euo pipefail
exec "${PYTHON:-python}" "$(dirname -- "${BASH_SOURCE[0]}")/train_configs.py" "$@"
