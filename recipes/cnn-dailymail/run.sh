#!/usr/bin/env bash
# CNN/DailyMail at full scale, on GPUs through torchrun: the first three sentences, a pointer-generator, the same with coverage,
# and a Transformer with copy head. Each step is skipped once it is done, so that an interrupted run goes on where it stopped.
#
#   bash recipes/cnn-dailymail/run.sh [--smoke] [--data DIR] [--work DIR] [pointer|coverage|transformer ...]
#
#   GPUS         processes of torchrun, one a GPU (default: as many GPUs as there are, else 1)
#   --smoke      under a minute, on text that is made up, to see that every step works
#   --data DIR   take archives and lists from a local copy (else $S2S_DATA, else they are downloaded)
#   --work DIR   where everything goes (default: work/ beside this script); --smoke adds -smoke to the name
set -euo pipefail
source "$(dirname "$0")/../common.sh"
count_gpus

[ ${#names[@]} -gt 0 ] || names=(pointer coverage transformer)
limits=()
corpus=()
shorter=()
if $smoke; then
    S2S_DATA='' # too large to take a corner of
    corpus=(--vocab-size 500)
    limits=(--max-updates 4 --valid-every 4 --warmup 3 --batch-tokens 1024 --dim 32
        --encoder-layers 1 --decoder-layers 1)
    shorter=(--beam 1 --min-len 2 --max-len 8)
fi
bring text/test.tgt cnn_dailymail text
once data-bin/dataset.json s2s preprocess -c "$recipe/s2s.yaml" ${corpus[@]+"${corpus[@]}"}
once lead.hyp lead lead.hyp sentences 3 '<q>' < text/test.src # with the mark that sentences of summaries have
systems=(lead-3=lead.hyp)
lstm=(--preset rnn --cell lstm --emb-dim 128 --dim 512 --attention additive --head copy --dropout 0.1)
for model in "${names[@]}"; do
    case $model in
        pointer) flags=("${lstm[@]}" --lr 0.001 --warmup 1000) positions=16384 ;;
        coverage) # for a few thousand updates at the end, as in the paper: from the beginning it does harm
            flags=("${lstm[@]}" --coverage --coverage-loss 1 --init-from pointer --lr 0.0001 --warmup 100 --schedule constant
                --max-updates 4000 --valid-every 500) positions=16384
            if [ ! -f pointer.hyp ]; then
                echo "run.sh: coverage goes on from pointer, which is not trained: name both, pointer first" >&2
                exit 2
            fi ;;
        transformer) flags=(--preset base --head copy --dropout 0.2 --lr 0.0005) positions=32768 ;;
        *) echo "run.sh: there is no model $model, only pointer, coverage and transformer" >&2; exit 2 ;;
    esac
    say "$model on $gpus processes"
    read -ra batch <<< "$(share $positions 16384)"
    train "$model" -c "$recipe/s2s.yaml" "${batch[@]}" "${flags[@]}" ${limits[@]+"${limits[@]}"} ${shorter[@]+"${shorter[@]}"}
    after "$model" "$model.hyp" s2s translate -m "$model" -i text/test.src -o "$model.hyp" --max-src-len 512
    systems+=("$model=$model.hyp,$model")
    after "$model" "$model.blocked.hyp" s2s translate -m "$model" -i text/test.src -o "$model.blocked.hyp" --max-src-len 512 \
        --no-repeat-ngram 3 --may-repeat '<q>'
    systems+=("$model, no trigram twice=$model.blocked.hyp,$model")
done
python3 "$root/recipes/results.py" "${systems[@]}" --src text/test.src --refs text/test.tgt \
    --flags "--rouge --rouge-stem --rouge-split q --confidence --paired bootstrap"
