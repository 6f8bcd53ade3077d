"""Speed of SFT, DPO and PPO against TRL: the same Llama, shapes, numerics and threads, taking turns in one run.

    python benchmarks/post_training_speed.py [--size 1m] [--threads 1] [--rounds 7] [--clock cpu]

Each side is its project's own trainer in a process of its own; a turn is everything from one optimiser step (of PPO:
one iteration of sampling, scoring and learning) to the next, data included. Both keep freed memory, compute in float32
and read rows of one length. SFT and DPO are TRL 1.16's, PPO is 1.12's `trl.experimental.ppo`, the last there was; DPO
is measured with the reference's log-probabilities made beforehand on both sides, and once more with TRL as it comes,
which makes them in every step.

Figures are medians over rounds, ratios medians of the rounds' own. The peers lie in `outputs/peers`, where
`make bench` puts them.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent / "post_training"
sys.path.insert(0, str(HERE))

from shapes import PASSES, ROWS, SIZES  # noqa: E402
from turns import Loop  # noqa: E402

PEERS = Path(__file__).parents[1] / "outputs" / "peers"
VERSIONS = {"sft": "1.16.0", "dpo": "1.16.0", "ppo": "1.12.0"}
CONTESTS = {"sft": "sft", "dpo": "dpo-precomputed", "dpo, TRL's default": "dpo", "ppo": "ppo"}
"""Name -> what the peer's side is asked for."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contests", nargs="+", choices=CONTESTS, default=list(CONTESTS))
    parser.add_argument("--size", choices=SIZES, default="1m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a machine that is not idle")
    parser.add_argument("--peers", type=Path, default=PEERS, help="folder with trl-1.16.0 and trl-1.12.0")
    arguments = parser.parse_args()
    for version in sorted(set(VERSIONS.values())):
        if not (arguments.peers / f"trl-{version}" / "trl").is_dir():
            where = f"{arguments.peers}/trl-{version}"
            raise SystemExit(f"TRL is missing: pip install --no-deps --target {where} trl=={version}")
    print(f"{arguments.size}, {arguments.threads} thread(s), float32, {arguments.clock} clock")
    print(f"{'':20}{'tokens/s':>10}{'TRL':>10}{'ratio':>8}{'from':>8}{'to':>6}")
    for name in arguments.contests:
        contest(name, arguments)


def contest(name: str, arguments: argparse.Namespace) -> None:
    """Lets the two sides take turns, and prints what came of it."""
    kind = name.partition(",")[0]
    version, end = VERSIONS[kind], [arguments.size, str(arguments.threads)]
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            "ours": Loop([sys.executable, str(HERE / "ours.py"), kind, *end], None, Path(folder) / "ours.log"),
            "trl": Loop(
                [sys.executable, str(HERE / "trl_side.py"), CONTESTS[name], *end],
                arguments.peers / f"trl-{version}", Path(folder) / "trl.log",
            ),
        }  # fmt: skip
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(arguments.rounds + 1):
            for side, loop in sides.items():
                taken = loop.step()[arguments.clock == "cpu"]
                if number:  # the first turn warms up
                    seconds[side].append(taken)
        for loop in sides.values():
            loop.close()
    ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["trl"], strict=True)]
    ours, theirs = (tokens(kind) / statistics.median(taken) for taken in seconds.values())
    shown = f"{ours:10,.0f}{theirs:10,.0f}{statistics.median(ratios):8.2f}{min(ratios):8.2f}{max(ratios):6.2f}"
    print(f"{name:20}{shown}", flush=True)


def tokens(kind: str) -> int:
    """Tokens of a turn: all of a step's rows; of PPO the answers', generated once and trained on in each pass."""
    rows = ROWS[kind]
    if kind == "ppo":
        return rows.count * rows.answer * (1 + PASSES)
    return rows.count * rows.length * (2 if kind == "dpo" else 1)


if __name__ == "__main__":
    main()
