"""`efface import` against independent readers: the package gguf for the blocks, transformers for the whole model and
`tokenizers` for the ids."""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build/tests/efface"
TOKENIZERS = pathlib.Path(os.environ.get("EFFACE_SHARED_DATA", "/nowhere")) / "tokenizers"
TEXTS = ["Hello, world!", " two  spaces\n\nand\tlines ", "It's 12345 o'clock: don't", "Größe naïve Ελληνικά русский 日本語 한국어",
         "emoji 👩‍👩‍👧 and é combining", "", "x = {'a': [1, 2]}  # code\r\n"]
HIDDEN, INNER, HEADS, KEYS = 256, 512, 8, 4


def pairs_from_halves(weight, heads):
    """llama.cpp's order of the rows of q and k."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_model(file, tokens, types, add_tokenizer, quantisation):
    """A Llama of one layer whose linears have the given type; gives back the values that the file holds, by its names."""
    import gguf
    import numpy

    random = numpy.random.default_rng(1)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1), writer.add_context_length(64), writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER), writer.add_head_count(HEADS), writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(1e-5), writer.add_rope_freq_base(10000.0)
    writer.add_token_list(tokens), writer.add_token_types(types)
    add_tokenizer(writer)
    size = HIDDEN // HEADS
    shapes = {"token_embd": (len(tokens), HIDDEN), "blk.0.attn_q": (HIDDEN, HIDDEN), "blk.0.attn_k": (KEYS * size, HIDDEN),
              "blk.0.attn_v": (KEYS * size, HIDDEN), "blk.0.attn_output": (HIDDEN, HIDDEN), "blk.0.ffn_gate": (INNER, HIDDEN),
              "blk.0.ffn_up": (INNER, HIDDEN), "blk.0.ffn_down": (HIDDEN, INNER)}
    held = {}
    for name, shape in shapes.items():
        if name == "token_embd" or quantisation is None:
            data = random.standard_normal(shape, dtype=numpy.float32) * .02
            held[name] = data
            writer.add_tensor(name + ".weight", data)
            continue
        values, block = gguf.GGML_QUANT_SIZES[quantisation]
        data = random.integers(0, 256, (shape[0], shape[1] // values * block), dtype=numpy.uint8)
        # Any bytes are a block, but its scales are fp16, which must be finite.
        data = data.reshape(-1, block)
        scale_at = {"Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}.get(quantisation.name, [0])
        if quantisation.name in ("F16", "BF16"):
            data[:, 1] &= 0xBB
        else:
            for at in scale_at:
                scales = random.uniform(-.01, .01, len(data)).astype(numpy.float16)
                data[:, at:at + 2] = scales.view(numpy.uint8).reshape(-1, 2)
        data = data.reshape(shape[0], -1)
        held[name] = gguf.quants.dequantize(data, quantisation).reshape(shape)
        writer.add_tensor(name + ".weight", data, raw_dtype=quantisation)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        held[name] = numpy.ones(HIDDEN, dtype=numpy.float32)
        writer.add_tensor(name + ".weight", held[name])
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    return held


def run_import(file, folder):
    done = subprocess.run([PROGRAM, "import", file, folder], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(done.stderr)


@unittest.skipUnless(PROGRAM.exists(), "the program is not present")
class ImportIsExact(unittest.TestCase):
    def test_every_block_type_gives_the_values_of_the_reference(self):
        import gguf
        import numpy
        from safetensors.numpy import load_file

        tokens = ["<|endoftext|>", "a", "b", "ab"]
        types = [3, 1, 1, 1]

        def tokenizer(writer):
            writer.add_tokenizer_model("gpt2"), writer.add_tokenizer_pre("gpt-2"), writer.add_token_merges(["a b"])
            writer.add_eos_token_id(0)

        places = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
                  "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
                  "ffn_down": "mlp.down_proj"}
        for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"):
            with self.subTest(name), tempfile.TemporaryDirectory() as temporary:
                file, folder = pathlib.Path(temporary) / "m.gguf", pathlib.Path(temporary) / "m"
                held = write_model(file, tokens, types, tokenizer, None if name == "F32" else gguf.GGMLQuantizationType[name])
                run_import(file, folder)
                weights = load_file(folder / "model.safetensors")
                for theirs, ours in places.items():
                    weight = weights[f"model.layers.0.{ours}.weight"]
                    if theirs in ("attn_q", "attn_k"):
                        weight = pairs_from_halves(weight, HEADS if theirs == "attn_q" else KEYS)
                    self.assertTrue(numpy.array_equal(weight, held["blk.0." + theirs]), theirs)

    def test_the_tokenizer_gives_the_ids_of_the_original(self):
        from tokenizers import Tokenizer

        if not TOKENIZERS.exists():
            self.skipTest("the shared tokenizers are not present")
        for name, pre in (("gpt2", "gpt-2"), ("llama3", "llama-bpe"), ("qwen3", "qwen2"), ("mistral", None)):
            with self.subTest(name), tempfile.TemporaryDirectory() as temporary:
                original = TOKENIZERS / name / "tokenizer.json"
                described = json.loads(original.read_text())
                by_id = {id: text for text, id in described["model"]["vocab"].items()}
                special = {token["id"]: token for token in described["added_tokens"]}
                by_id.update({id: token["content"] for id, token in special.items()})
                tokens = [by_id[id] for id in range(len(by_id))]
                types = [(3 if special[id]["special"] else 4) if id in special else 1 for id in range(len(tokens))]
                merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in described["model"]["merges"]]

                def tokenizer(writer):
                    if pre:
                        writer.add_tokenizer_model("gpt2"), writer.add_tokenizer_pre(pre), writer.add_token_merges(merges)
                        writer.add_add_bos_token(False)
                        return
                    rank = {}
                    for place, merge in enumerate(merges):
                        rank.setdefault(merge.replace(" ", "", 1), place)
                    writer.add_tokenizer_model("llama")
                    writer.add_token_scores([-float(rank.get(text, len(merges))) for text in tokens])
                    writer.add_unk_token_id(0), writer.add_bos_token_id(1), writer.add_eos_token_id(2)

                file, folder = pathlib.Path(temporary) / "m.gguf", pathlib.Path(temporary) / "m"
                write_model(file, tokens, types, tokenizer, None)
                run_import(file, folder)
                theirs, ours = Tokenizer.from_file(str(original)), Tokenizer.from_file(str(folder / "tokenizer.json"))
                hard = TOKENIZERS / "fixtures"
                strings = TEXTS + [text for each in sorted(hard.glob("*.inp"))[:1]
                                   for text in each.read_text().split("\n__ggml_vocab_test__\n")]
                for text in strings:
                    self.assertEqual(ours.encode(text).ids, theirs.encode(text).ids, repr(text))
                    self.assertEqual(ours.decode(ours.encode(text).ids), theirs.decode(theirs.encode(text).ids), repr(text))


if __name__ == "__main__":
    unittest.main()
