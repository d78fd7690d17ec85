"""Speed of the tokenizer against Hugging Face's library, one thread each, whole texts, taking turns.

    python benchmarks/tokenizer_speed.py --rounds 7 [--only NAME]

Texts: wikitext-2's test set, and this repository's own sources. A fresh process of ours warms up by one encoding, as
the library does; ratios are medians of pairs.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer  # noqa: E402  (it reads the environment when loaded)

ROOT = pathlib.Path(__file__).resolve().parents[1]
WORKER = ROOT / "build/tests/benchmarks/tokenizer_worker"
SHARED = pathlib.Path(os.environ.get("EFFACE_SHARED_DATA", ROOT / "../shared/data"))


def texts():
    yield "wikitext", (SHARED / "wikitext/wiki.test.raw").read_text("utf-8")
    sources = sorted(p for d in ("core", "distributed", "recipes", "launch", "tests") for p in (ROOT / d).rglob("*.[ch]pp"))
    yield "sources", "".join(p.read_text("utf-8") for p in sources)


class Ours:
    def __init__(self, folder, file):
        self.process = subprocess.Popen([WORKER, "time", folder, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds, count = self.process.stdout.readline().split()
        return float(seconds), int(count)


def theirs(tokenizer, text, method):
    begin = time.perf_counter()
    [encoding] = getattr(tokenizer, method)([text], add_special_tokens=False)
    return time.perf_counter() - begin, len(encoding.ids)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    folders = [SHARED / "tokenizers" / name for name in ("gpt2", "qwen3", "mistral", "llama3")]
    if os.environ.get("EFFACE_SMOLLM2"):
        folders.append(pathlib.Path(os.environ["EFFACE_SMOLLM2"]))
    print("| tokenizer | text | MB | efface, MB/s | tokenizers, MB/s | ratio | ratio to encode_batch_fast |\n|---|---|---|---|---|---|---|")
    for folder in folders:
        if arguments.only not in folder.name:
            continue
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        for name, text in texts():
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                ours = Ours(folder, file.name)
                warm, other = ours.seconds(), theirs(tokenizer, text, "encode_batch_fast")
                assert warm[1] == other[1], "the ids differ in number"
                rounds = [(ours.seconds()[0], theirs(tokenizer, text, "encode_batch")[0],
                           theirs(tokenizer, text, "encode_batch_fast")[0]) for _ in range(arguments.rounds)]
                ours.process.stdin.close()
                ours.process.wait()
            size = len(text.encode()) / 1e6
            rate = size / statistics.median(r[0] for r in rounds)
            print(f"| {folder.name} | {name} | {size:.2f} | {rate:.1f} | {size / statistics.median(r[1] for r in rounds):.1f} "
                  f"| {statistics.median(r[1] / r[0] for r in rounds):.1f} | {statistics.median(r[2] / r[0] for r in rounds):.1f} |",
                  flush=True)


if __name__ == "__main__":
    main()
