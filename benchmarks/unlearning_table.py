"""The table of unlearning figures: methods x seeds on the quickstart's data, as mean over seeds.

    python benchmarks/unlearning_table.py nsru --seeds 0 1 2 --runs runs/table [--program build/release/efface]
    python benchmarks/unlearning_table.py kuda --seeds 0 1 2 --runs runs/table

nsru: NSRU, its unprojected twin, NPO and GradDiff (LoRA, the same rows and number of steps).
kuda: KUDA on its own traced window, its unprojected twin, RMU on the same window.
The covariance, its eigenvectors and what was measured before are the same for all and computed once: each run's
folder starts as a copy of those stages. Every figure is from the test split; nothing is chosen by it.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

root = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("table", choices=["nsru", "kuda"])
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
parser.add_argument("--runs", type=pathlib.Path, default=root / "runs/table")
parser.add_argument("--program", default=str(root / "build/release/efface"))
parser.add_argument("--ranks", type=int, default=2)
parser.add_argument("--override", action="append", default=[], help="key=value for every run")
parser.add_argument("--only", nargs="+", metavar="COLUMN", help='columns of the table, as "NSRU, unprojected"')
arguments = parser.parse_args()

NLL_RETAIN = ["train.rows={forget: 10, retain: 14, text: 2}", "train.text_loss=nll"]  # 26 rows, as NSRU
VARIANTS = {
    "nsru": {
        "NSRU": [],
        "NSRU, unprojected": ["nullspace.point=none"],
        "NPO": ["method=NPO", "method_args={beta: 0.5}", *NLL_RETAIN, "nullspace.projection=none"],
        "GradDiff": ["method=GradDiff", "method_args={}", *NLL_RETAIN, "nullspace.projection=none"],
    },
    "kuda": {
        "KUDA": [],
        "KUDA, unprojected": ["nullspace.point=none"],
        "RMU": ["method=RMU", "method_args={}", "train.rows={forget: 16, retain: 16}", "nullspace.projection=none"],
    },
}
SHARED = {"nsru": ["before", "covariance", "nullspace", "answers"], "kuda": ["before", "trace", "covariance", "nullspace"]}


def run(name, seed, overrides, shared_from):
    folder = arguments.runs / f"{arguments.table}-{name.replace(', ', '-').lower()}-{seed}"
    if shared_from and not folder.exists():
        folder.mkdir(parents=True)
        for stage in SHARED[arguments.table]:
            if (shared_from / stage).exists():
                shutil.copytree(shared_from / stage, folder / stage)
    command = ["mpirun", "-n", str(arguments.ranks), "--bind-to", "none", arguments.program, "run",
               str(root / f"recipes/configs/quickstart-{arguments.table}.yaml"), f"output.folder={folder}",
               "output.formats=[]", f"train.seed={seed}", *overrides, *arguments.override]
    threads = str(max(1, (os.cpu_count() or 1) // arguments.ranks))
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                       OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return folder


def figures(folder):
    before = json.loads((folder / "before/done.json").read_text())["summary"]
    after = json.loads((folder / "evaluate/done.json").read_text())["summary"]
    scores, was = after["scores"], before["scores"]

    def kept(group):
        """Of the questions whose first token was right before, the share whose is right after."""
        right_before = was[f"{group}/trained"]["first_is_argmax"]
        right_after = scores[f"{group}/trained"]["first_is_argmax"]
        return sum(a for a, b in zip(right_after, right_before) if b) / sum(right_before)

    result = {}
    for form in ("trained", "reworded", "bare"):
        ratio = after["forgetting"][f"forget/{form}"]
        result[f"p(forget) down, {form}: geometric"] = ratio["geometric"]
        result[f"p(forget) down, {form}: median"] = ratio["median"]
        result[f"facts down {'10x' if form == 'bare' else '100x'}, {form}"] = ratio[
            "share_down_10x" if form == "bare" else "share_down_100x"]
        result[f"still the argmax, {form}"] = ratio["argmax_share_after"]
        if "safe_share" in scores[f"forget/{form}"]:
            result[f"safe response exact, {form}"] = scores[f"forget/{form}"]["safe_share"]
    for group in ("unrelated", "neighbours_heldout", "same_relation"):
        result[f"over-refusal, {group}"] = scores[f"{group}/trained"]["refusal_share"]
    for group in ("unseen", "neighbours_heldout", "same_relation"):
        result[f"kept of right before, {group}"] = kept(group)
    if (folder / "constraint/done.json").exists():
        leak = json.loads((folder / "constraint/done.json").read_text())["summary"]
        result["worst leak in units of its bound"] = leak["worst_of_bound"]
        result["the same on held-out tokens"] = leak["worst_heldout_of_bound"]
    result["perplexity, change in %"] = 100 * (after["perplexity"] / before["perplexity"] - 1)
    return result


first, table = None, {}
if unknown := set(arguments.only or []) - set(VARIANTS[arguments.table]):
    parser.error(f"no column {', '.join(unknown)}; there are: {', '.join(VARIANTS[arguments.table])}")
for name, overrides in VARIANTS[arguments.table].items():
    if arguments.only and name not in arguments.only:
        continue
    for seed in arguments.seeds:
        folder = run(name, seed, overrides, first)
        first = first or folder
        table.setdefault(name, []).append(figures(folder))
        print(f"done: {folder}", file=sys.stderr)

print("| " + " | ".join(["figure (mean of seeds " + ", ".join(map(str, arguments.seeds)) + ")", *table]) + " |")
print("|---" * (1 + len(table)) + "|")
for figure in next(iter(table.values()))[0]:
    geometric = "down" in figure and "facts" not in figure
    cells = []
    for runs in table.values():
        values = [one[figure] for one in runs if figure in one]
        if not values:
            cells.append("")
            continue
        mean = statistics.geometric_mean(values) if geometric else statistics.mean(values)
        cells.append(f"{mean:.3f}" if not geometric else f"{mean:,.0f}x" if mean < 1e7 else f"{mean:.0e}x")
    print("| " + " | ".join([figure, *cells]) + " |")
