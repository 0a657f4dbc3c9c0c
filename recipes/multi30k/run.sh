#!/usr/bin/env bash
# Multi30k English→German, from the public text to a table of scores: the history of the field, a model regularised for so
# small a set, and ensembles of seeds. Each step is skipped once it is done, so that an interrupted run goes on where it
# stopped; rows can be started one by one, and what is there is in the table.
#
#   bash recipes/multi30k/run.sh [--smoke] [--data DIR] [--work DIR] [MODEL ...] [SEED ...]
#
#   MODEL        rnn-basic, rnn, rnn-luong, rnn-bahdanau, transformer, lowercased (a transformer that need not learn case),
#                wide (lowercased, but larger, with BPE-dropout), rdrop (the same with R-Drop), regularised (which goes on from
#                lowercased; the two, and with wide all three, also make an ensemble) (default: all)
#   SEED         numbers (default: 1); more than one also make an ensemble
#   --smoke      about a minute, to see that every step works: on a corner of a local copy, else on text that is made up
#   --data DIR   take the text from a local copy (else $S2S_DATA, else it is downloaded)
#   --work DIR   where everything goes (default: work/ beside this script); --smoke adds -smoke to the name
set -euo pipefail
source "$(dirname "$0")/../common.sh"

models=()
seeds=()
for name in ${names[@]+"${names[@]}"}; do
    case $name in
        rnn-basic | rnn | rnn-luong | rnn-bahdanau | transformer | lowercased | wide | rdrop | regularised) models+=("$name") ;;
        *[!0-9]*) echo "run.sh: $name is no model of this recipe, and no seed" >&2; exit 2 ;;
        *) seeds+=("$name") ;;
    esac
done
if ! python3 -c 'import sacremoses' 2> /dev/null; then
    echo "run.sh: sacremoses is not installed: bash recipes/setup.sh recipes" >&2
    exit 2
fi

bring "" multi30k text
corpus=() # what a smoke run changes
limits=()
num=1000
if $smoke; then
    [ ${#models[@]} -gt 0 ] || models=(lowercased regularised)
    for side in en de; do
        head -n 1000 "text/train.$side" > "train.$side"
        head -n 20 "text/val.$side" > "val.$side"
    done
    corpus=(--train-src train.en --train-tgt train.de --valid-src val.en --valid-tgt val.de --vocab-size 1000)
    limits=(--max-updates 4 --valid-every 2 --warmup 3 --batch-tokens 512 --beam 1 --max-len 8 --dim 64)
    num=10
fi
for end in en de lc.norm.tok.de; do head -n $num "text/test_2016_flickr.$end" > "test.$end"; done
[ ${#seeds[@]} -gt 0 ] || seeds=(1)
[ ${#models[@]} -gt 0 ] || models=(rnn-basic rnn rnn-luong rnn-bahdanau transformer lowercased wide rdrop regularised)

for model in "${models[@]}"; do
    config=$recipe/s2s.yaml
    data=data-bin
    flags=()
    last=10 # checkpoints that are averaged
    case $model in
        rnn*) config=$recipe/rnn.yaml; flags=(--preset "$model"); last=4 ;;
        lowercased | regularised) config=$recipe/$model.yaml; data=data-lowercased ;;
        wide | rdrop) config=$recipe/$model.yaml; data=data-lowercased; last=4 ;;
    esac
    ! $smoke || last=2
    once $data/dataset.json s2s preprocess -c "$recipe/s2s.yaml" -o $data ${corpus[@]+"${corpus[@]}"} \
        $([ $data = data-bin ] || echo --lowercase)
    bundles=()
    for seed in "${seeds[@]}"; do
        run=$model/seed$seed
        if [ $model = regularised ]; then
            flags=(--init-from "lowercased/seed$seed/averaged")
            if [ ! -d "lowercased/seed$seed/averaged" ]; then
                echo "run.sh: regularised goes on from lowercased, which was not trained with seed $seed: name both" >&2
                exit 2
            fi
        fi
        bundles+=(-m "$run/averaged")
        [ ! -f "$run/averaged.hyp" ] || continue
        say "$model, seed $seed"
        train "$run" -c "$config" --data $data --seed "$seed" ${flags[@]+"${flags[@]}"} ${limits[@]+"${limits[@]}"}
        [ -d "$run/averaged" ] || s2s average -m "$run" --last $last -o "$run/averaged"
        s2s translate -m "$run/best" -i test.en -o "$run/best.hyp"
        s2s translate -m "$run/averaged" -i test.en -o "$run/averaged.hyp"
    done
    ensemble=$model/ensemble-$(IFS=-; echo "${seeds[*]}").hyp
    [ ${#seeds[@]} -eq 1 ] || once "$ensemble" s2s translate "${bundles[@]}" -i test.en -o "$ensemble"
done
for seed in "${seeds[@]}"; do
    plain=lowercased/seed$seed/averaged
    regularised=regularised/seed$seed/averaged
    wide=wide/seed$seed/averaged
    both=regularised/mixed-$seed.hyp
    three=wide/mixed-$seed.hyp
    [ -d "$plain" ] && [ -d "$regularised" ] || continue
    once "$both" s2s translate -m "$plain" -m "$regularised" -i test.en -o "$both"
    [ ! -d "$wide" ] || once "$three" s2s translate -m "$plain" -m "$regularised" -m "$wide" -i test.en -o "$three"
done
for hyp in */*.hyp */*/*.hyp; do
    [ ! -f "$hyp" ] || once "$hyp.tok" sh -c "python3 '$root/data/moses.py' --lang de < '$hyp' > '$hyp.part' && mv '$hyp.part' '$hyp.tok'"
done
python3 "$recipe/report.py"
