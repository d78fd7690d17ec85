"""Speed side by side with transformers + PEFT: forward without logits, LoRA step, covariance of all linear inputs.

    python benchmarks/against_transformers.py --model models/smollm2 [--dtype fp32] [--threads 2] [--ranks 1]

Run it with the tests' virtual environment. Both programs hold the same rows of ids, take turns command by command
in one session, and print seconds; the table gives medians and the median of the ratios pair by pair. `share` is of
the matrix-product rate measured in the same run: the arithmetic that must be done over the time it took.
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from worker import Worker

root = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default=str(root / "models/smollm2"))
parser.add_argument("--program", default=str(root / "build/benchmarks/benchmarks/step_worker"))
parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
parser.add_argument("--threads", type=int, default=2, help="threads in all; efface divides them over its ranks")
parser.add_argument("--ranks", type=int, default=1)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--rows", default="ragged", choices=["ragged", "equal"],
                    help="rows of 24 to 64 tokens (the reference pads them), or all of 48")
arguments = parser.parse_args()

generator = random.Random(0)
text = (root / "recipes/data/text_retain.txt").read_text()
ids = AutoTokenizer.from_pretrained(arguments.model)(text, add_special_tokens=False)["input_ids"]
lengths = [48] * 16 if arguments.rows == "equal" else [generator.randint(24, 64) for _ in range(16)]
prompts = [max(1, length - generator.randint(4, 16)) for length in lengths]
rows_file = "/tmp/efface-benchmark-rows-%d.safetensors" % os.getpid()
save_file({"ids": torch.tensor(ids[: sum(lengths)]), "lengths": torch.tensor(lengths), "prompts": torch.tensor(prompts)},
          rows_file)

own_threads = max(1, arguments.threads // arguments.ranks)
workers = {
    "efface": Worker([arguments.program, arguments.model, rows_file, arguments.dtype], own_threads, arguments.ranks),
    "reference": Worker([sys.executable, str(root / "benchmarks/reference_worker.py"), arguments.model, rows_file,
                         arguments.dtype, str(arguments.threads)], arguments.threads),
}

# Multiply-adds that cannot be avoided, counted on real tokens (not on padding).
config = json.loads((pathlib.Path(arguments.model) / "config.json").read_text())
h, inner, layers, vocab = (config[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"))
kv = h * config["num_key_value_heads"] // config["num_attention_heads"]
linear = layers * (2 * h * h + 2 * h * kv + 3 * h * inner)
triangles = layers * (3 * h * h + inner * inner)  # a symmetric product, half of it
tokens, answers = sum(lengths), sum(n - p for n, p in zip(lengths, prompts))
adapters = layers * 16 * ((h + h) * 2 + (h + kv) * 2 + (h + inner) * 3)
work = {
    "forward": 2 * tokens * linear,
    "lora_all": 2 * (2 * tokens * linear + 3 * tokens * adapters + 2 * (tokens - len(lengths)) * h * vocab),
    "lora_answer": 2 * (2 * tokens * linear + 3 * tokens * adapters + 2 * answers * h * vocab),
    "covariance": 8 * tokens * (2 * linear + triangles),  # eight passes, as both workers do
    "product": 2 * 1024 * 1536 * 1536,
}
seconds = {name: {command: [] for command in work} for name in workers}
for command in work:  # one round to warm both
    for worker in workers.values():
        worker.ask(command)
for _ in range(arguments.rounds):
    for command in work:
        for name, worker in workers.items():
            seconds[name][command].append(worker.ask(command)["seconds"])
for worker in workers.values():
    worker.close()
os.unlink(rows_file)

median = {name: {c: statistics.median(v) for c, v in rows.items()} for name, rows in seconds.items()}
rate = work["product"] / median["reference"]["product"]
print(f"{arguments.dtype}, {arguments.threads} threads, efface on {arguments.ranks} ranks, {arguments.rows} rows: "
      f"{len(lengths)} rows, {tokens} tokens; matrix product {rate / 1e9:.0f} GFLOP/s")
print("| what | efface s | transformers + PEFT s | ratio (median of pairs) | efface, share of the product rate |")
print("|---|---|---|---|---|")
for command in ("forward", "lora_all", "lora_answer", "covariance"):
    ratios = [b / a for a, b in zip(seconds["efface"][command], seconds["reference"][command])]
    print(f"| {command} | {median['efface'][command]:.3f} | {median['reference'][command]:.3f} | "
          f"{statistics.median(ratios):.2f} | {work[command] / median['efface'][command] / rate:.2f} |")
added = median["efface"]["covariance"] - 8 * median["efface"]["forward"]
print(f"covariance adds {added / 8 / median['efface']['forward']:.2f} of the forward pass, "
      f"{added * rate / (8 * tokens * triangles):.2f} times what its symmetric products take at the product rate")
