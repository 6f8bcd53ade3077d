"""One evaluation: what tells it from others, its numbers for the tracker, and what it shows at the terminal."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from maquette.artifacts.files import digest, file_digest, listed
from maquette.artifacts.progress import say
from maquette.evaluation.config import ProtocolConfig, SuiteConfig
from maquette.evaluation.figures import PROTOCOL_NAMES
from maquette.evaluation.suites.suite import HeldOut, Suite
from maquette.model.loading import model_folder


def evaluation_identity(
    checkpoint: Path, suite: Suite, held_out: HeldOut | None, asked: SuiteConfig, protocol: ProtocolConfig
) -> dict[str, Any]:
    """What makes two evaluations the same, and (`comparable`) what makes their scores comparable."""
    weights = model_folder(checkpoint)
    how = dataclasses.asdict(protocol)
    del how["batch_size_tokens"]
    tasks = {task.name: task.digest for task in suite.tasks}
    question = {
        "protocol": how, "tasks": tasks, "stride": asked.stride, "documents": suite.documents_digest,
        "contamination": asked.contamination,
    }  # fmt: skip
    digests = {
        "model": digest({file.name: file_digest(file) for file in listed(weights, "*.safetensors")}),
        "tokenizer": file_digest(weights / "tokenizer.json"),
        "tasks": tasks,
        "corpus": held_out.digest if held_out else None,
    }
    return {
        "checkpoint": str(checkpoint),
        "suite": {"name": suite.name, **dataclasses.asdict(asked)},
        "protocol": how,
        "comparable": digest(question),
        "fingerprint": digest({"asked": question, "model": digests["model"], "tokenizer": digests["tokenizer"]}),
        "digests": digests,
    }


def evaluation_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Accuracies, bits per byte and perplexities by the names that the tracker has for them."""
    metrics = {f"evaluation/{name}": row["accuracy"] for name, row in result["headline"].items()}
    metrics |= {
        f"evaluation/{row['task']}/{row['protocol']}/{row['shots']}-shot": row["accuracy"] for row in result["scores"]
    }
    if result["mean_accuracy"] is not None:
        metrics["evaluation/mean_accuracy"] = result["mean_accuracy"]
    for domain, row in result["likelihood"].items():
        plain = "".join(sign if sign.isalnum() or sign in "._- " else "_" for sign in domain)
        metrics[f"evaluation/bits_per_byte/{plain}"] = row["bits_per_byte"]["value"]
        metrics[f"evaluation/perplexity/{plain}"] = row["perplexity"]["value"]
    return metrics


def show_evaluation(result: Mapping[str, Any]) -> None:
    """Tables, contamination and notes at the terminal."""
    console = Console()
    if result["scores"]:
        too_long = ["too long"] if any(row["too_long"] for row in result["scores"]) else []
        table = Table("task", "protocol", title=f"{result['name']}: accuracy in percent", title_justify="left")
        for heading in ("%", "interval", "by order", "asked", *too_long):
            table.add_column(heading, justify="right", no_wrap=True)
        before = ""
        for row in result["scores"]:
            task = row["task"] if row["shots"] == 0 else f"{row['task']}, {row['shots']} shots"
            orders = f"{100 * row['least']:.1f}-{100 * row['most']:.1f}" if row["least"] < row["most"] else ""
            table.add_row(
                task if task != before else "", PROTOCOL_NAMES[row["protocol"]], f"{100 * row['accuracy']:.1f}",
                f"{100 * row['low']:.1f}-{100 * row['high']:.1f}" if math.isfinite(row["low"]) else "too few", orders,
                str(row["questions"]), *([str(row["too_long"] or "")] if too_long else []),
            )  # fmt: skip
            before = task
        console.print(table)
    for domain, row in result["likelihood"].items():
        rate = row["bits_per_byte"]
        console.print(
            f"{domain}: {rate['value']:.3f} bits per byte ({rate['low']:.3f} to {rate['high']:.3f}), "
            f"perplexity {row['perplexity']['value']:.2f} by token",
            markup=False, highlight=False,
        )  # fmt: skip
    for name, test in result["contamination"].items():
        console.print(f"{name}: contamination p-value {test['p_value']:.4f}", markup=False)
    for note in result["notes"]:
        say(note)
