"""Safetensors files written tensor by tensor: the library's bytes."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from maquette.model.tensor_file import write_tensors


def test_the_library_writes_the_same_bytes(tmp_path: Path) -> None:
    tensors = {
        "b.weight": torch.randn(3, 4).T.contiguous(), "ä": torch.randn(2), "a.score": torch.tensor(1.5),
        "none": torch.empty(0, 4),
    }  # fmt: skip
    digest = write_tensors(tmp_path / "ours", tensors, tensors.__getitem__, {"format": "pt"})
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert digest == hashlib.sha256((tmp_path / "theirs").read_bytes()).hexdigest()


def test_dtypes_arrive(tmp_path: Path) -> None:
    tensors = {
        str(dtype): torch.arange(3).to(dtype)
        for dtype in (torch.bfloat16, torch.int64, torch.bool, torch.float32, torch.uint8)
    }
    write_tensors(tmp_path / "ours", tensors, tensors.__getitem__, {})
    read = load_file(tmp_path / "ours")
    assert all(torch.equal(read[name], value) for name, value in tensors.items())
