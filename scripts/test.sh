#!/usr/bin/env bash
# A fresh virtual environment, the pinned requirements, ruff and the whole test suite.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="$(mktemp -d)/venv"
trap 'rm -rf "$(dirname "$venv")"' EXIT
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r requirements-dev.txt
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
# Two workers of one thread each: most of the time goes into starting programs, which keeps one core busy.
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$venv/bin/python" -m pytest -n 2 --dist loadfile "$@"
