"""What win rates and ratings are worth where the truth is known: `python benchmarks/win_rates_and_ratings.py`.

1. A judge prefers the longer answer. The baseline and its verbose and concise twins are equally good: raw win rates
   part, length-controlled ones should meet at 50%. Once without anchors, once with the baseline's judged twins; by a
   judge of the regression's own form, and by one who counts characters, of whom the regression is an approximation.
2. 200 tournaments of models whose strengths are known: how often intervals of 90% hold the truth, and those of ranks.
3. A million battles of 100 models: seconds for the ratings, and for ratings with 100 bootstrap resamples, on one core.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import time

import numpy as np
from scipy.special import expit

from maquette.artifacts.progress import progress
from maquette.evaluation import bradley_terry_ratings, length_controlled_win_rate

TASTE, SCALE = 1.2, 120
"""The judges' liking for length: log-odds for an answer much longer; and what much is, in characters, to the one who
counts them. To the other it is a standard deviation of the differences."""
STRENGTHS = (-0.8, -0.3, 0.0, 0.3, 0.8)
LEVEL = 0.9


def planted_verbosity(prompts: int, repeats: int) -> None:
    """Prints raw and controlled rates of the twins: one draw of prompts, and means over draws."""
    print(f"A judge who likes length; equally good twins; {prompts} prompts, means over {repeats} draws of them:")
    cases = [
        (counts, name, factor, anchored)
        for counts in (False, True)
        for name, factor in (("verbose", 1.4), ("concise", 0.6))
        for anchored in (False, True)
    ]
    lines = []
    with progress("draws", len(cases) * repeats, unit="draws") as advance:
        for counts, name, factor, anchored in cases:
            rates = []
            for seed in range(repeats):
                rates.append(twin(factor, prompts, seed, anchored=anchored, counts=counts))
                advance(1)
            raw, controlled, error = np.transpose(rates)
            held = np.mean(np.abs(controlled - 50) < 1.645 * error)
            judge = "counts characters" if counts else "of its own form"
            case = f"{judge}, {name}{', anchored' if anchored else ''}:"
            lines.append(
                f"  {case:38} raw {raw.mean():.1f}%  controlled {controlled.mean():.1f}% (standard deviation "
                f"{controlled.std(ddof=1):.1f}); 50% lies within 90% intervals in {held:.1%}"
            )
    print("\n".join(lines))


def twin(factor: float, prompts: int, seed: int, *, anchored: bool, counts: bool) -> tuple[float, float, float]:
    """Raw and controlled rate of a twin `factor` times as long as the baseline, and the latter's standard error."""
    numbers = np.random.default_rng(seed)
    baseline = numbers.lognormal(5, 0.4, prompts)
    lengths = baseline * factor * numbers.lognormal(0, 0.35, prompts)
    much = SCALE if counts else float(np.std(lengths - baseline, ddof=1))
    wins = (numbers.random(prompts) < expit(TASTE * np.tanh((lengths - baseline) / much))).astype(float)
    anchors = None
    if anchored:
        others = (baseline * 1.8, baseline * 0.5)
        anchors = [(expit(TASTE * np.tanh((one - baseline) / much)), one) for one in others]
    rate = length_controlled_win_rate(wins, lengths, baseline, anchors=anchors)
    return rate.raw, rate.controlled, rate.standard_error


def coverage(tournaments: int, battles: int) -> None:
    """Prints how often intervals hold the strengths that the battles were drawn from."""
    truth = np.array(STRENGTHS)
    for name, bootstrap in (("sandwich", 0), ("bootstrap", 100)):
        held, ranks = [], []
        with progress(f"tournaments ({name})", tournaments, unit="tournaments") as advance:
            for seed in range(tournaments):
                winners, losers = tournament(truth, battles, np.random.default_rng(seed))
                ratings = bradley_terry_ratings(winners, losers, bootstrap=bootstrap, level=LEVEL, seed=seed)
                for model, strength in enumerate(truth):
                    held.append(ratings.intervals[model].contains(strength))
                    rank = ratings.rank_intervals[model]
                    ranks.append(rank.low <= len(truth) - model <= rank.high)
                advance(1)
        print(
            f"{tournaments} tournaments of {battles} battles, {name}: intervals of {LEVEL:.0%} hold the strength in "
            f"{np.mean(held):.1%}, those of ranks the rank in {np.mean(ranks):.1%}"
        )


def tournament(truth: np.ndarray, battles: int, numbers: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Winners and losers, by number."""
    first = numbers.integers(0, len(truth), battles)
    second = (first + numbers.integers(1, len(truth), battles)) % len(truth)
    won = numbers.random(battles) < expit(truth[first] - truth[second])
    return np.where(won, first, second), np.where(won, second, first)


def speed(battles: int, models: int) -> None:
    """Prints seconds for the ratings, by names as they stand in a file."""
    truth = np.random.default_rng(1).normal(size=models)
    names = np.array([f"model-{number:03}" for number in range(models)])
    winners, losers = (names[side] for side in tournament(truth, battles, np.random.default_rng(2)))
    for bootstrap in (0, 100):
        start = time.perf_counter()
        ratings = bradley_terry_ratings(winners, losers, bootstrap=bootstrap)
        seconds = time.perf_counter() - start
        worst = max(
            abs(ratings.strengths[name] - (value - truth.mean())) for name, value in zip(names, truth, strict=True)
        )
        detail = f" with {bootstrap} resamples" if bootstrap else ""
        print(f"{battles:,} battles of {models} models{detail}: {seconds:.2f} s, largest error {worst:.3f} log-odds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=600)
    parser.add_argument("--draws", type=int, default=200, help="draws of prompts behind the injected case's means")
    parser.add_argument("--tournaments", type=int, default=200)
    parser.add_argument("--battles", type=int, default=1_000_000)
    options = parser.parse_args()
    if min(options.prompts, options.draws, options.tournaments) < 2 or options.battles < 10_000:
        parser.error("at least 2 prompts, draws and tournaments, and 10,000 battles")
    planted_verbosity(options.prompts, options.draws)
    coverage(options.tournaments, 250)
    speed(options.battles, 100)


if __name__ == "__main__":
    main()
