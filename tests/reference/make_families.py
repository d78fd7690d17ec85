"""make_families.py OUTPUT_FOLDER: a tiny random model of every family, and what transformers and PEFT say of it.

A folder a family, with every switch turned on in which the family differs from Llama: config.json,
model.safetensors, and reference.safetensors for tests/core/model/families_test.cpp:
  ids.N            [tokens] of row N
  log_p.N          [tokens - 1, vocab] fp32: log-probabilities after each token (eager attention)
  log_p_bf16.N, log_p_bf16_sdpa.N    the same of the bf16 model, with eager attention and with sdpa (which leaves out
                   Gemma 2's cap)
  lora.NAME.lora_A, .lora_B    gradients of the mean next-token loss of row 0 by PEFT adapters on all linears:
                   r 4, alpha 8, A[i,j] = sin(0.37 (i+1) + 0.11 (j+1)) / sqrt(in),
                   B[i,j] = 0.01 cos(0.23 (i+1) + 0.31 (j+1))
  lora.loss        that loss
  prompt.N, answer.N    greedy generation
"""
import math
import pathlib
import sys

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

torch.set_num_threads(1)
VOCAB, LENGTHS, NEW_TOKENS, STANDARD_DEVIATION = 97, (40, 23), 20, 0.25
SIZES = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=8,
             num_key_value_heads=4, max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
             pad_token_id=None, rope_theta=500.0, attn_implementation="eager")
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def rope(kind, **rest):
    return {"rope_type": kind, **rest}


def llama(**changes):
    return transformers.LlamaConfig, {"head_dim": 8, **changes}


LONGROPE = {"type": "longrope", "short_factor": [1.0, 1.25, 1.5], "long_factor": [1.5, 3.0, 6.0]}
FAMILIES = {
    "llama_biases": llama(attention_bias=True, mlp_bias=True, head_dim=4, tie_word_embeddings=True),
    "llama_linear": llama(rope_scaling=rope("linear", factor=4.0)),
    "llama_dynamic": llama(rope_scaling=rope("dynamic", factor=4.0), max_position_embeddings=16),
    "llama_llama3": llama(rope_scaling=rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                            original_max_position_embeddings=16)),
    "llama_yarn": llama(rope_scaling=rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama_kv2": llama(num_key_value_heads=2, attention_bias=True),
    "llama_kv1": llama(num_key_value_heads=1),
    "smollm3": (transformers.SmolLM3Config, dict(no_rope_layer_interval=2, use_sliding_window=True,
                                                 sliding_window=9)),
    "mistral": (transformers.MistralConfig, dict(sliding_window=7, head_dim=12)),
    "qwen2": (transformers.Qwen2Config, dict(use_sliding_window=True, sliding_window=7, max_window_layers=2)),
    "qwen3": (transformers.Qwen3Config, dict(head_dim=8, attention_bias=True, use_sliding_window=True,
                                             sliding_window=5, max_window_layers=1)),
    "phi3": (transformers.Phi3Config, dict(hidden_size=64, partial_rotary_factor=0.75, rope_scaling=LONGROPE,
                                           original_max_position_embeddings=32, sliding_window=9)),
    "gemma2": (transformers.Gemma2Config, dict(head_dim=8, query_pre_attn_scalar=20, sliding_window=6,
                                               attn_logit_softcapping=2.0, final_logit_softcapping=3.0)),
    "gemma3": (transformers.Gemma3TextConfig, dict(head_dim=8, query_pre_attn_scalar=20, sliding_window=6,
                                                   sliding_window_pattern=2, rope_theta=10000.0,
                                                   rope_local_base_freq=100.0, final_logit_softcapping=5.0,
                                                   rope_scaling=rope("linear", factor=2.0))),
    "mixtral": (transformers.MixtralConfig, dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=11)),
    "qwen3_moe": (transformers.Qwen3MoeConfig, dict(
        head_dim=8, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=16, decoder_sparse_step=1,
        mlp_only_layers=[1], norm_topk_prob=True, attention_bias=True, use_sliding_window=True, sliding_window=13)),
}


def randomise(model):
    """Norms, biases and routers too, so that nothing is left at the value that hides a mistake."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        centre = 1.0 if "norm" in name and "Gemma" not in type(model).__name__ else 0.0
        parameter.data = centre + noise * STANDARD_DEVIATION


def grid(parameter):
    rows, columns = parameter.shape
    i = torch.arange(1, rows + 1, dtype=torch.float64)[:, None]
    j = torch.arange(1, columns + 1, dtype=torch.float64)[None]
    return i, j


def lora_step(model, ids):
    """The gradients of one step, by the module's name in the file."""
    names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    peft_model = get_peft_model(model, LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, target_modules=sorted(names - {"lm_head", "gate"})))
    for name, parameter in peft_model.named_parameters():
        if "lora_A" in name:
            i, j = grid(parameter)
            parameter.data = (torch.sin(0.37 * i + 0.11 * j) / math.sqrt(parameter.shape[1])).float()
        elif "lora_B" in name:
            i, j = grid(parameter)
            parameter.data = (0.01 * torch.cos(0.23 * i + 0.31 * j)).float()
    loss = peft_model(input_ids=ids, labels=ids).loss
    loss.backward()
    tensors = {"lora.loss": loss.detach().reshape(1)}
    for name, parameter in peft_model.named_parameters():
        if "lora_" in name:
            gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            short = name.removeprefix("base_model.model.").replace(".default.weight", "")
            tensors[f"lora.{short}"] = gradient.contiguous()
    return tensors


def log_p(model, ids):
    with torch.no_grad():
        return model(ids, use_cache=False).logits[0, :-1].float().log_softmax(-1).contiguous()


def load(folder, **options):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def make(folder, kind, changes):
    config = kind(**{**SIZES, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    randomise(model)
    model.save_pretrained(folder)
    rows = [torch.randint(0, VOCAB, (1, length), generator=torch.Generator().manual_seed(length)) for length in LENGTHS]
    tensors = {}
    model = load(folder, dtype=torch.float32, attn_implementation="eager")
    for n, ids in enumerate(rows):
        tensors[f"ids.{n}"] = ids[0].clone()
        # A fresh model each: dynamic RoPE remembers the longest row it has seen.
        tensors[f"log_p.{n}"] = log_p(load(folder, dtype=torch.float32, attn_implementation="eager"), ids)
        for suffix, attention in (("", "eager"), ("_sdpa", "sdpa")):
            bf16 = load(folder, dtype=torch.bfloat16, attn_implementation=attention)
            tensors[f"log_p_bf16{suffix}.{n}"] = log_p(bf16, ids)
        prompt = ids[:, : ids.shape[1] - 10]
        generating = load(folder, dtype=torch.float32, attn_implementation="eager")
        # Where Phi-3's answer outgrows the short factors, transformers fills a new cache without its causal mask.
        answer = generating.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW_TOKENS,
                                     do_sample=False, pad_token_id=0, use_cache=kind is not transformers.Phi3Config)
        tensors[f"prompt.{n}"] = prompt[0].clone()
        tensors[f"answer.{n}"] = answer[0, prompt.shape[1]:].clone()
    tensors.update(lora_step(model, rows[0]))
    save_file(tensors, folder / "reference.safetensors")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    output = pathlib.Path(sys.argv[1])
    for name, (kind, changes) in FAMILIES.items():
        make(output / name, kind, changes)
