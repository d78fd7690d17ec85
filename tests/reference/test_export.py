"""What a run leaves behind, opened by the libraries its users have: transformers and PEFT.

A short run on SmolLM2 (3 steps, few tokens) on two ranks; then the exported folder and the adapter are loaded,
their logits compared with each other, and the untouched tensors with the source's, byte for byte.
"""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = os.environ.get("EFFACE_SMOLLM2", "")
PROGRAM = ROOT / "build/tests/efface"
PROMPT = "<|im_start|>user\nWhat is the capital of Hungary?<|im_end|>\n<|im_start|>assistant\n"


@unittest.skipUnless(MODEL and PROGRAM.exists(), "SmolLM2 or the program is not present")
class ExportOpensElsewhere(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(2)
        cls.torch = torch
        cls.folder = tempfile.TemporaryDirectory()
        cls.run_folder = pathlib.Path(cls.folder.name) / "run"
        done = subprocess.run(
            [ROOT / "tests/support/run_ranks", "2", PROGRAM, "run", ROOT / "recipes/configs/quickstart-nsru.yaml",
             f"model.path={MODEL}", f"output.folder={cls.run_folder}", "nullspace.max_tokens=3000",
             "nullspace.max_heldout_tokens=500", "train.steps=3", "train.warmup_steps=0", "evaluate.before=no",
             "evaluate.after=no", "lora.target_modules=[q_proj, o_proj, down_proj]"],
            capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"efface run ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        export = cls.run_folder / "export"
        cls.huggingface, cls.peft = export / "huggingface", export / "peft"
        cls.tokenizer = AutoTokenizer.from_pretrained(cls.huggingface)
        cls.merged = AutoModelForCausalLM.from_pretrained(cls.huggingface, dtype=torch.float32).eval()
        base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
        cls.adapted = PeftModel.from_pretrained(base, cls.peft).eval()

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def logits(self, model):
        ids = self.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
        with self.torch.no_grad():
            return model(ids).logits

    def test_adapter_and_merged_model_have_the_same_logits(self):
        merged, adapted = self.logits(self.merged), self.logits(self.adapted)
        self.assertLessEqual((merged - adapted).abs().max().item(), 1e-4 * merged.abs().max().item())

    def test_the_run_changed_the_model(self):
        with self.adapted.disable_adapter():
            before = self.logits(self.adapted)
        self.assertGreater((self.logits(self.adapted) - before).abs().max().item(), 1e-3)

    def test_greedy_text_is_that_of_efface(self):
        ids = self.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
        with self.torch.no_grad():
            expected = self.merged.generate(ids, attention_mask=self.torch.ones_like(ids), max_new_tokens=16, do_sample=False)
        expected = self.tokenizer.decode(expected[0, ids.shape[1]:], skip_special_tokens=True)
        said = subprocess.run([PROGRAM, "generate", self.huggingface, "--prompt", PROMPT, "--template", "none",
                               "--max-new-tokens", "16"], capture_output=True, text=True, check=True).stdout
        self.assertEqual(said.strip(), expected.strip())

    def test_score_is_that_of_transformers(self):
        line = {"prompt": PROMPT, "completion": "The capital of Hungary is Budapest."}
        file = pathlib.Path(self.folder.name) / "lines.jsonl"
        file.write_text(json.dumps(line) + "\n")
        said = subprocess.run([PROGRAM, "score", self.huggingface, file, "--template", "none"], capture_output=True,
                              text=True, check=True).stdout
        answer = json.loads(said)
        prompt = self.tokenizer(PROMPT)["input_ids"]
        ids = prompt + answer["tokens"]
        with self.torch.no_grad():
            logp = self.merged(self.torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = [logp[len(prompt) + i - 1, token].item() for i, token in enumerate(answer["tokens"])]
        self.assertEqual(len(answer["logprobs"]), len(expected))
        for ours, theirs in zip(answer["logprobs"], expected):
            self.assertAlmostEqual(ours, theirs, delta=2e-4)

    def test_untouched_tensors_are_bit_identical(self):
        from safetensors import safe_open

        touched = ("q_proj", "o_proj", "down_proj")
        with safe_open(f"{MODEL}/model.safetensors", "pt") as source, \
                safe_open(self.huggingface / "model.safetensors", "pt") as result:
            self.assertEqual(set(source.keys()), set(result.keys()))
            changed = {name for name in source.keys()
                       if not self.torch.equal(source.get_tensor(name), result.get_tensor(name))}
        self.assertTrue(changed)
        self.assertTrue(all(any(part in name for part in touched) for name in changed), changed)


if __name__ == "__main__":
    unittest.main()
