#!/usr/bin/env bash
# WMT14 English→German at full scale, on GPUs through torchrun: from the task's own text to newstest2014.
# Each step is skipped once it is done, so that an interrupted run goes on where it stopped.
#
#   GPUS=8 bash recipes/wmt-en-de/run.sh [--smoke] [--data DIR] [--work DIR] [base|big ...]
#
#   GPUS         processes of torchrun, one a GPU (default: as many GPUs as there are, else 1); with fewer than eight,
#                gradients are accumulated so that an update stays as large
#   --smoke      under a minute, on text that is made up, to see that every step works
#   --data DIR   take the archives from a local copy (else $S2S_DATA, else they are downloaded)
#   --work DIR   where everything goes (default: work/ beside this script); --smoke adds -smoke to the name
set -euo pipefail
source "$(dirname "$0")/../common.sh"
count_gpus

[ ${#names[@]} -gt 0 ] || names=(base)
limits=()
corpus=()
best=5
if $smoke; then
    S2S_DATA='' # too large to take a corner of
    corpus=(--vocab-size 500 --allow-drops)
    limits=(--max-updates 4 --valid-every 2 --batch-tokens 512 --beam 1 --max-len 8 --dim 32 --heads 2 --ffn-dim 32
        --encoder-layers 1 --decoder-layers 1)
    best=2
fi
bring text/test.de wmt14 text
once data-bin/dataset.json s2s preprocess -c "$recipe/s2s.yaml" ${corpus[@]+"${corpus[@]}"}
systems=()
for model in "${names[@]}"; do
    case $model in
        base) flags=(--preset base) ;;
        big) flags=(--preset big --lr 0.0005 --max-updates 300000) ;;
        *) echo "run.sh: there is no model $model, only base and big" >&2; exit 2 ;;
    esac
    say "$model on $gpus processes"
    read -ra batch <<< "$(share 32768 4096)"
    train "$model" -c "$recipe/s2s.yaml" "${batch[@]}" "${flags[@]}" ${limits[@]+"${limits[@]}"}
    after "$model" "$model/averaged" s2s average -m "$model" --best $best -o "$model/averaged"
    after "$model" "$model/test.hyp" s2s translate -m "$model/averaged" -i text/test.en -o "$model/test.hyp"
    systems+=("$model=$model/test.hyp,$model")
done
python3 "$root/recipes/results.py" "${systems[@]}" --src text/test.en --refs text/test.de --flags "--bleu --chrf --confidence"
