#!/usr/bin/env bash
# Build the wheel, install it with the hashed lock into an empty environment outside the checkout, and ask it for one
# analysis.
set -euo pipefail
cd "$(dirname "$0")/.."
checkout="$PWD"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
git ls-files -z | xargs -0 cp --parents -t "$place" # setuptools leaves folders beside what it builds
"$place/venv/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$place/wheel" "$place"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$place/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
"$place/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$place"/wheel/medssl-*.whl
"$place/venv/bin/pip" check
mkdir "$place/empty"
cd "$place/empty"
export HF_HUB_OFFLINE=1 PATH="$place/venv/bin:$PATH"
python "$checkout/scripts/first_answer.py" medssl demo
medssl doctor
