"""One layer's attention over packed documents on this processor: a dense mask against one document after another.

    python benchmarks/packed_attention.py        forward and backward in float32 on one thread; a minute

The documents' lengths are geometric, a row's last one is cut. Rows of 1,024 tokens and more are attended to document by
document (`maquette.model.attention.LONG_ON_CPU`), shorter ones through the mask, whose bits older runs have.
"""

import time

import torch
from torch import Tensor

from maquette.model.attention import Seen, attend, dense_mask, packed_sequences

HEADS, WIDTH, MEAN_DOCUMENT, REPEATS = 4, 32, 400, 5


def best_seconds(parts: tuple[Tensor, ...], seen: Seen, window: int | None) -> float:
    """The fastest of several forward and backward passes."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        attend(*parts, seen, window=window).sum().backward()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    print(f"{HEADS} heads of {WIDTH} channels, documents of {MEAN_DOCUMENT} tokens on average, milliseconds")
    print(f"{'rows':>12} {'kv heads':>8} {'window':>7} {'mask':>9} {'apart':>9} {'ratio':>6}")
    for rows, length in ((4, 256), (4, 512), (2, 1024), (1, 2048), (1, 4096)):
        for key_value_heads, window in ((HEADS, None), (HEADS // 2, None), (HEADS, 128)):
            generator = torch.Generator().manual_seed(0)
            segments = torch.cumsum(torch.rand(rows, length, generator=generator) < 1 / MEAN_DOCUMENT, dim=1)
            parts = tuple(
                torch.randn(rows, length, heads, WIDTH, generator=generator).transpose(1, 2).requires_grad_()
                for heads in (HEADS, key_value_heads, key_value_heads)
            )
            mask = dense_mask(length, torch.device("cpu"), window=window, segments=segments)
            dense = best_seconds(parts, mask, None)
            apart = best_seconds(parts, packed_sequences(segments), window)
            print(
                f"{f'{rows} x {length}':>12} {key_value_heads:>8} {window or '-':>7} "
                f"{1e3 * dense:>9.1f} {1e3 * apart:>9.1f} {dense / apart:>6.1f}"
            )


if __name__ == "__main__":
    main()
