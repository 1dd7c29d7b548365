#!/usr/bin/env bash
# The paper's table on NeRF synthetic; see: bash benchmarks/paper.sh --help
# PYTHON names the interpreter, by default the `python` of the active environment.
exec "${PYTHON:-python}" "$(dirname -- "${BASH_SOURCE[0]}")/paper.py" "$@"
