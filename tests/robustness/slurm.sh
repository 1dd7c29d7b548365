#!/usr/bin/env bash
# train.sh --slurm with a real SLURM: bash tests/robustness/slurm.sh, as root, in 3 minutes, with Debian's packages
# slurm-wlm and munge. The cluster is this machine alone and lives in a temporary folder; a SLURM that is already
# configured here is not touched. PYTHON names the interpreter, as for train.sh.
set -euo pipefail
root=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
PATH=$PATH:/usr/sbin
if [ "$(id -u)" != 0 ] || ! command -v munged slurmctld slurmd sbatch > /dev/null; then
    echo "slurm.sh: expected root, and the packages slurm-wlm and munge" >&2
    exit 2
fi
folder=$(mktemp -d)
export SLURM_CONF=$folder/slurm.conf

tear_down() {
    status=$?
    set +e
    scancel --user="$(id -u)"
    sleep 5
    for daemon in slurmd slurmctld munged; do
        [ -e "$folder/$daemon.pid" ] && kill "$(cat "$folder/$daemon.pid")"
    done
    [ $status = 0 ] || tail -n 20 "$folder"/*.log "$folder"/logs/*/train.log
    sleep 2
    rm -rf -- "$folder"
    [ $status = 0 ] && echo "-- all as expected" || echo "-- FAILED"
    exit $status
}
trap tear_down EXIT
chmod 711 "$folder"  # munge's socket is for everybody
mkdir "$folder/state" "$folder/spool" "$folder/configs"
head -c 1024 /dev/urandom > "$folder/munge.key"
chmod 400 "$folder/munge.key"
munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
cat > "$SLURM_CONF" << END
ClusterName=robustness
SlurmctldHost=$(hostname -s)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName=$(hostname -s) CPUs=2 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES
END
slurmctld
slurmd
until sinfo --noheader --format=%t | grep --quiet idle; do sleep 0.5; done

config() {  # NAME LINE ...
    printf '%s\n' "base = $root/configs/infonerf/sample.txt" "basedir = $folder/logs" "expname = $1" "${@:2}" \
        "N_rand = 32" "N_entropy = 32" "netwidth = 16" "netwidth_fine = 16" "i_weights = 20" "i_video = 0" \
        "device = cpu" > "$folder/configs/$1.txt"
}
ask() {  # asks again: what train.sh says is shown, and kept
    echo "-- $1"
    shift
    (cd "$folder" && bash "$root/train.sh" --slurm "$@") 2>&1 | tee "$folder/said"
}
expect() {  # NAME PATTERN: the run's line of the table
    grep --quiet --extended-regexp "^configs/$1.txt +$2" "$folder/said" || { echo "expected: $1 $2"; exit 1; }
}
wait_for() {  # COMMAND ...: until it succeeds
    for _ in $(seq 400); do "$@" > /dev/null 2>&1 && return; sleep 0.5; done
    echo "waited too long for: $*"
    exit 1
}
empty_queue() { [ -z "$(squeue --noheader)" ]; }
has_checkpoint() { ls "$folder/logs/$1/"0*.tar; }
task_of() { sed -n 's/.*"job": "\(.*\)".*/\1/p' "$folder/logs/$1/slurm.json"; }
started() { [ "$(grep -c "^== .* job $2 on" "$folder/logs/$1/train.log")" = "$3" ]; }

config short "N_iters = 60" "i_testset = 60"
config wrong "N_iters = 60" "i_testset = 60" "datadir = $folder/nowhere"
config long "N_iters = 2500" "i_testset = 2500"

if ask "sbatch refuses: one line, and nothing is left behind" "--partition nope" configs; then exit 1; fi
[ "$(wc -l < "$folder/said")" = 1 ] && [ ! -e "$folder/logs" ]

ask "the first time" "--time 10:00" configs
for name in short wrong long; do expect $name "submitted"; done
ask "at once again: nothing is submitted twice" "--time 10:00" configs
for name in short wrong long; do expect $name "(queued|running|completing)"; done

wait_for has_checkpoint long
scancel "$(task_of long)"
wait_for empty_queue
grep "SIGTERM: saved" "$folder/logs/long/train.log"
config wrong "N_iters = 60" "i_testset = 60"
ask "one has failed and is mended, one was cancelled" "--time 10:00" configs
expect short "done +60 of 60 +[0-9.]+ +[0-9.]+"
expect wrong "failed \(2\), submitted again +0 of 60"
expect long "stopped, submitted again +[1-9][0-9]* of 2500"

wait_for has_checkpoint wrong
task=$(task_of long)
wait_for started long "$task" 1
sleep 10
scontrol requeue "$task"  # as when it is preempted
sleep 5
ask "one is queued again by SLURM" "--time 10:00" configs
expect long "(completing|queued)"
wait_for scontrol update JobId="$task" StartTime=now  # SLURM waits for two minutes
wait_for started long "$task" 2
wait_for empty_queue
ask "all are done" "--time 10:00" configs
for name in short wrong; do expect $name "done +60 of 60 +[0-9.]+ +[0-9.]+"; done
expect long "done +2500 of 2500 +[0-9.]+ +[0-9.]+"

config timed "N_iters = 1000000" "i_testset = 0"
ask "a time limit" "--time 2:00" configs/timed.txt
wait_for empty_queue
grep "SIGTERM: saved" "$folder/logs/timed/train.log"
ask "and again" "--time 2:00" configs/timed.txt
expect timed "stopped, submitted again +[1-9][0-9]* of 1000000 +- +[0-9.]+"
echo "-- the log of the run that was cancelled, and queued again"
grep --only-matching "== 2.*\|going on from .*\|SIGTERM: saved.*\|done: .*" \
    "$folder/logs/long/train.log"
[ "$(grep --count "SIGTERM: saved" "$folder/logs/long/train.log")" = 2 ]
[ "$(grep --count "going on from" "$folder/logs/long/train.log")" = 2 ]
