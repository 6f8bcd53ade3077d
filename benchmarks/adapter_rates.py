"""The best learning rate of an adapter beside that of all weights: fine-tuning of one small model at a grid of both.

    python benchmarks/adapter_rates.py [--seeds 1] [--rank 8]

A model of 64 channels and two layers over bytes is pretrained for a moment on made sentences, then fine-tuned for 40
steps on instructions (ten_runs.py's) at multiples of the rate that the recipe has for all weights: validation loss, in
nats per completion token. Schulman et al. 2025, "LoRA Without Regret", find the best one at about ten times.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from ten_runs import COMMON, PRETRAIN, losses, train, write_inputs

WIDTH = 64
FULL = 0.8 * 0.38 * WIDTH**-1.1
"""What the recipe fine-tunes all weights of this width with."""
GRID = {"all weights": [0.3, 1.0, 3.0, 10.0], "lora": [1.0, 3.0, 10.0, 30.0]}
TASK = ["objective=sft", "instructions.path={root}/instructions.jsonl", "instructions.validation=0.2"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_inputs(root)
        shape = [f"model.hidden_size={WIDTH}", "model.num_hidden_layers=2", "model.num_attention_heads=2",
                 f"model.intermediate_size={2 * WIDTH}"]  # fmt: skip
        words = [word.format(root=root) for word in (*COMMON, *PRETRAIN, *shape, "tokens=204800")]
        [base] = train(root, words)
        print("what is trained, x the recipe's rate for all weights (validation loss over seeds)")
        for what, multiples in GRID.items():
            for multiple in multiples:
                adapter = ["adapter=lora", f"adapter.r={arguments.rank}"] if what == "lora" else []
                values = []
                for seed in range(arguments.seeds):
                    task = [word.format(root=root) for word in TASK]
                    more = [f"optimizer.lr={multiple * FULL}", f"checkpoint={base}", f"seed={seed}"]
                    more += ["objective.batch_size=16", f"trainer.max_steps={arguments.steps}", "callbacks=none"]
                    [run] = train(root, [*COMMON, *task, *adapter, *more])
                    values.append(float(losses(run)["validation"]))
                print(f"{what:12} {multiple:6g} x {statistics.fmean(values):8.4f}", flush=True)


if __name__ == "__main__":
    main()
