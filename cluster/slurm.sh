#!/usr/bin/env bash
# One Ray for one Slurm allocation; ends with the run, and goes on by itself after a preemption or the time limit.
#   make setup                                    # once, in the project's folder, which all nodes see
#   sbatch cluster/slurm.sh train data.root=/data/iHarmony4 run.name=first model.name=ptc_dih scale.workers=2 scale.gpus_per_worker=1
#   sbatch --nodes=4 --qos=preemptible cluster/slurm.sh tune search_spaces/gated.yaml data.root=/data/iHarmony4 --resume
#   scancel --batch --signal=TERM JOB             # save a checkpoint and wait in the queue; scancel JOB: end
# Costs what the nodes cost; Ray is up within a minute. Data, runs and packs: the project's folder, or NRH_STORAGE (a folder
# that all nodes see, or s3://BUCKET/PREFIX) set where sbatch is called. Words with blanks need no second quoting here.
# Ray's own logs stay on each node, in /tmp/nrh-JOB, or in $SLURM_TMPDIR where the site has one.
#SBATCH --job-name=nrh
#SBATCH --output=nrh-%j.log
# After a preemption the same job, with the same number and the same command, appends to the same log.
#SBATCH --requeue
#SBATCH --open-mode=append
# Two nodes of one GPU; one task a node starts Ray there. 8 CPUs and 28 GB are what is usual beside a GPU of 24 GB.
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=28G
# A day: short enough for most queues, and what is not done by then goes on in the next one.
#SBATCH --time=24:00:00
# TERM to this script alone, two minutes before the end: a checkpoint takes seconds, an upload of it to S3 perhaps one.
#SBATCH --signal=B:TERM@120
set -euo pipefail
[ $# -gt 0 ] || { echo "what shall be run? sbatch cluster/slurm.sh VERB ..." >&2; exit 1; }
cd "${SLURM_SUBMIT_DIR:?this is for sbatch: sbatch cluster/slurm.sh VERB ...}"
project=${NRH_PROJECT:-$PWD}
export PATH="${NRH_VENV:-$project/.venv}/bin:$PATH"
export NRH_CACHE="${NRH_CACHE:-$project/.cache}"

# A token of this start alone, which only its owner reads.
own="$PWD/.nrh-$SLURM_JOB_ID"
(umask 077 && mkdir -p "$own" && od -An -tx1 -N32 /dev/urandom | tr -d ' \n' > "$own/token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$own/token" RAY_USAGE_STATS_ENABLED=0

# The address by which the other nodes know this one, the first of the allocation.
address=$(getent ahostsv4 "$SLURMD_NODENAME" | awk '$1 !~ /^127/ {print $1; exit}')
[ -n "$address" ] || address=$(hostname -I | awk '{print $1}')
# Ports of the job's own, outside those of Ray's workers (10002-19999): two jobs may share a node.
port=$((20000 + SLURM_JOB_ID % 1200 * 10))
export RAY_ADDRESS="$address:$port"
# Ray's workers talk through the interface of that address.
GLOO_SOCKET_IFNAME=$(ip -o -4 address show | awk -v own="$address" '{split($4, part, "/")} part[1] == own {print $2; exit}')
export GLOO_SOCKET_IFNAME

export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"  # srun takes it over from sbatch in some versions only
per_node=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --disable-usage-stats --block
    --temp-dir="${SLURM_TMPDIR:-/tmp}/nrh-$SLURM_JOB_ID" --dashboard-agent-listen-port=$((port + 3)))
started=()
finish() { # whatever ends this script: Ray ends with it, and the token
    for one in "${started[@]}"; do kill "$one" 2> /dev/null || true; done
    rm -rf "$own"
    wait || true
}
is_running() { scontrol show job "$SLURM_JOB_ID" | grep -q JobState=RUNNING; }
trap finish EXIT

srun --overlap --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" ray start --head --node-ip-address="$address" --port="$port" \
    --dashboard-host=127.0.0.1 --dashboard-port=$((port + 1)) --ray-client-server-port=$((port + 2)) "${per_node[@]}" &
started+=($!)
for _ in $(seq 120); do
    (: < "/dev/tcp/$address/$port") 2> /dev/null && break
    kill -0 "${started[0]}" 2> /dev/null || { echo "Ray's head ended; its reason is above" >&2; exit 1; }
    sleep 1
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$SLURMD_NODENAME" \
        ray start --address="$RAY_ADDRESS" "${per_node[@]}" &
    started+=($!)
fi

python "$project/cluster/job.py" "$@" &
driver=$!
started+=("$driver")
asked=
# A job that is cancelled has lost its Ray already: there is nothing to save with.
trap 'is_running || exit 143; asked=yes; kill -TERM "$driver" 2> /dev/null || true' TERM
code=0
wait "$driver" || code=$?
if [ -n "$asked" ]; then # the signal ended the first wait
    code=0
    wait "$driver" || code=$?
fi
if [ -n "$asked" ] && [ "$code" -ne 0 ] && is_running; then
    echo "asked to stop: the job waits in the queue and goes on from its checkpoint"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
