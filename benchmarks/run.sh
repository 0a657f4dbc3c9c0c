#!/usr/bin/env bash
# Measures again all that benchmarks/README.md tells of speed on a CPU, and writes its tables anew: hours on two cores, which
# should have nothing else to do. PYTHON names the interpreter that has s2s with the extra `benchmarks` (and CTranslate2, for what
# is beside it); other toolkits are installed below the folder that PEERS names, 8 GB in all. A part of it: run.sh train startup.
# `own` trains the model whose outputs have lengths of their own, in some 20 minutes, unless it is there, and measures with it.
# Not among the parts by itself: attention_length, an hour of training; rounding, which takes hours; gpu, which needs a card, and
# a PYTHON that has transformers.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$(pwd -P)
python=${PYTHON:-$root/.venv/bin/python}
results=$root/benchmarks/results
home=${PEERS:-${TMPDIR:-/tmp}/s2s-peers}/own # PEERS and PYTHON, if given, are absolute
parts="train loss startup growth preprocess score loss_memory saving products decode decode_profile levers not_taken own translate"
parts=${*:-$parts}

measure() { echo "== $*" >&2; "$python" "$root/benchmarks/$1.py" "${@:2}"; }

# `wide` of recipes/multi30k, but for 12 epochs in place of 50, on lowercased text, and 10,000 lines for it, in a folder that
# becomes the current one.
own() {
    mkdir -p "$home"
    cd "$home"
    [ -e text/origin.txt ] || "$python" "$root/data/multi30k.py" text
    [ -e data-bin/dataset.json ] || "$python" -m s2s_cli preprocess -c "$root/recipes/multi30k/s2s.yaml" --lowercase
    "$python" -m s2s_cli train --run wide12 -c "$root/recipes/multi30k/wide.yaml" --max-epochs 12
    { cat text/test_2016_flickr.en; head -n 9000 text/train.en; } > lines.en
}

for part in $parts; do
    cd "$root"
    case $part in
        train) for shape in tiny base lstm; do measure train --shape "$shape" --rounds 3; done ;;
        loss)
            measure train --shape tiny --loss-after 150 --no-dropout --engines s2s s2s:bf16 transformers
            measure train --shape base --loss-after 40 --no-dropout --engines s2s s2s:bf16 transformers
            measure train --shape tiny --loss-after 150 --seeds 1 2 --engines s2s s2s:bf16 transformers
            ;;
        levers) measure levers --threads 2 --out "$results/levers.json" ;;
        not_taken)
            measure not_taken compiled --out "$results/not_taken_compiled.json"
            measure not_taken shortlist --shapes base --vocab 32000 --out "$results/not_taken_shortlist_32k.json"
            ;;
        own)
            own
            given=(--model wide12 --src text/test_2016_flickr.en)
            measure decode --all "${given[@]}" --out "$results/decode_own.json"
            measure decode --all --beam 5 "${given[@]}" --patience 1 --out "$results/decode_own_patience.json"
            measure decode_profile "${given[@]}" --patience 0 --patience 1 --out "$results/decode_profile_own.json"
            measure levers "${given[@]}" --out "$results/levers_own.json"
            measure not_taken waiting "${given[@]}" --sentences 1000 --out "$results/not_taken_waiting.json"
            measure not_taken shortlist "${given[@]}" --sentences 1000 --ref text/test_2016_flickr.de \
                --pairs text/train.en text/train.de --out "$results/not_taken_shortlist.json"
            measure translate --model wide12
            ;;
        rounding)
            own
            "$python" -m s2s_cli train --run recurrent -c "$root/recipes/multi30k/rnn.yaml" --preset rnn-luong --max-epochs 8 \
                --set score.lowercase=true
            given=(--model wide12 --src lines.en --ref text/test_2016_flickr.de)
            measure rounding "${given[@]}" --beam 1 --out "$results/rounding.json"
            measure rounding "${given[@]}" --beam 5 --lines 2500 --out "$results/rounding_beam5.json"
            measure rounding --model recurrent "${given[@]:2}" --lines 1000 --out "$results/rounding_recurrent.json"
            ;;
        startup)
            measure startup
            measure translate --lines 1 --beams 5
            ;;
        gpu)
            for shape in base big; do
                measure gpu train --shape $shape --batch-tokens 25000 --batch-tokens 64000 --limit 110 \
                    --out "$results/gpu_train_$shape.json"
            done
            measure gpu decode --shape base --batch 128 --limit 80
            measure gpu decode --shape base --batch 1 --rounds 2 --sentences 6 --limit 70 --out "$results/gpu_decode_one.json"
            measure gpu attention
            own
            measure gpu translate --model wide12 --src lines.en --rounds 2 --limit 130
            ;;
        translate) for shape in tiny base; do measure translate --shape "$shape"; done ;;
        attention_length)
            measure attention_length --longest 80 --task reverse
            measure attention_length --longest 80 --updates 2500 --task sort
            ;;
        *) measure "$part" ;;
    esac
done
cd "$root"
measure table
