"""What both sides of `post_training_speed.py` train: one Llama, and rows of one length."""

import random
from dataclasses import dataclass

VOCABULARY, END = 4096, 1
"""Tokens 0 and 1 are padding and the end of a turn; the others are words."""

WORDS = range(2, VOCABULARY)


@dataclass(frozen=True)
class Size:
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    feed_forward: int


SIZES = {"1m": Size(128, 5, 4, 352), "5m": Size(256, 6, 4, 704)}


@dataclass(frozen=True)
class Rows:
    """`count` rows a step (pairs of rows for DPO), each of `prompt` and `answer` tokens, the end among them."""

    count: int
    prompt: int
    answer: int

    @property
    def length(self) -> int:
        return self.prompt + self.answer


ROWS = {"sft": Rows(16, 64, 192), "dpo": Rows(16, 64, 192), "ppo": Rows(64, 32, 64)}
"""Of PPO `count` is the rollouts of an iteration; nothing ends before its last token."""

PASSES, MINIBATCHES = 2, 2
"""Of PPO: how often each answer is learned from, and in how many optimiser steps."""

EXAMPLES = 512


def words(rows: Rows, number: int) -> list[list[int]]:
    """Of example `number`: its prompt, and two answers closed by an end."""
    draw = random.Random(number)
    lengths = (rows.prompt, rows.answer - 1, rows.answer - 1)
    prompt, first, second = ([draw.choice(WORDS) for _ in range(length)] for length in lengths)
    return [prompt, [*first, END], [*second, END]]
