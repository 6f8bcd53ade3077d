"""Safetensors files written tensor by tensor: one of them alone is in memory, and the digest is known at the end.

The library's own `save_file` (safetensors 0.6) wants all of them at once. For tensors of one dtype both write the same
bytes.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_tensors(
    path: Path, shapes: Mapping[str, Tensor], value: Callable[[str], Tensor], metadata: Mapping[str, str]
) -> str:
    """Writes `value(name)` of every name, flushed to disk, and returns the file's SHA-256.

    `shapes`: tensors of the shapes and dtypes that the values will have, such as those of a model on the meta device.
    """
    order = sorted(shapes, key=lambda name: (-shapes[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        start, end = end, end + shapes[name].nbytes
        header[name] = {
            "dtype": _DTYPES[shapes[name].dtype], "shape": list(shapes[name].shape), "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def write(part: Any) -> None:
            digest.update(part)
            file.write(part)

        write(len(text).to_bytes(8, "little"))
        write(text)
        for name in order:
            tensor = value(name).detach().cpu().contiguous()
            if (tensor.shape, tensor.dtype) != (shapes[name].shape, shapes[name].dtype):
                raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {shapes[name]}")
            if tensor.numel():
                write(tensor.reshape(-1).view(torch.uint8).numpy())
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
