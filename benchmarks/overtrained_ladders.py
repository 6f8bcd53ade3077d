"""The predictor on somebody else's ladders: the 104 runs of Gadre et al. 2024 ("Language models scale reliably with
over-training and on downstream tasks"), 11M to 412M parameters at 5 to 640 tokens a parameter on three corpora.

    git clone https://github.com/mlfoundations/scaling
    python benchmarks/overtrained_ladders.py scaling/exp_data/models

What was trained on up to 412M parameters and `--compute` FLOPs predicts the runs of 1.4B and 6.9B. None of these runs
had a part in making the predictor. Prints every prediction of the held-out loss on the text nearest to what was
trained on, then the errors over all five English texts.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maquette.scaling import fit_predictor

OWN = {"c4_original": "paloma_c4_en", "rpj": "paloma_redpajama", "rw_original": "paloma_falcon-refinedweb"}
"""The held-out text that is nearest to each corpus."""

TEXTS = ["c4_val", "openlm", *OWN.values()]

LARGE = 1e9
"""Parameters from which on a run is predicted."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, help="the folder of their exp_data/models/*.json")
    parser.add_argument("--compute", type=float, default=1e20, help="FLOPs (6 N D) of the largest run of a fit")
    parser.add_argument(
        "--multiple", type=float, default=0.0, help="of 20 tokens a parameter: no run of a fit has less"
    )
    arguments = parser.parse_args()
    runs = read_runs(arguments.models)
    rows = pd.DataFrame(
        row
        for corpus, table in runs.groupby("corpus")
        for text in TEXTS
        for row in predictions(str(corpus), text, table, arguments)
    )
    shown = rows[rows.text == rows.corpus.map(OWN)]
    for row in shown.itertuples():
        print(
            f"{row.corpus:12} {row.params / 1e9:.1f}B, {row.ratio:5.0f} tokens a parameter, {row.reach:5.1f}x compute: "
            f"{row.predicted:.3f} (90%: {row.low:.3f} to {row.high:.3f}), observed {row.observed:.3f}, {row.error:+.1%}"
        )
    for words, some in (("nearest text", shown), ("all texts", rows)):
        print(
            f"{words}: {len(some)} predictions, median error {some.error.abs().median():.1%}, largest "
            f"{some.error.abs().max():.1%}; inside 50%: {some.inside50.mean():.0%}, "
            f"inside 90%: {some.inside90.mean():.0%}, median half width {(some.width / 2).median():.1%}"
        )
    return 0


def read_runs(folder: Path) -> pd.DataFrame:
    """One row a model: corpus, N, D, tokens over 20 N, and its loss on each text."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        model = json.loads(path.read_text(encoding="utf-8"))
        setting = model["hyperparameters"]
        row = {"corpus": model["dataset_name"], "params": float(setting["params"]), "tokens": float(setting["tokens"])}
        row["multiple"] = float(setting["chinchilla_multiplier"])
        rows.append(row | {result["val_data"][0].split("/")[-2]: result["loss"] for result in model["results"]})
    if not rows:
        sys.exit(f"{folder} has no models: give exp_data/models of github.com/mlfoundations/scaling.")
    frame = pd.DataFrame(rows)
    return frame.assign(compute=6 * frame.params * frame.tokens)


def predictions(corpus: str, text: str, table: pd.DataFrame, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each large run of one corpus, predicted from the small ones."""
    small = table.params < LARGE
    fitted = table[small & (table.compute <= arguments.compute) & (table.multiple >= arguments.multiple)]
    large = table[~small]
    predictor = fit_predictor(fitted.params, fitted.tokens, fitted[text])
    forecast = predictor.predict(large.params, large.tokens)
    for place, run in enumerate(large.itertuples()):
        observed, (low, high), (low50, high50) = (
            float(large[text].iloc[place]),
            (end[place] for end in forecast.intervals[0.9]),
            (end[place] for end in forecast.intervals[0.5]),
        )
        yield {
            "corpus": corpus, "text": text, "params": run.params, "ratio": run.tokens / run.params,
            "reach": run.compute / fitted.compute.max(), "predicted": forecast.loss[place], "low": low, "high": high,
            "observed": observed, "error": observed / forecast.loss[place] - 1, "inside50": low50 <= observed <= high50,
            "inside90": low <= observed <= high, "width": np.log(high / low),
        }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
