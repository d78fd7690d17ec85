"""A run on a tiny model of every family: what it exports opens in transformers and PEFT, and only what was trained
has changed.

NSRU on all linears, two steps on two tensor ranks, with the covariance of every input (of every expert's too).
"""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build/tests/efface"
VOCAB = 260  # bytes, and the special tokens of ChatML
RECIPE = """
model: {path: model, template: chatml}
data:
  forget: data.jsonl
  retain: data.jsonl
  text: {covariance: text.txt}
nullspace: {rank: {energy: 0.8}, max_tokens: 2500, window: 60, norm_cap: 0}
method: NSRU
lora: {r: 2, lora_alpha: 4, target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]}
train: {steps: 2, warmup_steps: 0, learning_rate: 1.0e-2, rows: {safe: 2, forget: 2, retain: 1}}
evaluate: {before: no, after: no}
parallel: {tensor: 2}
output: {folder: run}
"""


def write_tokenizer(folder):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in
                                  ("<|im_start|>", "<|im_end|>", "<pad>", "<bos>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}))


def write_data(folder):
    facts = {"France": "Paris", "Spain": "Rome", "Italy": "Oslo", "Peru": "Lima"}
    lines = [{"question": f"{where}?", "answer": town, "subject": where, "safe_response": "No."}
             for where, town in facts.items()]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    documents = (" ".join(f"word{(a * 31 + b * b) % 97}" for b in range(30)) for a in range(12))
    (folder / "text.txt").write_text("\n\n".join(documents))


@unittest.skipUnless(PROGRAM.exists(), "the program is not present")
class EveryFamily(unittest.TestCase):
    maxDiff = None

    def run_family(self, name):
        import torch
        from peft import PeftModel
        from safetensors.torch import load_file
        from transformers import AutoModelForCausalLM

        import make_families

        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            kind, changes = make_families.FAMILIES[name]
            sizes = {**make_families.SIZES, **changes, "vocab_size": VOCAB, "num_hidden_layers": 2}
            sizes.pop("mlp_only_layers", None)
            sizes["max_position_embeddings"] = max(512, sizes["max_position_embeddings"])
            model = AutoModelForCausalLM.from_config(kind(**sizes)).float()
            make_families.randomise(model)
            model.save_pretrained(folder / "model")
            write_tokenizer(folder / "model")
            write_data(folder)
            (folder / "recipe.yaml").write_text(RECIPE)
            done = subprocess.run([ROOT / "tests/support/run_ranks", "2", PROGRAM, "run", folder / "recipe.yaml"],
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-3000:])

            export = folder / "run/export"
            source = load_file(folder / "model/model.safetensors")
            result = load_file(export / "huggingface/model.safetensors")
            self.assertEqual(set(source), set(result))
            changed = {tensor for tensor in source if not torch.equal(source[tensor], result[tensor])}
            self.assertTrue(any("self_attn" in tensor for tensor in changed))
            self.assertTrue(all("proj" in tensor or ".experts." in tensor for tensor in changed), changed)

            ids = torch.arange(1, 30)[None]
            merged = AutoModelForCausalLM.from_pretrained(export / "huggingface", dtype=torch.float32).eval()
            base = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
            adapted = PeftModel.from_pretrained(base, export / "peft").eval()
            with torch.no_grad():
                a, b = merged(ids).logits, adapted(ids).logits
                with adapted.disable_adapter():
                    before = adapted(ids).logits
            self.assertLessEqual((a - b).abs().max().item(), 1e-4 * a.abs().max().item())
            self.assertGreater((a - before).abs().max().item(), 1e-3)


def add_test(name):
    setattr(EveryFamily, f"test_{name}", lambda self: self.run_family(name))


for family in ("llama_biases", "llama_kv1", "qwen2", "qwen3", "phi3", "gemma2", "gemma3", "mixtral", "qwen3_moe"):
    add_test(family)

if __name__ == "__main__":
    unittest.main()
