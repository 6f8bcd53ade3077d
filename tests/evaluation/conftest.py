"""A finished run, as small as one can be, with everything a page is made from."""

import dataclasses
from typing import Any

import pytest

from maquette.evaluation import BaselineScore
from maquette.evaluation.run_report import RunReport
from maquette.model.core_config import FlopCount, ParameterCount
from maquette.recipe import resolve
from maquette.training import RunRecord
from support.small_specs import make_spec

DOMAINS = ("code", "legal")


def make_record(**changes: Any) -> RunRecord:
    recipe = dataclasses.replace(
        resolve(size="300k", tokens="4.3m", vocab_size=1024, sequence_length=128, learning_rate=0.0025),
        parameters=ParameterCount(82_000, 218_000, 82_000), flops=FlopCount(9_900_000_000_000, 0, 0),
        tokens=4_340_000, steps=8_476, batch_size_tokens=512, warmup=0.1, weight_decay=0.1,
    )  # fmt: skip
    spec = make_spec(recipe=recipe, digests={})
    record = RunRecord(
        spec=spec, folder=f"outputs/runs/{spec.name}", status="finished", hardware="2 x a processor",
        finished="2026-01-01T00:00:00+00:00", step=spec.steps, seconds=150.0, tokens_per_second=29_000.0, mfu=0.5,
        validation_loss=3.0, bits_per_byte=1.75,
        domains={
            "code": {"loss": 2.9, "perplexity": 18.2, "bits_per_byte": 1.7, "epochs": 0.1},
            "legal": {"loss": 3.4, "perplexity": 30.0, "bits_per_byte": 2.2, "epochs": 0.9},
        },
    )  # fmt: skip
    return dataclasses.replace(record, **changes)


def make_report(**changes: Any) -> RunReport:
    bits = {"uniform bytes": 8.0, "unigram": 3.6, "Kneser-Ney 5-gram": 2.0}
    scores = [BaselineScore(name, domain, value, value) for name, value in bits.items() for domain in ("all", *DOMAINS)]
    sizes = {split: {"documents": 10, "bytes": 1_000_000} for split in ("train", "validation", "test")}
    shares = {domain: {split: 0.3 for split in sizes} for domain in DOMAINS}
    characters = {domain: 1_000_000 for domain in DOMAINS}
    samples = [{"step": 8_476, "prompt": "<def> ", "text": "f(x):\n    return x < 1"}]
    report = RunReport(
        record=make_record(),
        history=[
            {"step": step, "tokens": step * 512, "train/loss": 6.0 - step / 4000, "validation/loss": 6.1 - step / 4000,
             "validation/code/bits_per_byte": 3.0 - step / 8000, "validation/legal/bits_per_byte": 4.0 - step / 8000,
             "samples": [{**sample, "step": step} for sample in samples]}
            for step in (1000, 4000, 8476)
        ],
        scores=scores,
        weights={"code": 0.8, "legal": 0.2},
        corpus={
            "source": {"kind": "installed"},
            "domains": {domain: sizes for domain in DOMAINS},
            "funnel": [{"step": step, "characters": characters} for step in ("read", "kept")],
            "repetition": {"window": 24, "frame": 128, "before": shares, "after": shares},
        },
        tokenizer={
            "vocabulary": 1024, "bytes_per_token": 2.5, "splits": {"number": ["3", "27"], "Thai": ["⟨E0⟩"]},
            "sweep": [
                {"vocabulary": size, "tokens_per_kilobyte": 400.0, "domains": {domain: 400.0 for domain in DOMAINS}}
                for size in (512, 1024)
            ],
        },
        places={"The model": "outputs/runs/x/model"},
        commands={"Let it write:": 'maquette sample "def "'},
    )  # fmt: skip
    return dataclasses.replace(report, **changes)


@pytest.fixture(scope="session")
def report() -> RunReport:
    return make_report()
