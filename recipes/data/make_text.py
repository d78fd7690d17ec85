#!/usr/bin/env python3
"""Samples the quickstart's general text from the frozen model, once, and deals it into parts that share no document.

    make_text.py MODEL_FOLDER OUT_FOLDER [--seed 20261123]

MODEL_FOLDER is SmolLM2-135M-Instruct as `launch/quickstart` converts it. Needs torch, transformers and tokenizers.
Two kinds of documents, turn about: a plain page that the model continues from its title and first words, and the
model's reply to a request in the chat form. Documents are separated by a blank line and hold none themselves.
"""

import argparse
import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

# Tokens wanted in each part; a part is closed by the document that reaches its figure.
PARTS = [("covariance", 31000), ("heldout", 4500), ("retain", 5500), ("perplexity", 4500)]

TOPICS = """volcanoes; bread baking; the life cycle of butterflies; photosynthesis; bicycles; honey bees; tides;
jazz; chess openings; vaccines; the printing press; sleep; whales; gardening in small spaces; earthquakes; coffee;
steam engines; the human heart; owls; glaciers; pottery; sorting algorithms; public libraries; running a marathon;
the water cycle; dinosaurs; solar panels; the violin; cheese; spiders; budgeting; thunderstorms; origami; trains;
mushrooms; the immune system; swimming; lighthouses; chocolate; antibiotics; telescopes; desert plants; knitting;
batteries; football tactics; dreams; penguins; bridges; tea; rivers; photography; genetics; the abacus; salt;
friendship; coral reefs; clocks; tomatoes; magnetism; horses; paper; rainbows; teeth; folk songs; recycling; wolves;
moon phases; cooking rice; hiking safely; job interviews; poetry; mathematics homework; the periodic table; dogs;
email etiquette; ants; wind power; soap; elephants; yoga; stars; public speaking; compilers; fairy tales; onions;
the nervous system; kites; firefighters; black holes; apples; statistics; sharks; writing a diary; wool; databases;
the skeleton; snow; bats; rockets; the guitar; learning a language; forests; cats; gravity; vitamins; painting;
snails; computer networks; a day at the beach; neighbours; grandparents; a lost key; a small bakery; winter holidays;
school buses; time management; moving house; a rainy afternoon; an old map; the piano; drawing; robots; insurance;
museum visits; camping; eye care; basketball; frogs; ice cream; a night train; carpentry; a broken window; sailing;
fractions; triangles; probability; prime numbers; fermentation; erosion; bacteria; leaves; eggs; squirrels; cotton;
glass; plastic; concrete; bamboo; maps; calendars; the alphabet; proverbs; comedy; theatre; opera; ballet; weaving;
sculpture; cinema; newspapers; radio; television; telephones; the internet; passwords; spreadsheets; video games;
typing; keyboards; programming in Python; version control; unit tests; data structures; recursion; encryption"""

PAGES = [
    "{Topic}: An Introduction\n{Topic} has",
    "Notes on {topic}\nMany people think that",
    "{Topic}\nIn this article we explain",
    "Chapter 3. {Topic}\nThe first thing to understand about {topic} is",
    "Frequently asked questions about {topic}\nQ: Why",
    "It was late in the evening when they began to talk about {topic}.",
    "A short history of {topic}\nLong before",
    "Dear editor, I read your article on {topic}",
]

REQUESTS = [
    "Write a short article about {topic}.",
    "Tell me a story about {topic}.",
    "Explain {topic} to a ten-year-old.",
    "Give me some practical advice about {topic}.",
    "What should a beginner know about {topic}?",
    "Write a friendly letter to a friend about {topic}.",
    "List some interesting points about {topic} and explain each in a sentence.",
    "Write a dialogue between a teacher and a student about {topic}.",
    "What are common mistakes people make about {topic}?",
    "Describe {topic} in plain language.",
]


def prompts(seed):
    """(what the model is given, what of it belongs to the document), endless and without a repeated pair."""
    topics = [" ".join(topic.split()) for topic in TOPICS.split(";")]
    dice = random.Random(seed)
    pages = [(topic, form) for topic in topics for form in PAGES]
    requests = [(topic, form) for topic in topics for form in REQUESTS]
    dice.shuffle(pages)
    dice.shuffle(requests)
    for (page_topic, page), (topic, request) in zip(pages, requests):
        opening = page.format(topic=page_topic, Topic=page_topic[0].upper() + page_topic[1:])
        yield opening, opening
        question = request.format(topic=topic)
        yield f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", ""


def documents(model, tokenizer, seed, batch, new_tokens):
    torch.manual_seed(seed)
    source = prompts(seed)
    while True:
        some = [next(source) for _ in range(batch)]
        inputs = tokenizer([given for given, _ in some], return_tensors="pt", padding=True)
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            out = model.generate(**inputs, do_sample=True, temperature=0.9, top_k=100, top_p=1.0,
                                 max_new_tokens=new_tokens, pad_token_id=0, eos_token_id=[0, 2])
        for (_, kept), ids in zip(some, out[:, inputs["input_ids"].shape[1]:]):
            text = kept + tokenizer.decode(ids, skip_special_tokens=True)
            yield "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--seed", type=int, default=20261123)
    options.add_argument("--batch", type=int, default=56)
    options.add_argument("--new-tokens", type=int, default=280)
    options.add_argument("--threads", type=int, default=1)
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(options.model / "tokenizer.json"),
                                        pad_token="<|endoftext|>", padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    stream = documents(model, tokenizer, options.seed, options.batch, options.new_tokens)
    for part, wanted in PARTS:
        texts, tokens = [], 0
        while tokens < wanted:
            text = next(stream)
            count = len(tokenizer(text)["input_ids"])
            if count >= 60:
                texts.append(text)
                tokens += count
        (options.out / f"text_{part}.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
        print(f"text_{part}.txt: {len(texts)} documents, {tokens} tokens", flush=True)


if __name__ == "__main__":
    main()
