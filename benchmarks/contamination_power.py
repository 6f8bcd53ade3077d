"""How often a test must be trained on before its order gives it away: `python benchmarks/contamination_power.py`.

Small models are trained on a text of random words into which a test file is injected 0, 1, 2, 4 or 8 times in its
published order. The exchangeability test (Oren et al. 2023) then asks each model. Without a leak its p-values must be
uniform; with more copies they fall. Every model has a text and a test of its own, and reads its text five times.

Writes `power.json` and the figure `contamination_power` (PNG and SVG). What `power.json` holds is not made again, so a
call that was stopped goes on.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import kstest

from maquette.artifacts.files import write_json
from maquette.artifacts.progress import progress
from maquette.evaluation.contamination import ContaminationTest, contamination_test
from maquette.model import LanguageModel, TransformerConfig
from maquette.model.scoring import score_continuations
from maquette.reports.figures import COLORS, new_figure, save_figure

COPIES = (0, 1, 2, 4, 8)
WORDS, LENGTH, SENTENCES = 300, 6, 2800
"""The vocabulary, words of a sentence, and sentences of the text without the leak. Word 0 ends a sentence."""
EXAMPLES, SHARDS, PERMUTATIONS = 100, 20, 12
CONTEXT, WIDTH, BATCH, EPOCHS, RATE = 32, 64, 4, 5, 3e-3

Sentences = NDArray[np.int64]


def sentences(count: int, generator: np.random.Generator) -> Sentences:
    """Random words and an end, (count, LENGTH + 1)."""
    return np.pad(generator.integers(1, WORDS, (count, LENGTH)), ((0, 0), (0, 1)))


def train(examples: Sentences, copies: int, seed: int) -> LanguageModel:
    """A model of random sentences among which `examples` stand `copies` times, in their order, at random places."""
    generator = np.random.default_rng([seed, 1])
    text = sentences(SENTENCES, generator)
    for place in sorted(generator.integers(0, SENTENCES, copies), reverse=True):
        text = np.concatenate([text[:place], examples, text[place:]])
    tokens = torch.from_numpy(text.reshape(-1))
    rows = tokens[: len(tokens) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    shape = TransformerConfig(
        WORDS, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=CONTEXT
    )
    model = LanguageModel(shape, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    shuffler = torch.Generator().manual_seed(seed)
    batches = [batch for _ in range(EPOCHS) for batch in torch.randperm(len(rows), generator=shuffler).split(BATCH)]
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20) * (1 - step / len(batches))
        chosen = rows[batch]
        loss = F.cross_entropy(model(chosen[:, :-1]).flatten(0, 1), chosen[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


class InOrder:
    """Log-likelihood of sentences one after another, read in windows of the model's context."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def many(self, orderings: list[list[Sentences]]) -> list[float]:
        pairs, owner = [], []
        for number, order in enumerate(orderings):
            tokens = [0, *np.concatenate(order).tolist()]
            for start in range(1, len(tokens), CONTEXT // 2):
                end = min(start + CONTEXT // 2, len(tokens))
                pairs.append((tokens[max(0, end - CONTEXT - 1) : start], tokens[start:end]))
                owner.append(number)
        totals = np.zeros(len(orderings))
        np.add.at(totals, owner, [score.log_prob for score in score_continuations(self._model, pairs)])
        return totals.tolist()

    def __call__(self, order: list[Sentences]) -> float:
        return self.many([order])[0]


def measure(copies: int, seed: int) -> ContaminationTest:
    """Plants, trains and tests once."""
    examples = sentences(EXAMPLES, np.random.default_rng([seed, 2]))
    model = train(examples, copies, seed)
    return contamination_test(InOrder(model), list(examples), permutations=PERMUTATIONS, shards=SHARDS, seed=seed)


def draw(p_values: dict[str, list[float]], path: Path) -> None:
    """P-values by copies, and those without a leak against a uniform's."""
    figure, (left, right) = new_figure(1, 2, width=4.6, height=3.6)
    for place, copies in enumerate(COPIES):
        values = np.maximum(p_values[str(copies)], 1e-12)
        left.semilogy(
            place + np.linspace(-0.18, 0.18, len(values)), values, "o", color=COLORS[0], alpha=0.6, markersize=4
        )
        left.semilogy([place - 0.3, place + 0.3], [np.median(values)] * 2, color=COLORS[1], linewidth=2)
    left.axhline(0.05, color="#777777", linestyle="--", linewidth=1)
    left.set_xticks(range(len(COPIES)), [str(copies) for copies in COPIES])
    left.set_xlabel("copies of the test in the training text")
    left.set_ylabel("p-value (line: median; dashed: 0.05)")
    clean = np.sort(p_values["0"])
    right.plot([0, 1], [0, 1], color="#777777", linestyle="--", linewidth=1)
    steps = np.append(np.arange(len(clean) + 1), len(clean)) / len(clean)
    right.step(np.concatenate([[0], clean, [1]]), steps, where="post", color=COLORS[0])
    right.set_xlabel("p-value without a leak")
    right.set_ylabel("share of models (dashed: uniform)")
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("outputs/contamination"))
    parser.add_argument("--models", type=int, default=6, help="of each number of copies; without a leak twice as many")
    options = parser.parse_args()
    if options.models < 1:
        parser.error("--models must be at least 1")
    torch.set_num_threads(1)
    file = options.folder / "power.json"
    minima: dict[str, list[float]] = json.loads(file.read_text()) if file.exists() else {}
    wanted = {copies: options.models * (2 if copies == 0 else 1) for copies in COPIES}
    with progress("models", sum(wanted.values()), unit="models") as advance:
        for number in range(2 * options.models):  # one of each in turn: stopped early, all have some
            for copies in COPIES:
                done = minima.setdefault(str(copies), [])
                if number < wanted[copies]:
                    if len(done) <= number:
                        done.append(measure(copies, seed=number + 1000 * copies).p_value)
                        write_json(file, minima)
                    advance(1)
    draw(minima, options.folder / "contamination_power")
    for copies in COPIES:
        values = np.array(minima[str(copies)])
        summary = f"median p {np.median(values):.2g}, below 0.05 for {np.sum(values < 0.05)} of {len(values)} models"
        uniform = f"; against a uniform: Kolmogorov-Smirnov p {kstest(values, 'uniform').pvalue:.2f}"
        print(f"{copies} copies: {summary}{uniform if copies == 0 else ''}")
    print(f"Open {options.folder / 'contamination_power.png'}")


if __name__ == "__main__":
    main()
