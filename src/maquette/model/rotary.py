"""Rotary positions: the angles, and turning vectors by them. Apart from the transformer for whoever needs no more."""

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]


def rotary_table(positions: Tensor, width: int, base: float, dtype: torch.dtype) -> Rotation:
    """Cosine and sine of the angles by which rotary positions turn each pair of channels (Su et al. 2021, eq. 15).

    `positions (T,)` or `(B, T)` -> two tensors `(T, 1, W/2)` or `(B, T, 1, W/2)`, of float32 at least: in half
    precision the angles of distant positions would be those of their neighbours.
    """
    dtype = torch.promote_types(dtype, torch.float32)
    exponents = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width
    angles = positions[..., None, None].float() * (1.0 / base**exponents)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(vectors: Tensor, rotation: Rotation) -> Tensor:
    """Turns the pairs (channel i, channel i + W/2) of `vectors (B, T, H, W)`: Llama's layout of rotary positions.
    In the precision of `rotation`; given back in that of `vectors`."""
    cosine, sine = rotation
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(vectors.dtype)
