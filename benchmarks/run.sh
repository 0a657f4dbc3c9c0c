#!/usr/bin/env bash
# Measures again all that benchmarks/README.md tells of speed, and writes its tables anew: hours on two cores, which should
# have nothing else to do. PYTHON names the interpreter that has s2s with the extra `benchmarks`; other toolkits are installed
# below the folder that PEERS names, 8 GB in all. A part of it: run.sh train startup. Not
# among the parts by itself: attention_length, an hour of training; rounding, which wants a model of yours.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
parts=${*:-train loss startup growth preprocess score loss_memory products decode decode_profile levers translate}

measure() { echo "== $*" >&2; "$python" "benchmarks/$1.py" "${@:2}"; }

for part in $parts; do
    case $part in
        train) for shape in tiny base lstm; do measure train --shape "$shape" --rounds 3; done ;;
        loss)
            measure train --shape tiny --loss-after 150 --no-dropout --engines s2s s2s:bf16 transformers
            measure train --shape tiny --loss-after 150 --seeds 1 2 --engines s2s s2s:bf16 transformers
            ;;
        levers) measure levers --threads 2 --out benchmarks/results/levers.json ;;
        translate) for shape in tiny base; do measure translate --shape "$shape"; done ;;
        attention_length) measure attention_length --longest 80 --task reverse; measure attention_length --longest 80 --updates 2500 --task sort ;;
        *) measure "$part" ;;
    esac
done
measure table
