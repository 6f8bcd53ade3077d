"""Are a fine-tuned run's logits the same in Maquette, in `transformers`, and in `peft` on the model it started from?

    python benchmarks/exported_parity.py outputs/runs/<run with adapter=lora>

For a few conversations in the model's own chat template: the largest difference of log-probabilities between Maquette's
reading of the exported model, `transformers`' reading of the same folder, and `peft`'s adapter over the base model;
with how far fine-tuning has moved from the base, and whether the greedy completions are the same.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from maquette.model.generation import generate
from maquette.model.loading import load_checkpoint
from maquette.text.chat import render

REQUESTS = (
    "What is the capital of France?",
    "Write as name|age|town: In Lima lives Kim, who is 29.",
    "Name three colours.\nOne a line, please.",
)
LENGTH = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    from peft import AutoPeftModelForCausalLM, PeftConfig
    from transformers import AutoModelForCausalLM

    adapter = arguments.run / "adapter"
    ours, tokenizer = load_checkpoint(arguments.run)
    begun_from = PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path
    if begun_from is None:
        parser.error(f"{adapter} does not name its model, as adapters of older runs: train it again.")
    base, _ = load_checkpoint(begun_from)
    prompts = [render(tokenizer, [{"role": "user", "content": text}], open_assistant=True).ids for text in REQUESTS]
    written = [one.tokens for one in generate(ours, prompts, tokenizer=tokenizer, max_tokens=LENGTH)]
    rows = [torch.tensor([[*prompt, *text]]) for prompt, text in zip(prompts, written, strict=True)]
    exported: Any = AutoModelForCausalLM.from_pretrained(arguments.run / "model", dtype=torch.float32)
    adapted: Any = AutoPeftModelForCausalLM.from_pretrained(str(adapter), dtype=torch.float32)
    models = {"transformers, exported": exported, "peft over the base": adapted.eval()}
    expected = [log_probs(ours(row)) for row in rows]
    moved = max((log_probs(base(row)) - one).abs().max().item() for row, one in zip(rows, expected, strict=True))
    print(f"{sum(row.numel() for row in rows)} tokens; fine-tuning moved log-probabilities by up to {moved:.2f}")
    for name, model in models.items():
        with torch.no_grad():
            logits = [model(row).logits for row in rows]
        worst = max((log_probs(one) - two).abs().max().item() for one, two in zip(logits, expected, strict=True))
        starts = [len(prompt) - 1 for prompt in prompts]
        same = sum(
            one[0, start : start + len(text)].argmax(-1).tolist() == list(text)
            for one, start, text in zip(logits, starts, written, strict=True)
        )
        print(
            f"{name}: log-probabilities differ by at most {worst:.1e}; {same} of {len(rows)} greedy completions equal"
        )


def log_probs(logits: torch.Tensor) -> torch.Tensor:
    return logits.detach().float().log_softmax(-1)


if __name__ == "__main__":
    main()
