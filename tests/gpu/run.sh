#!/usr/bin/env bash
# Everything that wants a GPU: the quick suite with the laws on CuPy, the demo, benchmarks. Results go to files in OUT.
#     bash tests/gpu/run.sh OUT [python]
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd) python=${2:-python3}
cd "$(dirname "$0")/../.."
export PYTHONPATH="$PWD:$PWD/backends${PYTHONPATH:+:$PYTHONPATH}" OPENBLAS_NUM_THREADS=1
refscore() { "$python" -m refscore.cli "$@"; }

{ date -u; nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; refscore info --backend cupy; } >"$out/machine.txt" 2>&1
cat "$out/machine.txt"
"$python" -m pytest --confcutdir=tests tests -m "not slow" -q --numprocesses=8 --durations=15 >"$out/laws.txt" 2>&1
tail -40 "$out/laws.txt" | cut -c1-200
for backend in cupy numpy; do
    { time refscore demo --backend $backend --steps 2000 --out "$out/demo-$backend"; } >"$out/demo-$backend.txt" 2>&1
    tail -n 25 "$out/demo-$backend.txt"
done
"$python" tests/gpu/benchmark.py --out "$out/benchmark.jsonl" 2>"$out/benchmark.err"
