#!/usr/bin/env bash
# The library of instances and the small tables against what is stored; exit code 1 on a regression.
# About five CPU minutes. Uses the environment .venv where there is one, else the active one.
set -euo pipefail
cd "$(dirname "$0")/.."
[[ -d .venv ]] && PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=1
finecast suites check
python3 benchmarks/nightly.py "$@"
