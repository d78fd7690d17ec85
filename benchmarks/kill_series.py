#!/usr/bin/env python3
"""Kills one random rank of a run at a random moment (SIGKILL), gives the same command again, and compares what
comes out with the undisturbed run: bit for bit on the same mesh; where unlearning goes on from a checkpoint on another
mesh, dW to 2e-2 and the losses to 1e-3 (Adam's first step is a sign, so rounding alone moves adapters; a run whose
earlier stages ran on another mesh too is another run, and is not compared).

    python benchmarks/kill_series.py build/tests --kills 100 --out benchmarks/results/kill_series.json

Two methods, meshes 1x2, 2x1 and 2x2, all stages: the tiny model is fine-tuned first, so that tracing finds facts.
Needs numpy and safetensors (the tests' virtual environment has them)."""
import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time

import numpy as np
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
MESHES = [(1, 2), (2, 1), (2, 2)]
METHODS = {
    "NSRU": ["train.steps=12"],
    "KUDA": ["method=KUDA", "method_args={}", "train={steps: 12, rows: {forget: 4}, warmup_steps: 1, checkpoint_every: 2}"],
}
COMMON = ["finetune.steps=60", "finetune.batch_size=8", "finetune.learning_rate=0.01", "train.checkpoint_every=2"]
CLEAN = {"PATH", "HOME", "LD_LIBRARY_PATH"}


def environment():
    kept = {k: v for k, v in os.environ.items() if k in CLEAN}
    return kept | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MKL_CBWR": "COMPATIBLE"}


def start(args, folder, run, method, mesh):
    tensor, data = mesh
    command = [str(ROOT / "tests/support/run_ranks"), str(tensor * data), str(args.build / "efface"), "run",
               str(folder / "recipe.yaml"), *COMMON, *METHODS[method], f"parallel.tensor={tensor}",
               f"output.folder={run}"]
    return subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True)


def ranks_of(mpirun):
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(fields[1]) == mpirun and "efface" in os.path.basename(os.readlink(entry / "exe")):
            found.append(int(entry.name))
    return sorted(found)


def finished(process):
    output, _ = process.communicate(timeout=300)
    if process.returncode != 0:
        raise SystemExit(f"exit code {process.returncode}:\n{output}")
    return output


def delta(file):
    tensors = load_file(file)
    parts = {}
    for name, value in tensors.items():
        if name.endswith(".lora_b"):
            parts[name[:-7]] = value @ tensors[name[:-7] + ".lora_a"]
        elif name.endswith(".delta"):
            parts[name] = value
    return parts


def losses(run):
    done = json.loads((run / "unlearn/done.json").read_text())
    return [step["loss"] for step in done["summary"]["steps"]]


def worst(a, b):
    return max(float(np.linalg.norm(a[n] - b[n]) / max(np.linalg.norm(b[n]), 1e-30)) for n in b)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=lambda p: pathlib.Path(p).resolve(), help="build folder with efface and tests/make_tiny_run")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--changed", type=float, default=0.25, help="share of the kills after which the mesh changes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    chosen = random.Random(args.seed)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="efface-kills-"))
    subprocess.run([args.build / "tests/make_tiny_run", folder], check=True)

    whole = {}  # (method, mesh) -> run folder, seconds
    killed_in, results = collections.Counter(), []
    for number in range(args.kills):
        method, mesh = list(METHODS)[number % 2], MESHES[number // 2 % len(MESHES)]
        if (method, mesh) not in whole:
            run, begin = folder / f"whole-{method}-{mesh[0]}x{mesh[1]}", time.monotonic()
            finished(start(args, folder, run, method, mesh))
            whole[method, mesh] = run, time.monotonic() - begin
        undisturbed, seconds = whole[method, mesh]
        run = folder / f"killed-{number}"
        process = start(args, folder, run, method, mesh)
        changes = number < args.changed * args.kills
        moment = chosen.uniform(0, 0.2) if changes else chosen.uniform(0.3, seconds)
        while changes and process.poll() is None and not list(run.glob("unlearn/checkpoint/step-*")):
            time.sleep(0.01)
        time.sleep(moment)
        ranks = ranks_of(process.pid)
        victim = chosen.choice(ranks) if ranks else None
        if victim:
            os.kill(victim, signal.SIGKILL)
        begin = time.monotonic()
        output, _ = process.communicate(timeout=60)
        gone = time.monotonic() - begin
        begun = [p.parent.name for p in run.glob("*/started.json") if not (p.parent / "done.json").exists()]
        killed_in[begun[0] if begun else ("after all" if (run / "report.html").exists() else "between stages")] += 1
        again = chosen.choice([m for m in MESHES if m != mesh]) if changes else mesh
        finished(start(args, folder, run, method, again))
        same_bits = all((run / f).read_bytes() == (undisturbed / f).read_bytes()
                        for f in ("unlearn/update.safetensors", "export/huggingface/model.safetensors"))
        mine, theirs = delta(run / "unlearn/update.safetensors"), delta(undisturbed / "unlearn/update.safetensors")
        loss = max(abs(a - b) / max(abs(b), 1e-30) for a, b in zip(losses(run), losses(undisturbed)))
        result = {"method": method, "mesh": mesh, "again": again, "moment": round(moment, 2), "killed": victim is not None,
                  "one_line": output.count("efface: error: ") == 1, "gone_after": round(gone, 2),
                  "same_bits": same_bits, "dw": worst(mine, theirs), "loss": loss}
        result["ok"] = same_bits if again == mesh else result["dw"] <= 2e-2 and loss <= 1e-3
        results.append(result)
        print(json.dumps(result), flush=True)
        shutil.rmtree(run)
    shutil.rmtree(folder)
    changed = [r for r in results if r["mesh"] != r["again"]]
    summary = {"runs": len(results), "killed": sum(r["killed"] for r in results), "ok": sum(r["ok"] for r in results), "killed_in": dict(killed_in),
               "same_mesh": len(results) - len(changed), "same_bits": sum(r["same_bits"] for r in results if r["mesh"] == r["again"]),
               "changed_mesh": len(changed), "worst_dw": max((r["dw"] for r in changed), default=0),
               "worst_loss": max((r["loss"] for r in changed), default=0),
               "slowest_end": max(r["gone_after"] for r in results), "seed": args.seed}
    print(json.dumps(summary, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"summary": summary, "kills": results}, indent=1) + "\n")
    raise SystemExit(0 if summary["ok"] == len(results) else 1)


if __name__ == "__main__":
    main()
