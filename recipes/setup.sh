#!/usr/bin/env bash
# Makes .venv at the top of the checkout and installs s2s into it, editable, with the extras named: setup.sh [test] [recipes]
# A machine with an NVIDIA card gets a CUDA build of torch, one without a CPU build. Run again, it does what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

# The first of these that is new enough; PYTHON names another one.
new_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            echo "$candidate"
            return
        fi
        [ -z "${PYTHON:-}" ] || break
    done
    echo "setup.sh: s2s needs Python 3.11 or newer, which ${PYTHON:-python3} is not: install it, or name one with PYTHON" >&2
    return 2
}

if ! pip --version > /dev/null 2>&1; then # none yet, or one that was interrupted in the making
    python=$(new_python)
    echo "setup.sh: making .venv with $python" >&2
    "$python" -m venv .venv
fi

torch='torch>=2.6,<2.14'
if ! .venv/bin/python -c 'import torch' 2> /dev/null; then
    echo "setup.sh: installing torch, which takes a minute or a few" >&2
    card=false
    command -v nvidia-smi > /dev/null && nvidia-smi > /dev/null 2>&1 && card=true
    # A wheel that pip finds without a network is taken as it is. Else uv knows which build goes with which driver: the
    # default wheel for Linux carries gigabytes of CUDA that a machine without a card has no use for.
    if $card || ! pip install --quiet --no-index "$torch" 2> /dev/null; then
        pip install --quiet uv
        .venv/bin/uv pip install --quiet --python .venv/bin/python --torch-backend auto "$torch" || {
            echo "setup.sh: not from PyTorch's own index, so from where pip gets its packages" >&2
            pip install --quiet "$torch"
        }
    fi
fi

extras=$(IFS=,; echo "$*")
echo "setup.sh: installing s2s${extras:+ with $extras}" >&2
pip install --quiet --editable ".${extras:+[$extras]}"
