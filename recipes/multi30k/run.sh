#!/usr/bin/env bash
# Multi30k English→German, from the public text to a table of scores. Each step is skipped once it is done, so that an
# interrupted run goes on where it stopped.
#
#   bash recipes/multi30k/run.sh [--smoke] [--data DIR] [--work DIR] [transformer|gru ...]
#
#   --smoke      a minute or two on a corner of the data, to see that every step works
#   --data DIR   take the text from a local copy (else $S2S_DATA, else it is downloaded)
#   --work DIR   where everything goes (default: work/ beside this script); --smoke adds -smoke to the name
set -euo pipefail

recipe=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$recipe/../.." && pwd)
work=$recipe/work
smoke=false
models=()
from=()
while [ $# -gt 0 ]; do
    case $1 in
        --smoke) smoke=true ;;
        --data) from=(--from "${2:?--data needs a folder}"); shift ;;
        --work) work=${2:?--work needs a folder}; shift ;;
        transformer | gru) models+=("$1") ;;
        *) echo "run.sh: unknown argument $1" >&2; exit 2 ;;
    esac
    shift
done
[ ${#models[@]} -gt 0 ] || models=(transformer gru)
[ ! -x "$root/.venv/bin/s2s" ] || PATH=$root/.venv/bin:$PATH
if ! command -v s2s > /dev/null || ! python3 -c 'import s2s_cli, sacremoses' 2> /dev/null; then
    echo "run.sh: s2s or sacremoses is not installed: bash recipes/setup.sh recipes" >&2
    exit 2
fi

$smoke && work=$work-smoke
mkdir -p "$work"
python3 "$root/data/multi30k.py" "$work/text" ${from[@]+"${from[@]}"}
cd "$work"
corpus=() # what a smoke run changes
limits=()
search=()
best=4
if $smoke; then
    for side in en de; do
        head -n 2000 "text/train.$side" > "train.$side"
        head -n 100 "text/val.$side" > "val.$side"
    done
    corpus=(--train-src train.en --train-tgt train.de --valid-src val.en --valid-tgt val.de --vocab-size 2000)
    limits=(--max-updates 20 --valid-every 10 --beam 1)
    search=(--beam 1)
    best=2
fi

[ -f data-bin/dataset.json ] || s2s preprocess -c "$recipe/s2s.yaml" ${corpus[@]+"${corpus[@]}"}
for model in "${models[@]}"; do
    config=$recipe/s2s.yaml
    [ "$model" = transformer ] || config=$recipe/$model.yaml
    s2s train -c "$config" ${limits[@]+"${limits[@]}"}
    [ -d "$model/averaged" ] || s2s average -m "$model" --best $best -o "$model/averaged"
    for name in best averaged; do
        hyp=$model/$name.test.de
        [ -f "$hyp" ] || s2s translate -c "$config" -m "$model/$name" -i text/test_2016_flickr.en -o "$hyp" \
            ${search[@]+"${search[@]}"}
        if [ ! -f "$hyp.tok" ]; then
            python3 "$root/data/moses.py" --lang de < "$hyp" > "$hyp.tok.part"
            mv "$hyp.tok.part" "$hyp.tok"
        fi
    done
done
python3 "$recipe/report.py" . "${models[@]}"
