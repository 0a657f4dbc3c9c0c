#!/usr/bin/env bash
# Debian's package descriptions, English to German: from the package indexes to a table of scores.
# Each step is skipped once it is done, so that an interrupted run goes on where it stopped.
#
#   bash recipes/debian-mt/run.sh [--smoke] [--data DIR] [--work DIR] [transformer|copy|both ...]
#
#   transformer  English to German
#   copy         the same with a copy head: names of programs, files and options stand in both languages
#   both         one model for both directions; a tag before the source says which
#   --smoke      under a minute, to see that every step works: on a corner of a local copy, else on text that is made up
#   --data DIR   take the corpus from a local copy (else $S2S_DATA, else it is made from Debian's package indexes)
#   --work DIR   where everything goes (default: work/ beside this script); --smoke adds -smoke to the name
#
# SUITES="bookworm trixie sid" makes the corpus of more than bookworm; LISTS=/var/lib/apt/lists of what apt has fetched.
set -euo pipefail
source "$(dirname "$0")/../common.sh"

[ ${#names[@]} -gt 0 ] || ! $smoke || names=(copy both)
[ ${#names[@]} -gt 0 ] || names=(transformer copy both)
text=text
limits=()
corpus=()
best=4
# shellcheck disable=SC2086 # several suites are several arguments
bring text/test.ids debian text --task translation ${SUITES:+--suite $SUITES} ${LISTS:+--lists "$LISTS"}
if $smoke; then
    text=corner
    mkdir -p $text
    for side in en de; do
        head -n 1500 "text/train.$side" > "$text/train.$side"
        for part in val test; do head -n 10 "text/$part.$side" > "$text/$part.$side"; done
    done
    limits=(--max-updates 4 --valid-every 2 --warmup 3 --batch-tokens 512 --beam 1 --max-len 8 --dim 64)
    corpus=(--vocab-size 1000)
    best=2
fi

files() { echo --train-src $text/train.$1 --train-tgt $text/train.$2 --valid-src $text/val.$1 --valid-tgt $text/val.$2 --test-src $text/test.$1; }

# shellcheck disable=SC2046 # the words of files are arguments
once data-bin/dataset.json s2s preprocess -c "$recipe/s2s.yaml" $(files en de) ${corpus[@]+"${corpus[@]}"}
to_german=()
to_english=()
for name in "${names[@]}"; do
    data=data-bin
    flags=()
    case $name in
        transformer) ;;
        copy) flags=(--head copy) ;;
        both)
            data=data-both
            # shellcheck disable=SC2046
            once data-both/dataset.json s2s preprocess -c "$recipe/s2s.yaml" -o data-both --src-vocab data-bin \
                $(files en de) --tag '<2de>' --valid-tag '<2de>' $(files de en) --tag '<2en>' --valid-tag '<2en>' \
                ${corpus[@]+"${corpus[@]}"}
            ;;
        *) echo "run.sh: there is no model $name, only transformer, copy, both" >&2; exit 2 ;;
    esac
    say "$name"
    train "$name" -c "$recipe/s2s.yaml" --data $data ${flags[@]+"${flags[@]}"} ${limits[@]+"${limits[@]}"}
    after "$name" "$name/averaged" s2s average -m "$name" --best $best -o "$name/averaged"
    to_german+=("$name=$name/test.hyp.de,$name")
    if [ "$name" = both ]; then
        sed 's/^/<2de> /' $text/test.en > both/test.en
        sed 's/^/<2en> /' $text/test.de > both/test.de
        after both both/test.hyp.de s2s translate -m both/averaged -i both/test.en -o both/test.hyp.de
        after both both/test.hyp.en s2s translate -m both/averaged -i both/test.de -o both/test.hyp.en
        to_english=("both=both/test.hyp.en,both")
    else
        after "$name" "$name/test.hyp.de" s2s translate -m "$name/averaged" -i $text/test.en -o "$name/test.hyp.de"
    fi
done
flags="--bleu --chrf --ter --confidence --paired bootstrap"
say "English to German; the first row copies the source"
python3 "$root/recipes/results.py" source=$text/test.en "${to_german[@]}" --src $text/test.en --refs $text/test.de \
    --flags "$flags" --pairs copy:transformer both:transformer both:copy
[ ${#to_english[@]} -eq 0 ] || {
    say "German to English"
    python3 "$root/recipes/results.py" source=$text/test.de "${to_english[@]}" --src $text/test.de --refs $text/test.en \
        --flags "$flags" --output results.to-english.json
}
