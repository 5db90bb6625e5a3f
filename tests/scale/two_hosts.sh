#!/bin/bash
# Train on two hosts, lose one, and go on: two network namespaces on one machine, joined by a bridge in a third.
#
#     sudo tests/scale/two_hosts.sh             # every trial, some ten minutes on two cores
#     sudo tests/scale/two_hosts.sh killed cut  # these ones
#
# Trials: killed (all processes of a host), cut (its cable), fixed (killed, then both are started by hand).
# The loss curve must be that of one process that was never disturbed, up to rounding, which training makes larger;
# and that of two processes exactly, where two went on. PYTHON names the Python to use, EPOCHS how long to train.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-$PWD/.venv/bin/python}
WORK=$(mktemp -d)
TRIALS=${*:-killed cut fixed}
SWITCH=v2m-switch HOSTS="v2m-host1 v2m-host2"
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # else a host that comes back is not let in
export OMP_NUM_THREADS=1 GLOO_SOCKET_IFNAME=eth0 PYTHONPATH=$PWD/src

say() { printf '%(%T)T == %s\n' -1 "$*"; }

kill_all() { # HOST: every process on it, at once
    local pids
    pids=$(ip netns pids "$1" 2>/dev/null) || return 0
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill -KILL $pids
}

clean_up() {
    for host in $HOSTS $SWITCH; do
        kill_all "$host"
        ip netns delete "$host" 2>/dev/null || true
    done
    rm -rf "$WORK"
}

connect() { # a host with an address and a cable to the switch, for each
    ip netns add $SWITCH
    ip -n $SWITCH link add bridge type bridge
    ip -n $SWITCH link set bridge up
    for i in 1 2; do
        ip netns add v2m-host$i
        ip -n v2m-host$i link set lo up
        ip -n v2m-host$i link add eth0 type veth peer name port$i netns $SWITCH
        ip -n v2m-host$i address add 10.77.0.$i/24 dev eth0
        ip -n v2m-host$i link set eth0 up
        ip -n $SWITCH link set port$i master bridge up
    done
}


launch() { # NUMBER NNODES RUN: torchrun on a host, whose lines go to RUN.log too
    ip netns exec "v2m-host$1" "$PYTHON" -m torch.distributed.run --nnodes "$2" --nproc_per_node 1 \
        --max_restarts "$RESTARTS" --local_addr "10.77.0.$1" \
        --rdzv_backend c10d --rdzv_endpoint 10.77.0.1:29400 --rdzv_id "$3" \
        --rdzv_conf "is_host=$(($1 == 1)),last_call_timeout=5,keep_alive_interval=1,keep_alive_max_attempt=3" \
        -m v2m train "${SETTINGS[@]}" --resume auto --output "$WORK/$3" 2>&1 |
        while IFS= read -r line; do
            printf '%(%T)T host%s %s\n' -1 "$1" "$line"
        done | tee -a "$WORK/$3.log" | grep --line-buffered -E 'v2m: |epoch +[0-9]+/|going on|Sending|Error:' || true
}

wait_for() { # SECONDS FILE COUNT PATTERN: until so many lines of a file are like this
    local end=$((SECONDS + $1))
    until [ "$(grep -scE "$4" "$2" || true)" -ge "$3" ] 2>/dev/null; do
        ((SECONDS < end)) || { say "nothing like '$4' in $1 s"; exit 1; }
        sleep 0.1
    done
}

compare() { # RUN BASE MOST: the loss curves side by side; they must differ by this at most
    say "$1 beside $2:"
    "$PYTHON" - "$WORK/$1" "$WORK/$2" "$3" <<'END'
import json, sys
one, other = ([json.loads(line) for line in open(f"{run}/metrics.jsonl")] for run in sys.argv[1:3])
assert len(one) == len(other), (len(one), len(other))
for key in ("train_loss", "val_loss", "val_top1"):
    gaps = [abs(a[key] - b[key]) for a, b in zip(one, other)]
    print(f"   {key:<11}", *(f"{gap:.0e}" for gap in gaps), f"  ends at {one[-1][key]:.4f} and {other[-1][key]:.4f}")
    assert max(gaps) <= float(sys.argv[3]), "they differ"
END
}

SETTINGS=(--data digits --device cpu --epochs "${EPOCHS:-10}" --checkpoint.minutes 0.02 --timeout 0.5)

elastic() { # RUN: host 2 is lost in epoch 3, host 1 goes on alone, host 2 comes back
    local run=$1 log=$WORK/$1.log first second
    RESTARTS=3
    launch 1 1:2 "$run" & first=$!
    launch 2 1:2 "$run" & second=$!
    wait_for 180 "$log" 1 'epoch +2/'
    sleep 1.5
    say "$run: host 2 is lost"
    "$run"_host2
    wait_for 900 "$log" 1 'host1 going on in'
    say "host 1 goes on alone"
    wait_for 120 "$log" 4 'host1 epoch'
    restore_host2
    wait "$second" || true
    say "host 2 is back"
    launch 2 1:2 "$run" & second=$!
    wait_for 120 "$log" 2 'host. going on in'
    say "both go on"
    wait "$first" "$second"
    compare "$run" whole 0.05
}

killed_host2() { kill_all v2m-host2; }
cut_host2() { ip -n $SWITCH link set port2 down; }
restore_host2() { kill_all v2m-host2; ip -n $SWITCH link set port2 up; }

fixed() { # host 2 is lost in epoch 3; then the same command is given again on both
    local log=$WORK/fixed.log first second
    RESTARTS=0
    launch 1 2 fixed & first=$!
    launch 2 2 fixed & second=$!
    wait_for 180 "$log" 1 'epoch +2/'
    sleep 1.5
    say "fixed: host 2 is lost"
    kill_all v2m-host2
    wait "$first" "$second" || true
    say "host 1 has ended too; both are started again"
    launch 1 2 fixed & first=$!
    launch 2 2 fixed & second=$!
    wait "$first" "$second"
    compare fixed pair 0
}

trap clean_up EXIT
trap 'exit 130' INT TERM
connect
say "one process, undisturbed"
"$PYTHON" -m v2m train "${SETTINGS[@]}" --output "$WORK/whole" | grep -E '^epoch +(1|16)/'
say "two processes on two hosts, undisturbed"
RESTARTS=0
launch 1 2 pair & first=$!
launch 2 2 pair & second=$!
wait "$first" "$second"
compare pair whole 0.05
for trial in $TRIALS; do
    case $trial in
        fixed) fixed ;;
        *) elastic "$trial" ;;
    esac
done
say "done"
