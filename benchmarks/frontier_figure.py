"""The picture of docs/results.md: gold and learned reward over KL divergence, from the tables of `+sweep=kl_frontier`.

python benchmarks/frontier_figure.py [--to outputs/frontier.png]
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from maquette.reports.figures import COLORS, new_figure

DATA = Path(__file__).parents[1] / "notebooks" / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("outputs/frontier.png"))
    arguments = parser.parse_args()
    policies, best_of_n = (
        pd.read_csv(DATA / f"{name}.csv").query("study == 'KL frontier'") for name in ("alignment", "best_of_n")
    )
    figure, panels = new_figure(1, 2, width=5.4)
    for panel, column, title in zip(panels, ("gold", "reward"), ("Gold reward", "Learned reward"), strict=True):
        panel.plot(np.sqrt(best_of_n["kl"]), best_of_n[column], "--", color="gray", label="best of n")
        for n, kl, value in best_of_n[["n", "kl", column]].itertuples(index=False):
            panel.annotate(f"n={n}", (np.sqrt(kl), value), fontsize=7, xytext=(3, 3), textcoords="offset points")
        for name, color in zip(("sft", "dpo", "ppo"), COLORS, strict=False):
            rows = policies[policies["policy"].str.startswith(name)].sort_values("kl")
            bars = [rows["gold"] - rows["gold_low"], rows["gold_high"] - rows["gold"]] if column == "gold" else None
            label = {"dpo": "DPO, beta 3 to 0.1", "ppo": "PPO, coefficient 1 to 0.03"}.get(name, "SFT")
            panel.errorbar(np.sqrt(rows["kl"]), rows[column], bars, marker="o", capsize=3, color=color, label=label)
        panel.set(title=title, xlabel="square root of the KL divergence from SFT", ylabel="per completion")
        panel.legend(fontsize=8)
    arguments.to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.to, dpi=80)
    print(arguments.to)


if __name__ == "__main__":
    main()
