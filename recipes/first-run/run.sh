#!/usr/bin/env bash
# From nothing to a scored translation in under five minutes: makes an environment, makes a corpus, trains on it,
# translates, scores.      bash recipes/first-run/run.sh [WORK_DIR]
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$recipe/../.." && pwd)
work=${1:-$recipe/work}
case $work in
    -h | --help) sed -n '2,3s/^# //p' "$0"; exit 0 ;;
    -*) echo "run.sh: unknown option $work; the only argument is the folder for everything" >&2; exit 2 ;;
esac

bash "$root/recipes/setup.sh"
export PATH=$root/.venv/bin:$PATH
mkdir -p "$work"
cd "$work"
work=$PWD
[ -f s2s.yaml ] || cp "$recipe/s2s.yaml" .
step() { printf '\n== %s\n' "$*" >&2; "$@"; }

[ -f text/test.de ] || step python "$root/data/grammar.py" text # it writes test.de last
[ -f data-bin/dataset.json ] || step s2s preprocess
step s2s train
step s2s translate -i text/test.en -o test.hyp.de
step s2s score --bleu --chrf
S2S_RECIPE="bash recipes/first-run/run.sh" S2S_ORIGIN="made up by data/grammar.py" \
    python "$root/recipes/results.py" s2s=test.hyp.de,run --src text/test.en --refs text/test.de --flags "--bleu --chrf"

printf '\n== Three sentences that it never saw\n' >&2
head -n 3 text/test.en > three.en
s2s translate -i three.en -o three.de
paste -d '\n' <(sed 's/^/   /' three.en) <(sed 's/^/ → /' three.de)
cat >&2 <<TXT

The model is in $work/run, its settings are in $work/s2s.yaml. What to do next:
    cd "$work" && source "$root/.venv/bin/activate"
    echo "My brother thinks that the old woman has bought a dog." | s2s translate    # its words are in data/lexicon.py
    s2s config                                                                       # every setting, and where it comes from
    less "$root/recipes/multi30k/README.md"                                          # next: real text, image captions
TXT
