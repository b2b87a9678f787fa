#!/usr/bin/env bash
# A fresh virtual environment, the pinned requirements, ruff, types, the documentation site and the whole test suite.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="$(mktemp -d)/venv"
trap 'rm -rf "$(dirname "$venv")"' EXIT
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r requirements-dev.txt -r requirements-docs.txt
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
NO_MKDOCS_2_WARNING=1 "$venv/bin/mkdocs" build --quiet --strict --site-dir "$(dirname "$venv")/site"
# Two workers of one thread each: tensors as small as the tests' gain nothing from more.
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$venv/bin/python" -m pytest -n 2 --dist loadfile -m "slow or not slow" "$@"
