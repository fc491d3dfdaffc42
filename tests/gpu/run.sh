#!/usr/bin/env bash
# Everything that wants a GPU, in under fifteen minutes: the laws on CuPy, torch and JAX, parity with NumPy, what only
# a large device shows, the demo, training that moves between devices, benchmarks. Each part has a limit of its own and
# writes OUT/<part>.txt as it goes; OUT/summary.txt has a line for each as soon as it is over, so that a part that fails
# or hangs costs none of the others.
#     bash tests/gpu/run.sh OUT [python]                   on a machine with a GPU and CuPy
#     BACKEND=numpy bash tests/gpu/run.sh OUT [python]     the same script elsewhere, to see that it works
# LIMIT=seconds sets one limit for every part, BENCHMARK="..." what the benchmarks are given, OTHERS="" leaves torch and
# JAX out.
set -uo pipefail
[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1" && out=$(cd "$1" && pwd) || exit 2
python=${2:-python3} backend=${BACKEND:-cupy}
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD:$PWD/backends${PYTHONPATH:+:$PYTHONPATH}" OPENBLAS_NUM_THREADS=1
: >"$out/summary.txt"

part() { # name, seconds, command: its output in OUT/name.txt, its end in OUT/summary.txt
    local name=$1 limit=${LIMIT:-$2} begun=$SECONDS status
    shift 2
    timeout --signal=INT --kill-after=5 "$limit" "$@" >"$out/$name.txt" 2>&1
    status=$?
    case $status in 0) said=done ;; 124 | 137) said="stopped after $limit s" ;; *) said="failed with status $status" ;; esac
    echo "$name: $said, $((SECONDS - begun)) s" | tee -a "$out/summary.txt"
    tail -n 8 "$out/$name.txt" | cut -c1-200 | sed 's/^/    /'
    return "$status"
}
refscore() { "$python" -m refscore.cli "$@"; }
resume() { # twenty steps of each, in turns, in one run; what is trained is looked at at the end
    local other=numpy folder="$out/resumed" steps=20
    rm -rf "$folder"
    refscore train --data tilted --out "$folder" --steps $steps --batch 256 --backend "$1" || return
    for next in "$other" "$1"; do
        steps=$((steps + 20))
        sed -i "s/^steps = .*/steps = $steps/" "$folder/config.toml"
        refscore train --out "$folder" --resume --backend "$next" || return
    done
    refscore sample "$folder" --n 100 --out "$out/resumed.npy" --backend "$1"
}
export -f refscore resume
export python out

if ! "$python" -c "import sys; from refscore_backends import get; print(get('$backend').device())" >"$out/device.txt" 2>&1; then
    tail -n 1 "$out/device.txt" | sed 's/^[A-Za-z_.]*: //'
    echo "nothing was run; BACKEND=numpy shows that this script works"
    exit 2
fi
mark="gpu and not slow"
[ "$backend" = cupy ] || mark="not slow"
pytest=("$python" -m pytest --confcutdir=tests -q --numprocesses="${PROCESSES:-12}" -m "$mark")

date -u | tee "$out/date.txt"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader >"$out/gpu.txt" 2>&1
part machine 20 bash -c 'refscore info'
[ "$backend" = cupy ] && part laws 90 "${pytest[@]}" --durations=15 tests
part parity 40 "${pytest[@]}" tests/test_parity.py tests/test_devices.py
others=(${OTHERS-torch jax}) # the same laws on their arrays, where these libraries are and find the GPU
for other in "${others[@]}"; do
    "$python" -c "import $other" 2>/dev/null || continue
    XLA_PYTHON_CLIENT_PREALLOCATE=false part "$other" 100 "${pytest[@]}" -m "not slow" --backends "$other" tests
done
[ "$backend" = cupy ] && part limits 60 "$python" tests/gpu/limits.py
[ "$backend" = cupy ] && part clinic 60 "$python" tests/gpu/clinic.py
part demo 40 bash -c "refscore demo --backend $backend --steps 2000 --out '$out/demo'"
part compiled 40 bash -c "refscore demo --backend $backend --compile --steps 2000 --out '$out/demo-compiled'"
part resume 40 bash -c "resume $backend"
part benchmark 260 "$python" tests/gpu/benchmark.py --out "$out/benchmark.jsonl" ${BENCHMARK:-}
! grep -qv ': done' "$out/summary.txt"
