"""Packing: short examples share a row, so that less of a batch is padding. Attention does not cross from one to another
(`segments`), and positions begin anew with each."""

from collections.abc import Sequence


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of examples, by their indices, none longer than `capacity` together (and at least one example each).

    Best fit, longest first: each example goes where it leaves the least room (Ding et al. 2024, "Fewer truncations
    improve language modeling", section 3). Rows and the examples in them are in the order in which they were begun.
    Raises `ValueError` for an example that is longer than a row.
    """
    if lengths and max(lengths) > capacity:
        raise ValueError(f"An example of {max(lengths)} tokens does not fit a row of {capacity}.")
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fitting = [row for row in range(len(rows)) if room[row] >= lengths[index]]
        if fitting:
            row = min(fitting, key=room.__getitem__)
            rows[row].append(index)
            room[row] -= lengths[index]
        else:
            rows.append([index])
            room.append(capacity - lengths[index])
    return rows
