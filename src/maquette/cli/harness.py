"""`maquette harness --model_args checkpoint=<run> --tasks arc_easy`: lm-evaluation-harness on models of this project,
by its own main with its own options. `maquette harness run --help` lists them."""

from maquette.cli.command_line.model_config import HarnessStage


def run(config: HarnessStage) -> None:
    """Raises `StageError` where lm-evaluation-harness is not installed; what it says of its arguments is its own."""
    from maquette.evaluation.harness import evaluate_from_words

    evaluate_from_words(config.arguments)
