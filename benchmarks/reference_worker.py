"""The side a user would otherwise run: transformers + PEFT, driven line by line by against_transformers.py.

Commands on stdin: product | forward | lora_all | lora_answer | covariance; one line of JSON a command on stdout.
"""
import json
import sys
import time

import torch
from safetensors.torch import load_file

model_folder, rows_file, dtype_name, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype_name]

from peft import LoraConfig, get_peft_model  # noqa: E402  (after the threads are set)
from transformers import AutoModelForCausalLM  # noqa: E402

rows = load_file(rows_file)
lengths, prompts, flat = rows["lengths"].tolist(), rows["prompts"].tolist(), rows["ids"]
sequences = list(torch.split(flat, lengths))
longest = max(lengths)
ids = torch.full((len(lengths), longest), 2)
mask = torch.zeros_like(ids)
all_labels = torch.full_like(ids, -100)
answer_labels = torch.full_like(ids, -100)
for index, (sequence, prompt) in enumerate(zip(sequences, prompts)):
    n = len(sequence)
    ids[index, :n], mask[index, :n] = sequence, 1
    all_labels[index, 1:n] = sequence[1:]
    answer_labels[index, prompt:n] = sequence[prompt:]

base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype, attn_implementation="sdpa")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Forward:
    def __call__(self):
        with torch.no_grad():
            base.model(input_ids=ids, attention_mask=mask)


class Lora:
    model = None

    def __init__(self, labels):
        self.labels = labels
        if Lora.model is None:
            Lora.model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=TARGETS))
            for name, parameter in Lora.model.named_parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
            Lora.optimizer = torch.optim.AdamW([p for p in Lora.model.parameters() if p.requires_grad], lr=1e-5)

    def __call__(self):
        context = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
        with context:
            loss = Lora.model(input_ids=ids, attention_mask=mask, labels=self.labels).loss
        loss.backward()
        Lora.optimizer.step()
        Lora.optimizer.zero_grad(set_to_none=True)


COVARIANCE_PASSES = 8  # forward passes of one "covariance", as step_worker.cpp's


class Covariance:
    """Forward hooks, x^T x in fp32 for every linear input, as one writes it by hand."""

    def __call__(self):
        sums, handles, seen = {}, [], mask.reshape(-1).bool()

        def hook(name):
            def on_input(module, arguments):
                x = arguments[0].reshape(-1, arguments[0].shape[-1])[seen].float()
                if name in sums:
                    sums[name].addmm_(x.T, x)
                else:
                    sums[name] = x.T @ x
            return on_input

        for index, layer in enumerate(base.model.layers):
            for name, module in (("qkv", layer.self_attn.q_proj), ("o", layer.self_attn.o_proj),
                                 ("gate_up", layer.mlp.gate_proj), ("down", layer.mlp.down_proj)):
                handles.append(module.register_forward_pre_hook(hook((index, name))))
        with torch.no_grad():
            for _ in range(COVARIANCE_PASSES):
                base.model(input_ids=ids, attention_mask=mask)
        for handle in handles:
            handle.remove()


class Product:
    """The matrix-product rate: [1024, 1536] x [1536, 1536]."""

    def __init__(self):
        self.a, self.b = torch.randn(1024, 1536).to(dtype), torch.randn(1536, 1536).to(dtype)

    def __call__(self):
        self.a @ self.b


makers = {"product": Product, "forward": Forward, "covariance": Covariance, "lora_all": lambda: Lora(all_labels),
          "lora_answer": lambda: Lora(answer_labels)}
made = {}
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    command = line.strip()
    if command not in made:
        made[command] = makers[command]()
        made[command]()  # warm-up
    repeat = 50 if command == "product" else 1
    started = time.perf_counter()
    for _ in range(repeat):
        made[command]()
    print(json.dumps({"seconds": (time.perf_counter() - started) / repeat}), flush=True)
