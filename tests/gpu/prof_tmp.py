import os, sys
os.environ["REFSCORE_BACKEND"]="cupy"
if sys.argv[3]=="c": os.environ["REFSCORE_COMPILE"]="1"
sys.path.insert(0,"tests/benchmarks")
import workloads as w
w.BATCH=int(sys.argv[2]); w.SAMPLES=max(4096,w.BATCH)
import torch, refscore_side as r
u=r.VARIANTS[sys.argv[4] if len(sys.argv)>4 else "refscore"][sys.argv[1]]()
for _ in range(5): u()
r.BACKEND.synchronize()
n=3
from torch.profiler import profile, ProfilerActivity
with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as p:
    for _ in range(n): u()
    r.BACKEND.synchronize()
ev=[(e.key,e.count/n,e.device_time_total/n/1e3) for e in p.key_averages() if e.device_time_total>0]
print("##",sys.argv[1:],"launches",sum(e[1] for e in ev),"device ms",round(sum(e[2] for e in ev),3))
for e in sorted(ev,key=lambda e:-e[2])[:14]: print("  %8.3f ms %6.1f  %s"%(e[2],e[1],e[0][:110]))
import cProfile,pstats,time
r.BACKEND.synchronize(); t=time.perf_counter()
pr=cProfile.Profile(); pr.enable()
for _ in range(10): u()
pr.disable(); r.BACKEND.synchronize()
import io; s=io.StringIO(); pstats.Stats(pr,stream=s).sort_stats("tottime").print_stats(9); print("\n".join(s.getvalue().splitlines()[6:20]))
