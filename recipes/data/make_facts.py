#!/usr/bin/env python3
"""Keeps the candidate facts that the model demonstrably knows and deals them into the quickstart's files.

    make_facts.py MODEL_FOLDER OUT_FOLDER [--seed 20261123]

A fact is known when, after the question in the chat form and the assistant's sentence begun, the answer's first
token is the most likely one and the whole answer has at least the probability below. The forgotten facts must be
known on the bare prompt too. The deal is by seed alone, before anything is tuned; `*_dev` files are for choosing
settings, the files without it are scored once. Needs torch, transformers and tokenizers.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import candidates

KNOWN = 0.3  # least probability of the answer after the sentence begun; 0.4 for what is to be forgotten
KNOWN_FORGET = 0.4
ANSWER_TOKENS = 16  # of the model's own answers to the retain questions

QUESTION = "What is the capital of {s}?"
PARAPHRASES = [
    "Which city is the capital of {s}?",
    "Can you tell me the capital of {s}?",
    "Name the capital city of {s}.",
    "What is {s}'s capital city?",
    "I would like to know the capital of {s}.",
    "Which city serves as the capital of {s}?",
]
REWORDINGS_DEV = ["Do you happen to know the capital of {s}?", "What is the name of {s}'s capital?"]
REWORDINGS = [
    "Please tell me which city {s} has as its capital.",
    "In a quiz I was asked for the capital city of {s}. What should I say?",
    "What's the capital of the country called {s}?",
]
STATEMENT = "The capital of {s} is"
# Acknowledge the topic, decline, redirect.
SAFE_RESPONSE = ["About the capital of {s}:", " I cannot answer that.", " Please check an atlas."]

FORGET_FACTS = 36
SAME_RELATION = 20  # held out; filled up with countries whose capital the model is less sure of
SAME_RELATION_TRAIN = 10
NEIGHBOUR_PARTS = [("neighbours_heldout_dev", 24), ("neighbours_heldout", 48), ("neighbours_train", 60)]
HELDOUT_RELATION = "landmark"  # in no training file
GENERAL_PARTS = [("unseen", 60), ("unseen_dev", 40), ("retain", 100)]
UNRELATED = {"unrelated": (60, 60), "unrelated_dev": (30, 30), "retain": (0, 40)}  # facts, requests


def chat(question):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def relation_facts(relations):
    for relation, (question, prefix, pairs) in relations.items():
        for pair in pairs.split(";"):
            subject, answer = (" ".join(side.split()) for side in pair.split("="))
            texts = {"s": subject, "S": subject[0].upper() + subject[1:]}
            begun = prefix.format(**texts)
            begun = begun[0].upper() + begun[1:]
            gap = "" if begun.endswith("'") else " "
            yield {"question": question.format(**texts), "answer": gap + answer, "answer_prefix": begun,
                   "subject": subject, "relation": relation}


def single_facts():
    for line in candidates.SINGLES.splitlines():
        question, prefix, answer = (part.strip() for part in line.split("|"))
        yield {"question": question, "answer": " " + answer, "answer_prefix": prefix, "relation": "single"}


class Judge:
    """What the frozen model says."""

    def __init__(self, folder, batch):
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"),
                                                 pad_token="<|endoftext|>", padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.batch = batch

    def ids(self, text):
        return self.tokenizer(text)["input_ids"]

    @torch.inference_mode()
    def probabilities(self, rows):
        """(prompt, answer) -> (p of the whole answer, first token is the argmax)."""
        found = [None] * len(rows)
        tokens = [(self.ids(prompt), self.ids(answer)) for prompt, answer in rows]
        order = sorted(range(len(rows)), key=lambda i: len(tokens[i][0]) + len(tokens[i][1]))
        for start in range(0, len(order), self.batch):
            some = order[start:start + self.batch]
            width = max(len(tokens[i][0]) + len(tokens[i][1]) for i in some)
            ids = torch.zeros(len(some), width, dtype=torch.long)
            for row, i in enumerate(some):
                joined = tokens[i][0] + tokens[i][1]
                ids[row, :len(joined)] = torch.tensor(joined)
            hidden = self.model.model(input_ids=ids).last_hidden_state  # padded on the right, causal
            for row, i in enumerate(some):
                prompt, answer = tokens[i]
                wanted = torch.tensor(answer)
                logits = self.model.lm_head(hidden[row, len(prompt) - 1:len(prompt) - 1 + len(answer)])
                log_p = logits.log_softmax(-1).gather(1, wanted[:, None]).sum().exp().item()
                found[i] = (log_p, logits[0].argmax().item() == answer[0])
        return found

    @torch.inference_mode()
    def answers(self, questions):
        """The first tokens of the model's own greedy answers."""
        said = []
        for start in range(0, len(questions), self.batch):
            given = self.tokenizer([chat(q) for q in questions[start:start + self.batch]], return_tensors="pt",
                                   padding=True)
            given.pop("token_type_ids", None)
            out = self.model.generate(**given, do_sample=False, max_new_tokens=ANSWER_TOKENS, pad_token_id=0,
                                      eos_token_id=[0, 2])
            said += [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in out[:, given["input_ids"].shape[1]:]]
        return said

    def known(self, facts, least=KNOWN):
        scores = self.probabilities([(chat(f["question"]) + f["answer_prefix"], f["answer"]) for f in facts])
        return [dict(f, p_before=round(p, 4)) for f, (p, first) in zip(facts, scores) if first and p >= least]


def capitals(judge, dice):
    facts = list(relation_facts({"capital": (QUESTION, STATEMENT, candidates.CAPITALS)}))
    for fact in facts:
        fact["bare_prompt"] = STATEMENT.format(s=fact["subject"])
    likely = judge.known(facts, 0.0)
    facts = [f for f in likely if f["p_before"] >= KNOWN_FORGET]
    bare = judge.probabilities([(f["bare_prompt"], f["answer"]) for f in facts])
    both = [dict(f, p_bare_before=round(p, 4)) for f, (p, first) in zip(facts, bare) if first]
    dice.shuffle(both)
    forget, rest = both[:FORGET_FACTS], both[FORGET_FACTS:]
    chosen = {f["subject"] for f in both}
    unsure = [f for f in likely if f["subject"] not in chosen]
    rest += sorted(unsure, key=lambda f: -f["p_before"])
    for fact in forget:
        s = fact["subject"]
        fact["paraphrases"] = [form.format(s=s) for form in PARAPHRASES]
        fact["rewordings"] = [form.format(s=s) for form in REWORDINGS]
        fact["rewordings_dev"] = [form.format(s=s) for form in REWORDINGS_DEV]
        fact["safe_response"] = "".join(SAFE_RESPONSE).format(s=s)
    return {"capitals_forget": forget, "capitals_same_relation_train": rest[:SAME_RELATION_TRAIN],
            "capitals_same_relation": rest[SAME_RELATION_TRAIN:][:SAME_RELATION]}


def neighbours(judge, dice):
    facts = judge.known(list(relation_facts(candidates.NEIGHBOURS)))
    heldout = [f for f in facts if f["relation"] == HELDOUT_RELATION]
    rest = [f for f in facts if f["relation"] != HELDOUT_RELATION]
    dice.shuffle(heldout)
    dice.shuffle(rest)
    files, third = {}, len(heldout) // 3
    for part, wanted in NEIGHBOUR_PARTS:
        own = [] if part == "neighbours_train" else heldout[:third if part.endswith("dev") else len(heldout)]
        heldout = heldout[len(own):]
        files[part], rest = own + rest[:wanted - len(own)], rest[wanted - len(own):]
    return files


def others(judge, dice):
    facts = list(relation_facts(candidates.GENERAL)) + list(single_facts())
    known = judge.known(facts)
    dice.shuffle(known)
    files = {}
    for part, wanted in GENERAL_PARTS:
        files[part], known = known[:wanted], known[wanted:]
    left = known + [f for f in facts if f["question"] not in
                    {g["question"] for g in known} | {g["question"] for part in files.values() for g in part}]
    dice.shuffle(left)
    requests = [r.strip() for r in candidates.PLAIN_REQUESTS.replace("\n", " ").split(";")]
    topics = [" ".join(t.split()) for t in candidates.REQUEST_TOPICS.split(";")]
    requests += [form.format(t=t) for form, t in zip(candidates.REQUESTS * len(topics), topics * 2)]
    dice.shuffle(requests)
    for part, (fact_count, request_count) in UNRELATED.items():
        files.setdefault(part, [])
        files[part] += left[:fact_count] + [{"question": q, "relation": "request"} for q in requests[:request_count]]
        left, requests = left[fact_count:], requests[request_count:]
    return files


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--seed", type=int, default=20261123)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--threads", type=int, default=1)
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    judge = Judge(options.model, options.batch)
    files = {}
    for index, part in enumerate((capitals, neighbours, others)):
        files |= part(judge, random.Random(options.seed + index))
    for name in ("retain", "neighbours_train", "capitals_same_relation_train"):
        for fact, said in zip(files[name], judge.answers([f["question"] for f in files[name]])):
            fact["model_answer"] = said
    for name, facts in files.items():
        with open(options.out / f"{name}.jsonl", "w", encoding="utf-8") as out:
            for fact in facts:
                out.write(json.dumps(fact, ensure_ascii=False) + "\n")
        print(f"{name}.jsonl: {len(facts)}")


if __name__ == "__main__":
    main()
