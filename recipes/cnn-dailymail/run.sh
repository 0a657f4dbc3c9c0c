#!/usr/bin/env bash
# CNN/DailyMail at full scale, on GPUs through torchrun: the first three sentences, a pointer-generator with coverage, and a
# Transformer with copy head. Each step is skipped once it is done, so that an interrupted run goes on where it stopped.
#
#   bash recipes/cnn-dailymail/run.sh [--smoke] [--work DIR] [pointer|transformer ...]
#
#   GPUS         processes of torchrun, one a GPU (default: as many GPUs as there are, else 1)
#   --smoke      under a minute, on stories made of data/grammar.py's sentences, to see that every step works
#   --work DIR   where everything goes (default: work/ beside this script); --smoke adds -smoke to the name
set -euo pipefail
source "$(dirname "$0")/../common.sh"

[ ${#names[@]} -gt 0 ] || names=(pointer transformer)
limits=()
corpus=()
shorter=()
if $smoke; then
    python3 "$root/data/grammar.py" made --train 1200 --valid 40 --test 40
    mkdir -p text
    for part in train valid test; do # stories of four sentences; the first and the third are the summary
        paste -d ' ' - - - - < "made/$part.en" > "text/${part/valid/val}.src"
        awk 'NR % 4 == 1 { first = $0 } NR % 4 == 3 { print first, "<q>", $0 }' "made/$part.en" > "text/${part/valid/val}.tgt"
    done
    corpus=(--vocab-size 500)
    limits=(--max-updates 4 --valid-every 4 --batch-tokens 1024 --dim 32)
    shorter=(--beam 1 --min-len 2 --max-len 8)
else
    [ -f text/test.tgt ] || python3 "$root/data/cnn_dailymail.py" text
fi
once data-bin/dataset.json s2s preprocess -c "$recipe/s2s.yaml" ${corpus[@]+"${corpus[@]}"}
# sentences of the lead get the mark that those of summaries have
once lead.hyp sh -c "python3 '$root/recipes/summarization/lead.py' sentences 3 < text/test.src | sed 's/\([.!?]\) \+/\1 <q> /g' > lead.hyp"
systems=(lead-3=lead.hyp)
for model in "${names[@]}"; do
    case $model in
        pointer) flags=(--preset rnn --cell lstm --emb-dim 128 --dim 512 --attention additive --head copy --coverage
            --coverage-loss 1 --dropout 0.1 --lr 0.001 --warmup 1000) ;;
        transformer) flags=(--preset base --head copy --dropout 0.2 --lr 0.0005 --accumulate 2) ;;
        *) echo "run.sh: there is no model $model, only pointer and transformer" >&2; exit 2 ;;
    esac
    say "$model on $gpus processes"
    distributed train -c "$recipe/s2s.yaml" --run "$model" "${flags[@]}" ${limits[@]+"${limits[@]}"} ${shorter[@]+"${shorter[@]}"}
    once "$model.hyp" s2s translate -m "$model" -i text/test.src -o "$model.hyp" --max-src-len 512
    systems+=("$model=$model.hyp,$model")
    once "$model.blocked.hyp" s2s translate -m "$model" -i text/test.src -o "$model.blocked.hyp" --max-src-len 512 \
        --no-repeat-ngram 3 --may-repeat '<q>'
    systems+=("$model, no trigram twice=$model.blocked.hyp,$model")
done
python3 "$root/recipes/results.py" "${systems[@]}" --refs text/test.tgt \
    --flags "--rouge --rouge-stem --rouge-split q --confidence --paired bootstrap"
