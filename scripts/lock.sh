#!/usr/bin/env bash
# Writes requirements.lock: every package that requirements.txt brings, pinned with the hashes of its files, for
# Python 3.10 to 3.12. torch is left out, and what only its CUDA build needs: its hash differs from build to build.
set -euo pipefail
cd "$(dirname "$0")/.."
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9
cuda="$("$place/venv/bin/uv" pip compile --universal --python-version 3.10 --no-header --no-annotate --quiet requirements.txt |
  grep -oE '^(nvidia|cuda|triton)[A-Za-z0-9-]*' | sort -u)"
exclude=(--no-emit-package torch)
for package in $cuda; do exclude+=(--no-emit-package "$package"); done
"$place/venv/bin/uv" pip compile --universal --python-version 3.10 --generate-hashes --no-header --no-annotate --quiet \
  "${exclude[@]}" requirements.txt --output-file "$place/lock"
{
  echo "# Written by scripts/lock.sh. Install: pip install torch==2.13.0, then"
  echo "# pip install --no-deps --require-hashes -r requirements.lock"
  cat "$place/lock"
} >requirements.lock
