#!/usr/bin/env bash
# Makes .venv at the top of the checkout and installs s2s into it, editable, with the extras named: setup.sh [test] [recipes]
# A machine with an NVIDIA card gets a CUDA build of torch, one without a CPU build. Run again, it does what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup.sh: s2s needs Python 3.11 or newer, $python is $("$python" --version 2>&1): set PYTHON to a newer one" >&2
    exit 2
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

torch='torch>=2.6,<2.14'
if ! .venv/bin/python -c 'import torch' 2> /dev/null; then
    echo "setup.sh: installing torch" >&2
    card=false
    command -v nvidia-smi > /dev/null && nvidia-smi > /dev/null 2>&1 && card=true
    # A wheel that pip finds without a network is taken as it is. Else uv knows which build goes with which driver: the
    # default wheel for Linux carries gigabytes of CUDA that a machine without a card has no use for.
    if $card || ! pip install --quiet --no-index "$torch" 2> /dev/null; then
        pip install --quiet uv
        .venv/bin/uv pip install --quiet --python .venv/bin/python --torch-backend auto "$torch" || pip install --quiet "$torch"
    fi
fi

extras=$(IFS=,; echo "$*")
echo "setup.sh: installing s2s${extras:+ with $extras}" >&2
pip install --quiet --editable ".${extras:+[$extras]}"
