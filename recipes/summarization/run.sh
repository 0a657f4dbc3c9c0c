#!/usr/bin/env bash
# Summarization from scratch on two sets: the beginning of the text, an LSTM with attention, a pointer-generator, the same
# with coverage, a Transformer with copy head, and that Transformer after denoising pre-training on the unlabelled side.
# Each step is skipped once it is done, so that an interrupted run goes on where it stopped.
#
#   bash recipes/summarization/run.sh [--smoke] [--data DIR] [--work DIR] [debian|dialogsum ...] [MODEL ...]
#
#   MODEL        lstm, pointer, coverage (which goes on from pointer), transformer, pretrained (default: all); what is there
#                from before is in the table too
#   --smoke      about a minute, to see that every step works: on a corner of a local copy, else on text that is made up
#   --data DIR   take the text from a local copy (else $S2S_DATA, else it is downloaded)
#   --work DIR   where everything goes (default: work/ beside this script); --smoke adds -smoke to the name
#
# SUITES="bookworm trixie sid" makes the Debian set of more than bookworm; LISTS=/var/lib/apt/lists of what apt has fetched.
set -euo pipefail
source "$(dirname "$0")/../common.sh"

sets=()
models=()
for name in ${names[@]+"${names[@]}"}; do
    case $name in
        debian | dialogsum) sets+=("$name") ;;
        lstm | pointer | coverage | transformer | pretrained) models+=("$name") ;;
        *) echo "run.sh: $name is neither a set nor a model of this recipe" >&2; exit 2 ;;
    esac
done
[ ${#models[@]} -gt 0 ] || ! $smoke || models=(pointer coverage pretrained)
[ ${#models[@]} -gt 0 ] || models=(lstm pointer coverage transformer pretrained)
limits=()
corpus=()
num=1000000
if $smoke; then
    sets=("${sets[0]:-debian}")
    limits=(--max-updates 4 --valid-every 4 --batch-tokens 1024 --beam 1 --max-len 12 --warmup 3 --dim 64)
    corpus=(--vocab-size 1000)
    num=30
fi
[ ${#sets[@]} -gt 0 ] || sets=(debian dialogsum)

# How the models differ: a name of the table, then flags.
shape() {
    local lstm=(--preset rnn --cell lstm --emb-dim 128 --dim 256 --dropout 0.3)
    local transformer=(--preset tiny --ffn-dim 512 --head copy --lr 0.003)
    case $1 in
        lstm) echo "${lstm[@]}" ;;
        pointer) echo "${lstm[@]} --head copy" ;;
        coverage) echo "${lstm[@]} --head copy --coverage --coverage-loss 1 --init-from $2/pointer --lr 0.0003 --max-epochs 3" ;;
        transformer) echo "${transformer[@]}" ;;
        pretrain) echo "${transformer[@]} --denoise infill --denoise-rate 0.3 --permute-sentences --valid-metric loss --max-epochs 6 --warmup 500" ;;
        pretrained) echo "${transformer[@]} --lr 0.001 --init-from $2/pretrain/last" ;;
    esac
}

fit() { # SET MODEL
    local flags
    read -ra flags <<< "$(shape "$2" "$1")"
    train "$1/$2" -c "$recipe/$1.yaml" --data "$1/data-bin" "${flags[@]}" "${@:3}" ${limits[@]+"${limits[@]}"}
}

for set in "${sets[@]}"; do
    mkdir -p "$set"
    refs=()
    case $set in
        debian)
            # shellcheck disable=SC2086 # several suites are several arguments
            bring text/debian/test.ids debian text/debian --task summaries ${SUITES:+--suite $SUITES} ${LISTS:+--lists "$LISTS"}
            once debian/lead.hyp.full lead debian/lead.hyp.full sentences 1 < text/debian/test.src
            refs=(tgt)
            flags="--rouge --rouge-stem"
            ;;
        dialogsum)
            bring text/dialogsum/test.ref3 dialogsum text/dialogsum
            once dialogsum/lead.hyp.full lead dialogsum/lead.hyp.full turns 3 < text/dialogsum/test.src
            refs=(ref1 ref2 ref3)
            flags="--rouge --rouge-stem --rouge-multi-ref mean --rouge-split sentence"
            ;;
    esac
    # a smoke run sees a corner of the text
    for end in src "${refs[@]}"; do head -n $num "text/$set/test.$end" > "$set/test.$end"; done
    head -n $num "$set/lead.hyp.full" > "$set/lead.hyp"
    if $smoke; then
        for side in src tgt; do
            head -n 600 "text/$set/train.$side" > "$set/train.$side"
            head -n 20 "text/$set/val.$side" > "$set/val.$side"
        done
        corpus+=(--train-src "$set/train.src" --train-tgt "$set/train.tgt" --valid-src "$set/val.src" --valid-tgt "$set/val.tgt")
    fi
    once "$set/data-bin/dataset.json" s2s preprocess -c "$recipe/$set.yaml" -o "$set/data-bin" ${corpus[@]+"${corpus[@]}"}
    for model in "${models[@]}"; do
        [ ! -f "$set/$model.hyp" ] || continue
        say "$set: $model"
        if [ "$model" = coverage ] && [ ! -f "$set/pointer.hyp" ]; then
            echo "run.sh: coverage goes on from pointer, which is not trained: name both, pointer first" >&2
            exit 2
        fi
        if [ "$model" = pretrained ]; then
            src=text/$set
            ! $smoke || src=$set
            once "$set/unlabelled/dataset.json" s2s preprocess -c "$recipe/$set.yaml" -o "$set/unlabelled" \
                --train-src "$src/train.src" --train-tgt "$src/train.src" --valid-src "$src/val.src" --valid-tgt "$src/val.src" \
                --src-vocab "$set/data-bin" --tgt-truncate 256
            fit "$set" pretrain --data "$set/unlabelled"
        fi
        fit "$set" "$model"
        s2s translate -m "$set/$model" -i "$set/test.src" -o "$set/$model.hyp"
    done
    # what search does to the last model's summaries: blocked repetition, length, how much of the source is read
    variant() { # NAME FLAGS...
        once "$set/$model.$1.hyp" s2s translate -m "$set/$model" -i "$set/test.src" -o "$set/$model.$1.hyp" "${@:2}"
    }
    variant no-trigram-twice --no-repeat-ngram 3
    $smoke || {
        variant no-length-penalty --length-penalty none
        variant twice-the-length-penalty --alpha 2
        variant first-64-pieces --max-src-len 64
    }
    # the table has all that is there
    systems=("lead=$set/lead.hyp")
    there=()
    for model in lstm pointer coverage transformer pretrained; do
        [ ! -f "$set/$model.hyp" ] || there+=("$model")
        runs=$set/$model
        [ "$model" != pretrained ] || runs+=,$set/pretrain
        for hyp in "$set/$model".hyp "$set/$model".*.hyp; do
            name=${hyp#"$set/"}
            name=${name%.hyp}
            [ ! -f "$hyp" ] || systems+=("${name/./, }=$hyp,$runs")
        done
    done
    refs=("${refs[@]/#/$set/test.}")
    # what each step is worth: to copy, to know what was attended to, to have been a denoiser; and the two architectures
    pairs=(pointer:lstm coverage:pointer transformer:lstm transformer:pointer pretrained:transformer pretrained:coverage
        "pretrained, no-trigram-twice:coverage, no-trigram-twice")
    S2S_RECIPE="${variables}bash recipes/summarization/run.sh$(! $smoke || echo ' --smoke') $set ${there[*]}" \
        python3 "$root/recipes/results.py" "${systems[@]}" --src "$set/test.src" --refs "${refs[@]}" \
        --flags "$flags --confidence --paired randomization" --pairs "${pairs[@]}" --output "$set.results.json"
done
