#!/usr/bin/env bash
# IWSLT14 German→English, lowercased and tokenized as published: the plain Transformer, and the same with R-Drop.
# Each step is skipped once it is done, so that an interrupted run goes on where it stopped.
#
#   bash recipes/iwslt14-de-en/run.sh [--smoke] [--data DIR] [--work DIR] [transformer|rdrop ...]
#
#   GPUS         processes of torchrun, one a GPU (default: as many GPUs as there are, else 1)
#   --smoke      under a minute, on text that is made up, to see that every step works
#   --data DIR   take the archive from a local copy (else $S2S_DATA, else it is downloaded)
#   --work DIR   where everything goes (default: work/ beside this script); --smoke adds -smoke to the name
set -euo pipefail
source "$(dirname "$0")/../common.sh"
count_gpus

[ ${#names[@]} -gt 0 ] || names=(transformer rdrop)
if ! python3 -c 'import sacremoses' 2> /dev/null; then
    echo "run.sh: sacremoses is not installed: bash recipes/setup.sh recipes" >&2
    exit 2
fi
limits=()
corpus=()
best=10
if $smoke; then
    S2S_DATA='' # too large to take a corner of
    corpus=(--vocab-size 500)
    limits=(--max-updates 4 --valid-every 2 --batch-tokens 512 --beam 1 --max-len 8 --dim 32 --ffn-dim 32
        --encoder-layers 1 --decoder-layers 1)
    best=2
fi
bring text/test.en iwslt14 text
tokenize() { python3 "$root/data/moses.py" --lang en --split-hyphens < "$1" > "$2.part" && mv "$2.part" "$2"; }

once data-bin/dataset.json s2s preprocess -c "$recipe/s2s.yaml" ${corpus[@]+"${corpus[@]}"}
once test.tok tokenize text/test.en test.tok
systems=()
for model in "${names[@]}"; do
    case $model in
        transformer) flags=() ;;
        rdrop) flags=(--consistency rdrop --max-epochs 150 --max-updates 300000) ;;
        *) echo "run.sh: there is no model $model, only transformer and rdrop" >&2; exit 2 ;;
    esac
    say "$model on $gpus processes"
    read -ra batch <<< "$(share 4096 4096)"
    train "$model" -c "$recipe/s2s.yaml" "${batch[@]}" ${flags[@]+"${flags[@]}"} ${limits[@]+"${limits[@]}"}
    after "$model" "$model/averaged" s2s average -m "$model" --best $best -o "$model/averaged"
    after "$model" "$model/test.hyp" s2s translate -m "$model/averaged" -i text/test.de -o "$model/test.hyp"
    after "$model" "$model/test.hyp.tok" tokenize "$model/test.hyp" "$model/test.hyp.tok"
    systems+=("$model=$model/test.hyp.tok,$model")
done
python3 "$root/recipes/results.py" "${systems[@]}" --src text/test.de --refs test.tok --flags "--bleu --tokenize none --confidence"
