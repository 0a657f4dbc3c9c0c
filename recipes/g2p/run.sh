#!/usr/bin/env bash
# Grapheme-to-phoneme conversion in five languages: a model for each language and seed, and an ensemble for each language.
# Each step is skipped once it is done, so that an interrupted run goes on where it stopped.
#
#   bash recipes/g2p/run.sh [--smoke] [--data DIR] [--work DIR] [fre|gre|hun|ice|kor ...]
#
#   --smoke      under a minute, to see that every step works: one language, two seeds, 20 updates, on words of a local copy, else
#                on made-up ones
#   --data DIR   take the data from a local copy (else $S2S_DATA, else it is downloaded)
#   --work DIR   where everything goes (default: work/ beside this script); --smoke adds -smoke to the name
set -euo pipefail
source "$(dirname "$0")/../common.sh"

seeds=(1 2 3)
limits=()
languages=(${names[@]+"${names[@]}"})
[ ${#languages[@]} -gt 0 ] || languages=(fre gre hun ice kor)
if $smoke; then
    languages=("${languages[0]}")
    seeds=(1 2)
    limits=(--max-updates 20 --valid-every 10 --beam 1)
fi

bring "" g2p text
for language in "${languages[@]}"; do
    [ -f "text/train.$language.src" ] || { echo "run.sh: there is no language $language, only fre, gre, hun, ice, kor" >&2; exit 2; }
    once "$language/data-bin/dataset.json" s2s preprocess -c "$recipe/s2s.yaml" -o "$language/data-bin" \
        --train-src "text/train.$language.src" --train-tgt "text/train.$language.tgt" \
        --valid-src "text/val.$language.src" --valid-tgt "text/val.$language.tgt" --test-src "text/test.$language.src"
    runs=()
    for seed in "${seeds[@]}"; do
        run=$language/seed$seed
        runs+=(-m "$run")
        [ ! -f "$run/test.hyp" ] || continue
        say "$language, seed $seed"
        train "$run" -c "$recipe/s2s.yaml" --data "$language/data-bin" --seed "$seed" ${limits[@]+"${limits[@]}"}
        s2s translate -m "$run" -i "text/test.$language.src" -o "$run/test.hyp"
    done
    once "$language/ensemble.hyp" s2s translate "${runs[@]}" -i "text/test.$language.src" -o "$language/ensemble.hyp"
done
python3 "$recipe/report.py" "${languages[@]}" --seeds "${seeds[@]}"
