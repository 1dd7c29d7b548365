#!/bin/bash
# One run over two machines, by hand and as root: `sudo bash tests/robustness/two_machines.sh`, on Linux, where
# requirements-dev.txt is installed.
# The machines are two network namespaces, each with one address, which reach each other over a cable of their own and
# nothing else; machine b has a folder of its own and may write to no other. The same is trained as one process, and
# compared. Then all on machine b is killed: machine a ends within seconds, and goes on alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
work=$(mktemp -d)
machines=(nerf_a nerf_b)
clean() {
    for machine in "${machines[@]}"; do ip netns delete $machine 2> /dev/null || true; done
    rm -rf "$work"
}
trap clean EXIT

ip netns add nerf_a
ip netns add nerf_b
ip link add cable_a netns nerf_a type veth peer name cable_b netns nerf_b
declare -A address=([a]=10.99.0.1 [b]=10.99.0.2) is_host=([a]=true [b]=false)
for end in a b; do
    ip -n nerf_$end link set lo up
    ip -n nerf_$end address add ${address[$end]}/24 dev cable_$end
    ip -n nerf_$end link set cable_$end up
done
python - "$work" << 'END'
import sys
from pathlib import Path
sys.path[:0] = [".", "tests"]
from support.scenes import write_blender
for machine in "ab":
    write_blender(Path(sys.argv[1]) / machine / "scene", counts=(4, 1, 24))
END

options=(--dataset_type blender --device cpu --use_viewdirs --density_bias 0.5 --netdepth 2 --netdepth_fine 2
    --netwidth 8 --netwidth_fine 8 --chunk 160 --N_rand 6 --N_entropy 4 --N_samples 4 --N_importance 3 --entropy
    --entropy_ray_zvals_lambda 0.01 --train_scene 0 2 --i_print 10 --i_img 0 --i_testset 30 --i_video 0 --i_weights 10)

on() { # on MACHINE OPTION ...: its part of the run, in its own folder; is_host: both have this machine's name
    local end=$1
    shift
    GLOO_SOCKET_IFNAME=cable_$end ip netns exec nerf_$end torchrun --nnodes 2 --nproc_per_node 1 --rdzv_backend c10d \
        --rdzv_endpoint ${address[a]}:29400 --rdzv_conf is_host=${is_host[$end]} --local_addr ${address[$end]} \
        run_nerf.py --basedir "$work/$end/logs" --datadir "$work/$end/scene" --expname run "${options[@]}" "$@" &> "$work/$end/output"
}

echo "30 steps on two machines, and the same by one process"
on b --N_iters 30 &
on a --N_iters 30 || { cat "$work"/?/output; exit 1; }
wait $!
python run_nerf.py --basedir "$work/a/logs" --datadir "$work/a/scene" --expname alone "${options[@]}" --N_iters 30 \
    &> "$work/alone"
python - "$work" << 'END'
import json, sys
from pathlib import Path
work = Path(sys.argv[1])
assert not (work / "b/logs").exists(), "machine b wrote files"
runs = [json.loads((work / f"a/logs/{name}/testset_000030/metrics.json").read_text())["mean"] for name in ("run", "alone")]
print(f"psnr {runs[0]['psnr']:.6f} and {runs[1]['psnr']:.6f} by one process; machine b wrote nothing")
assert abs(runs[0]["psnr"] - runs[1]["psnr"]) < 1e-3
END

echo "the process on machine b is killed"
on b --N_iters 1000000 &
on a --N_iters 1000000 &
first=$!
until grep -q "/000050.tar" "$work/a/output"; do sleep 0.5; done
start=$SECONDS
kill -9 $(ip netns pids nerf_b)
wait $first 2> /dev/null || true
grep -h "has ended" "$work/a/output"
echo "machine a ended after $((SECONDS - start)) s"
[ -z "$(ip netns pids nerf_a)" ]

echo "machine a goes on alone"
python run_nerf.py --basedir "$work/a/logs" --datadir "$work/a/scene" --expname run "${options[@]}" \
    --N_iters 100000 &> "$work/alone" &
alone=$!
until grep -q "^going on from" "$work/alone"; do sleep 0.5; done
grep -h "^going on from" "$work/alone" | sed "s|$work/||"
kill $alone
wait $alone 2> /dev/null || true
