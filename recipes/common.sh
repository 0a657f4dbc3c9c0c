# Sourced by the run.sh of a recipe with its arguments. Sets
#   recipe, root, work   this recipe's folder, the checkout's, and the one where everything goes, which becomes the current one
#   smoke                true or false
#   names                the arguments that are no options: which parts of the recipe to run
#   from                 --from DIR for a script of data/, if --data was given
# and offers `once FILE COMMAND...`, which runs a command unless the file that it makes is there, `after RUN FILE COMMAND...`, which
# also runs it where the run has been trained further since, `bring`, which makes a corpus be there, `train`, and `say`.
# Options of every recipe:
#   --smoke      under a minute, to see that every step works: on a corner of a local copy, else on text that is made up
#   --data DIR   take the data from this local copy alone (else from $S2S_DATA what is there; else it is downloaded)
#   --work DIR   where everything goes (default: work/ beside run.sh); --smoke adds -smoke to the name

recipe=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
root=$(cd "$recipe/../.." && pwd)
work=$recipe/work
smoke=false
names=()
from=()
gpus=1

say() { printf '\n== %s\n' "$*" >&2; }

once() {
    [ ! -e "$1" ] || return 0
    shift
    say "$@"
    "$@"
}

after() {
    [ ! "$2" -nt "$1/last/training/state.json" ] || return 0
    shift 2
    say "$@"
    "$@"
}

# Makes a corpus by its script of data/, unless FILE is there, or for no FILE anyhow, since some of them verify what is there.
# Without a local copy, smoke runs have a stand-in. Where it is from goes into results.json.
bring() { # FILE CORPUS FOLDER [FLAGS...]
    if [ ! -f "$1" ]; then
        if $smoke && [ -z "${S2S_DATA:-}" ]; then
            python3 "$root/data/standin.py" "${@:2}"
        else
            python3 "$root/data/$2.py" "${@:3}" ${from[@]+"${from[@]}"}
        fi
    fi
    S2S_ORIGIN=$(cat "$3/origin.txt" 2> /dev/null || true)
    export S2S_ORIGIN
}

# Trains a run, on several processes after `count_gpus`; the run's folder has the commit that it was begun with, for results.json.
train() { # RUN FLAGS...
    mkdir -p "$1"
    [ -e "$1/last" ] || (cd "$root/recipes" && python3 -c 'import results; print(results.commit())') > "$1/commit"
    distributed train --run "$@"
}

# The beginning of each text of standard input, as summarization/lead.py gives it, in a file.
lead() { # FILE UNIT NUM [MARK]
    python3 "$root/recipes/summarization/lead.py" "${@:2}" > "$1.part" && mv "$1.part" "$1"
}

while [ $# -gt 0 ]; do
    case $1 in
        --smoke) smoke=true ;;
        --data) S2S_DATA=$(cd "${2:?--data needs a folder}" && pwd); export S2S_DATA; from=(--from "$S2S_DATA"); shift ;;
        --work) work=${2:?--work needs a folder}; work=${work%/}; shift ;;
        -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$recipe/run.sh"; exit 0 ;;
        -*) echo "run.sh: unknown option $1; bash recipes/${recipe##*/}/run.sh --help lists them" >&2; exit 2 ;;
        *) names+=("$1") ;;
    esac
    shift
done
# results.json says how it was made, but not which folders it was made in
variables="${GPUS:+GPUS=$GPUS }${SUITES:+SUITES='$SUITES' }"
S2S_RECIPE="${variables}bash recipes/${recipe##*/}/run.sh$(! $smoke || echo ' --smoke')${names[*]+ ${names[*]}}"
export S2S_RECIPE
[ -z "${S2S_DATA:-}" ] || S2S_DATA=$(cd "$S2S_DATA" && pwd) # the current folder changes below
[ ! -x "$root/.venv/bin/s2s" ] || PATH=$root/.venv/bin:$PATH
if ! command -v s2s > /dev/null || ! python3 -c 'import s2s_cli' 2> /dev/null; then
    echo "run.sh: s2s is not installed: bash recipes/setup.sh recipes" >&2
    exit 2
fi

$smoke && work=$work-smoke
mkdir -p "$work"
cd "$work"
work=$PWD

# For recipes that train on several GPUs: `count_gpus` sets gpus to GPUS, or to the number of those that torch sees, or to 1;
# `distributed COMMAND...` runs a command of s2s on as many processes; and `share POSITIONS MOST` gives the flags by which an
# update has so many positions, however many processes there are, and none of them reads more than MOST of them at once.
count_gpus() {
    gpus=${GPUS:-$(python3 -c 'import torch; print(torch.cuda.device_count() or 1)')}
    case $gpus in
        '' | 0* | *[!0-9]*) echo "run.sh: GPUS is $gpus, but should be a number from 1 on" >&2; exit 2 ;;
    esac
}

share() {
    local times=$((($1 + $2 * gpus - 1) / ($2 * gpus)))
    echo "--accumulate $times --batch-tokens $(($1 / (times * gpus)))"
}

distributed() {
    if [ "$gpus" -gt 1 ]; then
        torchrun --standalone --nproc-per-node "$gpus" -m -- s2s_cli "$@" # without --, torchrun takes our --run for its own
    else
        s2s "$@"
    fi
}
