"""The systems part of a course in pictures, with figures from this machine: fusion, tiling, precision.

    python benchmarks/demonstrations.py fusion        a pass over memory for several operators, or one after another
    python benchmarks/demonstrations.py tiling        attention by blocks, or through all scores: time, memory
    python benchmarks/demonstrations.py precision     the same training in fp32, bf16-mixed and bf16-true

In processor seconds of one thread, which a busy machine leaves alone; the ways of a comparison take turns, and a
ratio is the median of the rounds' own, with the lowest and the highest. Bytes and memory are counted, not sampled. What
measures is `maquette.training.demonstrations`, for notebooks too. Pictures in outputs/demonstrations; half a minute
each.
"""

import argparse
import dataclasses
import inspect
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maquette.model import TransformerConfig
from maquette.reports.figures import COLORS, name_rows, new_figure, save_figure
from maquette.tracking.environment import processor_name
from maquette.training import demonstrations as shown
from maquette.training.machine import multiplies_bf16

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHAPE = TransformerConfig(
    4096, hidden_size=128, num_hidden_layers=5, num_attention_heads=4, intermediate_size=352,
    max_position_embeddings=512,
)  # fmt: skip
LENGTHS = (64, 128, 256, 512, 1024, 2048)


def fusion(arguments: argparse.Namespace) -> "Figure":
    """Prints what fusion saves, and draws it."""
    costs = shown.fused_and_unfused(SHAPE, rounds=arguments.rounds)
    print(f"{'':16}{'ms unfused':>11}{'fused':>8}{'ratio':>7}{'from':>6}{'to':>6}{'operators':>12}{'MB moved':>16}")
    for name, ways in costs.items():
        plain, fused = ways[shown.UNFUSED], ways[shown.FUSED]
        ratio, low, high = fused.ratio(plain)
        print(
            f"{name:16}{1e3 * plain.median:11.2f}{1e3 * fused.median:8.2f}{ratio:7.2f}{low:6.2f}{high:6.2f}"
            f"{f'{plain.calls} -> {fused.calls}':>12}{f'{plain.bytes / 1e6:.1f} -> {fused.bytes / 1e6:.1f}':>16}"
        )
    figure, panels = new_figure(1, 2, width=4.6, height=3.2)
    titles = ("time of both passes, relative", "bytes moved by operators, relative")
    for panel, title, quantity in zip(panels, titles, ("median", "bytes"), strict=True):
        for offset, way, color in ((-0.2, shown.UNFUSED, COLORS[1]), (0.2, shown.FUSED, COLORS[0])):
            shares = [getattr(ways[way], quantity) / getattr(ways[shown.UNFUSED], quantity) for ways in costs.values()]
            panel.barh([place + offset for place in range(len(costs))], shares, height=0.38, color=color, label=way)
        name_rows(panel, list(costs))
        panel.set(title=title)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def tiling(arguments: argparse.Namespace) -> "Figure":
    """Prints what attention costs over sequence length, and draws it."""
    costs = shown.tiled_and_materialised(LENGTHS, rounds=arguments.rounds)
    print(f"{'tokens':>8}{'ms, all scores':>16}{'by blocks':>11}{'ratio':>7}{'from':>6}{'to':>6}{'MB at most':>18}")
    for length, ways in costs.items():
        whole, tiled = ways[shown.MATERIALISED], ways[shown.TILED]
        ratio, low, high = tiled.ratio(whole)
        print(
            f"{length:8,}{1e3 * whole.median:16.2f}{1e3 * tiled.median:11.2f}{ratio:7.2f}{low:6.2f}{high:6.2f}"
            f"{f'{whole.peak / 1e6:.2f} and {tiled.peak / 1e6:.2f}':>18}"
        )
    figure, panels = new_figure(1, 2, width=4.6, height=3.4)
    for way, color in ((shown.MATERIALISED, COLORS[1]), (shown.TILED, COLORS[0])):
        panels[0].plot(LENGTHS, [1e3 * costs[one][way].median for one in LENGTHS], "o-", color=color, label=way)
        panels[1].plot(LENGTHS, [costs[one][way].peak / 1e6 for one in LENGTHS], "o-", color=color, label=way)
    for panel, title in zip(panels, ("ms of both passes", "MB held at most"), strict=True):
        panel.set(xscale="log", yscale="log", xlabel="tokens in the sequence", title=title)
        panel.set_xticks(LENGTHS, [f"{one:,}" for one in LENGTHS])
        panel.minorticks_off()
    panels[0].legend(fontsize=8)
    return figure


def precision(arguments: argparse.Namespace) -> "Figure":
    """Prints loss, speed and memory of training in each number format, and draws them."""
    if not multiplies_bf16():
        print("This processor has no instructions for bf16: it is computed in fp32 and rounded, which is slower.")
    batches = text_batches(arguments.steps, batch=8, length=128)
    width = arguments.width
    shape = dataclasses.replace(
        SHAPE, hidden_size=width, num_attention_heads=max(1, width // 32), intermediate_size=11 * width // 4
    )
    results = shown.training_by_precision(shape, batches)
    tokens = batches[0][:, 1:].numel()
    last = max(1, arguments.steps // 5)
    plain = results["fp32"]
    print(f"{'':12}{'loss':>8}{'tokens/s':>10}{'ratio':>7}{'from':>6}{'to':>6}{'MB':>7}  of which")
    for name, one in results.items():
        ratios = [a / b for a, b in zip(plain.seconds[2:], one.seconds[2:], strict=True)]
        quartiles = statistics.quantiles(ratios, n=4)
        parts = ", ".join(f"{part} {value / 1e6:.1f}" for part, value in one.memory.items())
        print(
            f"{name:12}{statistics.mean(one.losses[-last:]):8.4f}{tokens / statistics.median(one.seconds[2:]):10,.0f}"
            f"{quartiles[1]:7.2f}{quartiles[0]:6.2f}{quartiles[2]:6.2f}{sum(one.memory.values()) / 1e6:7.1f}  {parts}"
        )
    print(f"(Loss: mean of the last {last} steps; from, to: the middle half of the steps.)")
    figure, panels = new_figure(1, 3, width=3.6, height=3.2)
    for (name, one), color in zip(results.items(), COLORS, strict=False):
        above = [a - b for a, b in zip(one.losses, plain.losses, strict=True)]
        means = [statistics.mean(above[max(0, end - 5) : end]) for end in range(1, arguments.steps + 1)]
        panels[0].plot(range(1, arguments.steps + 1), means, color=color, label=name, linewidth=1.3)
    panels[0].set(xlabel="step", title="loss above fp32's, mean of 5 steps")
    panels[0].legend(fontsize=8)
    panels[1].barh(range(len(results)), [tokens / statistics.median(one.seconds[2:]) for one in results.values()])
    panels[1].set(title="tokens/s")
    starts = [0.0] * len(results)
    for part, color in zip(plain.memory, COLORS, strict=False):
        sizes = [one.memory[part] / 1e6 for one in results.values()]
        panels[2].barh(range(len(results)), sizes, left=starts, color=color, label=part)
        starts = [start + size for start, size in zip(starts, sizes, strict=True)]
    panels[2].set(title="MB at the fullest moment")
    figure.legend(*panels[2].get_legend_handles_labels(), loc="outside lower right", ncols=4, fontsize=7)
    for panel in panels[1:]:
        name_rows(panel, list(results))
    return figure


def text_batches(steps: int, *, batch: int, length: int) -> Sequence[Tensor]:
    """Batches of the bytes of Python's own standard library, (batch, length + 1) each, every byte once."""
    files = sorted(Path(inspect.__file__).parent.glob("*.py"))
    size = steps * batch * (length + 1)
    text = b"".join(one.read_bytes() for one in files)
    numbers = torch.Generator().manual_seed(0)
    windows = torch.frombuffer(bytearray(text[:size]), dtype=torch.uint8).long().view(-1, length + 1)
    return windows[torch.randperm(len(windows), generator=numbers)].view(steps, batch, length + 1).unbind()


DEMONSTRATIONS = {"fusion": fusion, "tiling": tiling, "precision": precision}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="fusion|tiling|precision", help="by default all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=60, help="of training in each number format")
    parser.add_argument("--width", type=int, default=SHAPE.hidden_size, help="of the model that is trained: x 32")
    parser.add_argument("--to", type=Path, default=Path("outputs/demonstrations"), help="folder of the pictures")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in DEMONSTRATIONS]:
        parser.error(f"there is no demonstration {unknown[0]}: {', '.join(DEMONSTRATIONS)}")
    torch.set_num_threads(1)
    print(f"{processor_name()}, 1 thread, torch {torch.__version__}")
    arguments.to.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or DEMONSTRATIONS:
        print(f"\n{name}")
        print(save_figure(DEMONSTRATIONS[name](arguments), arguments.to / name))


if __name__ == "__main__":
    main()
