#!/bin/bash
# Train on several nodes under Slurm, and go on after preemption, a time limit or a lost node:
#
#     sbatch docs/slurm.sh --recipe imagenet-tiny --data /data/imagenet --output /shared/runs/tiny
#
# What follows the name of the script are the settings of v2m train; --output is needed, in a folder that all
# nodes see. The environment with v2m must be active where sbatch is called.
#SBATCH --job-name=v2m
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=v2m-%j.log
set -u

case " $* " in
    *" --output"[\ =]*) ;;
    *) echo "slurm.sh: --output is missing, a requeued job would not find its run" >&2; exit 2 ;;
esac

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
stopped=""

# Three minutes before the end of the time (USR1) or at preemption (TERM), training is asked to save where it is.
# Only the steps of the job get the signal, not this script.
# shellcheck disable=SC2317 # it is what the traps call
stop() {
    [ -z "$stopped" ] || return 0
    stopped=$1
    echo "slurm.sh: $1, training is asked to save and stop"
    scancel --signal=TERM "$SLURM_JOB_ID"
}
trap 'stop "the time is nearly over"' USR1
trap 'stop "the job is preempted"' TERM

srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv_backend c10d --rdzv_endpoint "$first:${PORT:-29400}" \
    --rdzv_id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --max_restarts 0 --shutdown_timeout 150 \
    -m v2m train "$@" --resume auto &
step=$!
wait "$step"
code=$?
while [ -n "$stopped" ] && kill -0 "$step" 2>/dev/null; do # wait returns when a signal comes
    wait "$step"
    code=$?
done

if [ "$stopped" = "the time is nearly over" ] && [ "$code" -ne 0 ]; then
    echo "slurm.sh: requeued"
    scontrol requeue "$SLURM_JOB_ID" # after preemption Slurm does it
fi
exit "$code"
