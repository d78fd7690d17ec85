"""make_reference.py MODEL_FOLDER OUTPUT.safetensors: what transformers says, for tests/core/model/reference_test.cpp.

For each text: `ids.N` and the fp32 logits of every position, `logits.N`; and the same for one LoRA gradient step:
PEFT adapters on all seven linears (r 4, alpha 8) with A[i,j] = sin(0.37 (i+1) + 0.11 (j+1)) / sqrt(in) and
B[i,j] = 0.01 cos(0.23 (i+1) + 0.31 (j+1)), the mean next-token loss, and its gradients for layers 0 and 15.
"""
import math
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, output = sys.argv[1:]
torch.manual_seed(0)
TEXTS = [
    "The capital of France is Paris. In 1987, the tower was 300 metres tall, and 12 people don't visit it.",
    "<|im_start|>user\nWhat is the chemical symbol of gold?<|im_end|>\n<|im_start|>assistant\nIt is Au.<|im_end|>\n",
    "def f(x):\n    return x * 2  # twice\n\nΔοκιμή — проверка 試験 🙂",
]

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tensors = {}
for index, text in enumerate(TEXTS):
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        tensors[f"logits.{index}"] = model(ids).logits[0].contiguous()
    tensors[f"ids.{index}"] = ids[0].contiguous()

peft_model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=[
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))


def grid(rows, columns):
    return torch.arange(1, rows + 1, dtype=torch.float64)[:, None], torch.arange(1, columns + 1, dtype=torch.float64)[None]


for name, parameter in peft_model.named_parameters():
    if "lora_A" in name:
        i, j = grid(*parameter.shape)
        parameter.data = (torch.sin(0.37 * i + 0.11 * j) / math.sqrt(parameter.shape[1])).float()
    elif "lora_B" in name:
        i, j = grid(*parameter.shape)
        parameter.data = (0.01 * torch.cos(0.23 * i + 0.31 * j)).float()
ids = tensors["ids.0"][None]
loss = peft_model(input_ids=ids, labels=ids).loss
loss.backward()
tensors["lora.loss"] = loss.detach().reshape(1)
for name, parameter in peft_model.named_parameters():
    if parameter.grad is not None and (".layers.0." in name or ".layers.15." in name):
        short = name.removeprefix("base_model.model.").replace(".default.weight", "")
        tensors[f"lora.{short}"] = parameter.grad.contiguous()
save_file(tensors, output)
