"""How far a contender's answers are from float32, with the reference answers fed in.

The prompts and answers are those of tests/data/reference: ids as they stand there for the model they
were made with, and the text, tokenised, for any other. Each prompt is one step and each token of the
answer another, as a generation runs them. What they are compared with is the torch backend in
float32, which the tests hold to llama.cpp's own float32 answers.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bench.kernels.rounds import Accuracy
from bench.kernels.workload import Runner, Workload
from odsi_proto.kernels.source import ModelSource
from odsi_proto.kernels.vocabulary import load_tokenizer

REFERENCE = Path(__file__).parents[2] / "tests" / "data" / "reference" / "smollm2-greedy.json"


class Text(NamedTuple):
    """What is fed in."""

    prompt: list[int]
    answer: list[int]


def texts(source: ModelSource, workload: Workload) -> list[Text]:
    """The reference cases as tokens of this model."""
    content = json.loads(REFERENCE.read_text(encoding="utf-8"))
    if source.path.name == content["model_file"]:
        found = [Text(case["prompt_ids"], case["greedy_ids"]) for case in content["cases"]]
    else:
        encode = load_tokenizer(source).encode
        found = [Text(encode(case["rendered"]), encode(case["text"])) for case in content["cases"]]
    return [Text(text.prompt[: workload.prompt_max], text.answer[: workload.answer_max]) for text in found]


def answers(runner: Runner, fed: Sequence[Text]) -> list[Tensor]:
    """For each text the logits [positions, vocabulary] that each token of the answer was taken from."""
    return [_answer(runner, text) for text in fed]


def compare(reference: Sequence[Tensor], other: Sequence[Tensor]) -> Accuracy:
    """KL divergence of ``other`` from ``reference`` in nats, and how often they agree on the token."""
    kl, same = [], []
    for right, found in zip(reference, other, strict=True):
        expected, had = (torch.log_softmax(logits.double(), -1) for logits in (right, found))
        kl.append((expected.exp() * (expected - had)).sum(-1))
        same.append(right.argmax(-1) == found.argmax(-1))
    kls = torch.cat(kl).clamp_min(0)  # rounding takes a divergence of nothing below it
    return Accuracy(
        kl_mean=kls.mean().item(),
        kl_max=kls.max().item(),
        top1=torch.cat(same).double().mean().item(),
        positions=len(kls),
    )


def _answer(runner: Runner, text: Text) -> Tensor:
    runner.start(len(text.prompt) + len(text.answer))
    try:
        logits = [runner.feed(text.prompt)]
        logits += [runner.feed((token_id,)) for token_id in text.answer[:-1]]
        return torch.stack(logits)
    finally:
        runner.end()
