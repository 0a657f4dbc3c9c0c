#!/usr/bin/env bash
# Response generation: the system's next turn in service dialogues, by an LSTM with attention and by a Transformer.
# Each step is skipped once it is done, so that an interrupted run goes on where it stopped. Then talk to the model:
#   cd recipes/dialogue && ../../.venv/bin/python chat.py work/transformer
#
#   bash recipes/dialogue/run.sh [--smoke] [--data DIR] [--work DIR] [lstm|transformer ...]
#
#   --smoke      under a minute, to see that every step works: on a corner of a local copy, else on text that is made up
#   --data DIR   take the dialogues from a local copy (else $S2S_DATA, else they are downloaded)
#   --work DIR   where everything goes (default: work/ beside this script); --smoke adds -smoke to the name
set -euo pipefail
source "$(dirname "$0")/../common.sh"

[ ${#names[@]} -gt 0 ] || ! $smoke || names=(lstm)
[ ${#names[@]} -gt 0 ] || names=(lstm transformer)
text=text
limits=()
corpus=()
bring text/test.tgt sgd text
if $smoke; then
    text=corner
    mkdir -p $text
    for side in src tgt; do
        head -n 1000 "text/train.$side" > "$text/train.$side"
        for part in val test; do head -n 10 "text/$part.$side" > "$text/$part.$side"; done
    done
    limits=(--max-updates 4 --valid-every 2 --warmup 3 --batch-tokens 512 --beam 1 --max-len 8 --dim 64)
    corpus=(--vocab-size 1000 --train-src $text/train.src --train-tgt $text/train.tgt
        --valid-src $text/val.src --valid-tgt $text/val.tgt --test-src $text/test.src)
fi

once data-bin/dataset.json s2s preprocess -c "$recipe/s2s.yaml" ${corpus[@]+"${corpus[@]}"}
for model in "${names[@]}"; do
    case $model in
        lstm) flags=(--preset rnn --cell lstm --lr 0.001) ;;
        transformer) flags=(--preset tiny --ffn-dim 512 --lr 0.003) ;;
        *) echo "run.sh: there is no model $model, only lstm and transformer" >&2; exit 2 ;;
    esac
    say "$model"
    train "$model" -c "$recipe/s2s.yaml" "${flags[@]}" ${limits[@]+"${limits[@]}"}
    # the likeliest answer; answers by chance, from all words and from the likely ones; the one that most samples are like
    after "$model" "$model/beam.hyp" s2s translate -m "$model" -i $text/test.src -o "$model/beam.hyp"
    after "$model" "$model/sampled.hyp" s2s translate -m "$model" -i $text/test.src -o "$model/sampled.hyp" --samples 1
    after "$model" "$model/top-p.hyp" s2s translate -m "$model" -i $text/test.src -o "$model/top-p.hyp" --samples 1 --top-p 0.9
    after "$model" "$model/mbr.hyp" s2s translate -m "$model" -i $text/test.src -o "$model/mbr.hyp" --samples 16 --mbr chrf
    # how likely the model finds the answers that were really given
    after "$model" "$model/forced.tsv" s2s translate -m "$model" -i $text/test.src --force $text/test.tgt --format tsv -o "$model/forced.tsv"
done
python3 "$recipe/report.py" $text "${names[@]}"
