#!/usr/bin/env bash
# The fast tests and the app's first answer under the other Pythons that Spaces offer (or those named), where at hand.
set -euo pipefail
cd "$(dirname "$0")/.."
for version in ${@:-3.10 3.12}; do
  python="$(command -v "python$version" || true)"
  for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python; do
    if [ -x "$candidate" ]; then python="$candidate"; fi
  done
  if [ -z "$python" ] || ! "$python" -c 'import ensurepip, ssl, sqlite3' 2>/dev/null; then
    echo "Python $version is not at hand: its tests are left out."
    continue
  fi
  place="$(mktemp -d)"
  trap 'rm -rf "$place"' EXIT
  "$python" -m venv "$place/venv"
  # Other Pythons get the CUDA build of torch, several gigabytes: a machine without the room has its say here, not a failure.
  if ! "$place/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements-dev.txt; then
    echo "Python $version: the requirements could not be installed; its tests are left out."
    rm -rf "$place"
    continue
  fi
  OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$place/venv/bin/python" -m pytest -q -n 2 --dist loadfile
  HF_HUB_OFFLINE=1 "$place/venv/bin/python" scripts/first_answer.py "$place/venv/bin/python" app.py
  rm -rf "$place"
done
