"""Texts and tokenizers for comparing with Hugging Face's library; also a script that runs the long series.

    python tests/reference/tokenizer_series.py --texts 100000 [--seed 0]
"""
import argparse
import functools
import json
import os
import pathlib
import random
import subprocess
import tempfile
import unicodedata

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKER = ROOT / "build/tests/benchmarks/tokenizer_worker"
SHARED = os.environ.get("EFFACE_SHARED_DATA", "")
SMOLLM2 = os.environ.get("EFFACE_SMOLLM2", "")

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         rf"|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{{N}}{{1,3}}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
POSSESSIVE = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
              r"|\s+(?!\S)|\s+")


def corpus():
    text = "The lighthouse keeper counted 1987 ships, 12 of them at night; it's what we'll remember. "
    if SHARED:
        text += (pathlib.Path(SHARED) / "wikitext/wiki.valid.raw").read_text("utf-8")[:200_000]
    return [line + "\n" for line in text.split("\n") if line] + ["Ünïcödé naïve café 日本語のテキスト Привет мир " * 3]


@functools.cache
def trained_byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=2000, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"]))
    return tokenizer.to_str()


def byte_level_bpe(pre=None, normalizer=None, post=None, added=()):
    tokenizer = Tokenizer.from_str(trained_byte_level())
    if pre:
        tokenizer.pre_tokenizer = pre
    if normalizer:
        tokenizer.normalizer = normalizer
    if post:
        tokenizer.post_processor = post
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(list(added))
    return tokenizer


def split_bytes(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior, invert=invert),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


MARKED = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


@functools.cache
def trained_metaspace(byte_fallback):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=byte_fallback, fuse_unk=True))
    tokenizer.normalizer = MARKED
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.train_from_iterator(corpus()[:-1], trainers.BpeTrainer(
        vocab_size=2000, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"] + (BYTES if byte_fallback else [])))
    return without_added_bytes(tokenizer)


def without_added_bytes(tokenizer):
    """The trainer makes the byte tokens special; in published files they are the model's alone."""
    saved = json.loads(tokenizer.to_str())
    saved["added_tokens"] = [token for token in saved["added_tokens"] if token["content"] not in BYTES]
    return json.dumps(saved)


def metaspace_bpe(pre=None, normalizer=MARKED, byte_fallback=True, fuse_unk=True, added=(), decoder=None):
    tokenizer = Tokenizer.from_str(trained_metaspace(byte_fallback))
    tokenizer.model.fuse_unk = fuse_unk
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre or pre_tokenizers.Sequence([])
    tokenizer.decoder = decoder or decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    tokenizer.add_tokens(list(added))
    return tokenizer


@functools.cache
def trained_unigram(byte_fallback):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(corpus()[:-1], trainers.UnigramTrainer(
        vocab_size=1000, show_progress=False, special_tokens=["<unk>", "<s>"] + (BYTES if byte_fallback else []),
        unk_token="<unk>"))
    saved = json.loads(without_added_bytes(tokenizer))
    saved["model"]["byte_fallback"] = byte_fallback
    return json.dumps(saved)


def unigram(byte_fallback=False, pre=None, normalizer=None):
    tokenizer = Tokenizer.from_str(trained_unigram(byte_fallback))
    tokenizer.normalizer = normalizer or normalizers.NFKC()
    tokenizer.pre_tokenizer = pre or pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def flags():
    """Added tokens with every pair of flags, and some that begin like another."""
    tokens = [AddedToken("<a>", lstrip=True), AddedToken("<b>", rstrip=True), AddedToken("<c>", lstrip=True, rstrip=True),
              AddedToken("word", single_word=True), AddedToken("Norm É", normalized=True),
              AddedToken("raw É", normalized=False), AddedToken("<|im", normalized=False),
              AddedToken("<|im_start|>", normalized=False, special=True),
              AddedToken("  ", normalized=False), AddedToken("Éa", single_word=True, lstrip=True, normalized=True)]
    return tokens


def synthetic():
    n, p = normalizers, pre_tokenizers
    sequence = p.Sequence
    yield "byte level", byte_level_bpe()
    yield "byte level, prefix space, trimmed", byte_level_bpe(
        p.ByteLevel(add_prefix_space=True), post=processors.ByteLevel(trim_offsets=True, add_prefix_space=True), added=flags())
    yield "byte level, trimmed after a template", byte_level_bpe(post=processors.Sequence([
        processors.ByteLevel(trim_offsets=True, add_prefix_space=False),
        processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])]))
    yield "digits", byte_level_bpe(sequence([p.Digits(individual_digits=True), p.ByteLevel(add_prefix_space=False)]))
    yield "digits in runs", byte_level_bpe(sequence([p.Digits(individual_digits=False), p.ByteLevel(add_prefix_space=False)]))
    for name, pattern in (("llama 3", LLAMA3), ("tekken", TEKKEN), ("o200k", O200K), ("possessive", POSSESSIVE)):
        yield name, byte_level_bpe(split_bytes(pattern), n.NFC() if name == "tekken" else None, added=flags())
    for behavior in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            yield f"split {behavior} {invert}", byte_level_bpe(split_bytes(r"\s|[a-e]|\p{P}", behavior, invert))
    yield "general regex", byte_level_bpe(split_bytes(r"(?<=[a-z])(?=[A-Z])|\s+?|.{1,5}?(?= )"))
    yield "punctuation", byte_level_bpe(sequence([p.Punctuation("contiguous"), p.WhitespaceSplit(), p.ByteLevel(add_prefix_space=True, use_regex=False)]))
    yield "whitespace", byte_level_bpe(sequence([p.Whitespace(), p.ByteLevel(add_prefix_space=False)]))
    yield "bytes first", byte_level_bpe(sequence([p.ByteLevel(add_prefix_space=False), p.Digits(individual_digits=True), p.Split("a", "merged_with_next")]))
    for form in (n.NFC(), n.NFD(), n.NFKC(), n.NFKD()):
        yield repr(form), byte_level_bpe(normalizer=form, added=flags())
    yield "lowercase without accents", byte_level_bpe(
        normalizer=n.Sequence([n.NFD(), n.StripAccents(), n.Lowercase(), n.Strip()]), added=flags())
    yield "replacements", byte_level_bpe(normalizer=n.Sequence([
        n.Replace(Regex(r"\s{2,}"), " "), n.Replace("e", "éé"), n.Replace(Regex("b(?=e)"), ""), n.Strip(left=True, right=False)]))
    yield "sentencepiece", metaspace_bpe(added=flags())
    yield "gemma", metaspace_bpe(p.Split(" ", "merged_with_previous"), n.Replace(" ", "▁"),
                                 added=["\n\n", "\n\n\n", "▁▁", "<table>"],
                                 decoder=decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]))
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            yield f"metaspace {scheme} {split}", metaspace_bpe(
                p.Metaspace(prepend_scheme=scheme, split=split), n.Sequence([]), added=flags(),
                decoder=decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme)]))
    yield "unknown fused", metaspace_bpe(byte_fallback=False, fuse_unk=True)
    yield "unknown apart", metaspace_bpe(byte_fallback=False, fuse_unk=False)
    yield "unigram", unigram()
    yield "unigram with bytes", unigram(True, p.Metaspace(prepend_scheme="first"), n.Sequence([]))
    yield "unigram of whole texts", unigram(pre=p.Metaspace(split=False))
    merges_as_text = json.loads(byte_level_bpe().to_str())
    merges_as_text["model"]["merges"] = [" ".join(pair) for pair in merges_as_text["model"]["merges"]]
    merges_as_text["model"]["ignore_merges"] = True
    yield "merges as text, ignored for whole words", Tokenizer.from_str(json.dumps(merges_as_text))


def published():
    for name in ("gpt2", "qwen3", "mistral", "llama3"):
        if SHARED:
            yield name, Tokenizer.from_file(f"{SHARED}/tokenizers/{name}/tokenizer.json")
    if SMOLLM2:
        yield "smollm2", Tokenizer.from_file(f"{SMOLLM2}/tokenizer.json")


def known_alike(character):
    """False for characters newer than the library's tables (Unicode 9 for some), which ours know."""
    category = unicodedata.category(character)
    return (normalizers.NFKD().normalize_str(character) == unicodedata.normalize("NFKD", character)
            and (normalizers.StripAccents().normalize_str(character) == "") == (category[0] == "M")
            and (category[0] != "P" or len(pre_tokenizers.Punctuation().pre_tokenize_str("a" + character)) == 2))


def alphabet():
    """Assigned characters by block of 128, the rarely met ones among them."""
    blocks = {}
    for point in range(0x20, 0x110000):
        character = chr(point)
        if unicodedata.category(character) in ("Cs", "Cn", "Co") and point not in (0xD7FF, 0xE000, 0xFFFD, 0xFFFE, 0x10FFFF):
            continue
        if not known_alike(character):
            continue
        blocks.setdefault(point >> 7, []).append(character)
    return list(blocks.values())


PIECES = ["'s", "'LL", "'ſ", " ", "  ", "\n", "\r\n", "\t", "\u180e", "\u00a0", "\u3000", "\u200d", "\ufe0f", "\ufeff", "\ud7ff",
          "\ue000", "\uffff", "👨‍👩‍👧‍👦", "🇫🇷", "🏳️‍🌈", "👍🏽", "e\u0301", "a\u0323\u0302", "각", "\u1100\u1161\u11a8", "가\u11a8", "ﬃ", "ﷺ", "½", "Ⅷ",
          "İ", "ß", "ǅ", "Σς", "\u0344", "\u0f73\u0327", "नमस्ते", "ภาษาไทย", "שלום", "مرحبا", "<s>", "</s>", "<a>", "<b>", "<c>", "word",
          "Norm É", "raw É", "<|im", "<|im_start|>", "Éa", "<unk>", "<|endoftext|>", "▁", "▁▁", "Ġ", "0", "1234567", "\x00", "\x7f"]


def texts(count, seed):
    """Strings of all scripts: mostly of one block, mixed with hard pieces and words, and a few long runs."""
    rng = random.Random(seed)
    blocks = alphabet()
    words = " ".join(corpus()[:50]).split()
    made = ["", " ", "a" * 20_000, " " * 20_000, "ab" * 10_000, "\n" * 3000, "日" * 5000, "\u0301" * 2000, "▁" * 3000, "😀" * 2000]
    while len(made) < count:
        block = rng.choice(blocks)
        parts = []
        for _ in range(rng.randint(1, 12)):
            kind = rng.random()
            if kind < 0.45:
                parts.append("".join(rng.choice(block) for _ in range(rng.randint(1, 4))))
            elif kind < 0.6:
                parts.append(rng.choice(rng.choice(blocks)))
            elif kind < 0.8:
                parts.append(rng.choice(PIECES))
            else:
                parts.append(rng.choice(words))
            if rng.random() < 0.3:
                parts.append(" ")
        made.append("".join(parts))
    return made


def hard_texts():
    if not SHARED:
        return []
    found = []
    for file in sorted((pathlib.Path(SHARED) / "tokenizers/fixtures").glob("*.inp")):
        found += file.read_text("utf-8").split("\n__ggml_vocab_test__\n")[:-1]
    wikitext = (pathlib.Path(SHARED) / "wikitext/wiki.test.raw").read_text("utf-8")
    return found + [wikitext[:20_000]] + wikitext.split("\n")[:100]


def character_ranges(text, ranges):
    """Offsets in bytes as the library gives them, in characters."""
    at = {}
    byte = 0
    for index, character in enumerate(text):
        for _ in character.encode():
            at[byte] = index
            byte += 1
    at[byte] = len(text)
    return [(at[begin], at[end] if end in at else begin) for begin, end in ranges]


def differences(name, tokenizer, strings):
    """Lines that say what differs; none when everything is equal."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(f"{folder}/tokenizer.json")
        answers = subprocess.run([WORKER, "check", folder], input="\n".join(map(json.dumps, strings)) + "\n", text=True,
                                 capture_output=True)
    lines = answers.stdout.splitlines()
    if answers.returncode or len(lines) != len(strings):
        return [f"{name}: {answers.stderr or len(lines)}"]
    found = []
    for text, line in zip(strings, lines):
        try:
            ours, theirs = json.loads(line), tokenizer.encode(text, add_special_tokens=False)
        except BaseException as panic:  # the library's own, from Rust
            if type(panic).__name__ != "PanicException":
                raise
            continue
        decoded = tokenizer.decode(theirs.ids, skip_special_tokens=False)
        pairs = {"ids": (ours["ids"] or [], theirs.ids), "special": (ours["special"] or [], tokenizer.encode(text).ids),
                 "offsets": (character_ranges(text, ours.get("offsets") or []), theirs.offsets),
                 "decoded": (ours["decoded"], decoded), "streamed": (ours["streamed"], decoded), "same": (ours["same"], True)}
        for what, (mine, expected) in pairs.items():
            if mine != expected:
                found.append(f"{name}: {what} of {text[:60]!r}: {str(mine)[:300]} instead of {str(expected)[:300]}")
                break
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=100_000, help="generated texts for published tokenizers")
    parser.add_argument("--synthetic-texts", type=int, default=3_000, help="for each of the others")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="tokenizers whose names hold this")
    arguments = parser.parse_args()
    total = 0
    for tokenizers, count in ((published(), arguments.texts), (synthetic(), arguments.synthetic_texts)):
        strings = hard_texts() + texts(count, arguments.seed)
        for name, tokenizer in tokenizers:
            if arguments.only in name:
                wrong = differences(name, tokenizer, strings)
                total += len(wrong)
                print(f"{name}: {len(strings)} texts, {len(wrong)} differ", *wrong[:5], sep="\n    ", flush=True)
    print(f"{total} differences")


if __name__ == "__main__":
    main()
