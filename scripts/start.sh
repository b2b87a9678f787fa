#!/usr/bin/env bash
# A virtual environment in .venv with the pinned requirements, then the page. Arguments go to app.py.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
exec .venv/bin/python app.py "$@"
