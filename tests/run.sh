#!/usr/bin/env bash
# Makes .venv with the test extras and runs every check: lint, format, types, tests.      bash tests/run.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
bash recipes/setup.sh test recipes
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/pytest "$@"
