"""`maquette score "the mouse ate the cheese" "the cheese ate the mouse"`: how likely a model finds sentences."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.progress import progress
from maquette.cli.command_line.model_config import ScoreStage
from maquette.model.loading import find_checkpoint, load_checkpoint
from maquette.model.scoring import SentenceScore, score_sentences
from maquette.reports import terminal_table


def run(config: ScoreStage) -> list[SentenceScore]:
    """Prints a table, or JSON, of the sentences in the order given and returns their scores."""
    sentences = [*config.sentences, *read_sentences(config.file)]
    if not sentences:
        raise ConfigError("There is nothing to score.", 'Write maquette score "A sentence." or file=sentences.txt.')
    model, tokenizer = load_checkpoint(find_checkpoint(config.checkpoint, config.outputs))
    with progress("scoring", len(sentences), unit="sentences") as advance:
        scores = score_sentences(model, tokenizer, sentences, advance=advance)
    if config.json:
        print(json.dumps([score.plain() for score in scores], ensure_ascii=False, indent=2))
    else:
        Console().print(table(scores))
    return scores


def read_sentences(file: str | None) -> list[str]:
    """The lines of a UTF-8 file that are not blank. Raises `StageError` where it can't be read."""
    if file is None:
        return []
    try:
        lines = Path(file).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise StageError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start:,}.", "Convert it.") from None
    except OSError as error:
        raise StageError(
            f"Can't read {file}: {error.strerror}.", "Give a text file with one sentence a line."
        ) from None
    return [line for line in lines if line.strip()]


def table(scores: list[SentenceScore]) -> Table:
    """A row for each sentence; a larger (less negative) log-probability is the likelier sentence."""
    rows = [(s.text, s.log_prob, s.per_token, s.bits_per_byte, len(s.tokens), s.num_bytes) for s in scores]
    forms = {"sentence": "{0}", "log P": "{1:.3f}", "per token": "{2:.3f}", "bits per byte": "{3:.3f}"}
    return terminal_table(forms | {"tokens": "{4:,}", "bytes": "{5:,}"}, rows, "log-probability, in nats")
