"""`maquette next 'she likely prefers'`: the distribution over the next token, as a model has it and as it is drawn."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from maquette.artifacts import ConfigError
from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import NextStage
from maquette.model.generation import document_prompt
from maquette.model.loading import find_checkpoint, load_checkpoint
from maquette.model.next_token_view import NextTokenView, show, tab_separated, view_next_token
from maquette.model.sampling import Sampling
from maquette.text.chat import request
from maquette.training.record import is_assistant

if TYPE_CHECKING:
    from maquette.model.heads import LanguageModel
    from maquette.text import Tokenizer


def run(config: NextStage) -> list[NextTokenView]:
    """Prints each text's next token: bars in a terminal (models side by side), TSV into a pipe, or JSON. Without a
    text it is that of an empty document."""
    wanted: list[str | None] = [*config.models] or [config.checkpoint]
    folders = [find_checkpoint(name, config.outputs) for name in wanted]
    if len(set(folders)) < len(folders):
        raise ConfigError("models names a model twice.", "Leave one out.")
    sampling = Sampling(config.temperature, config.top_k, config.top_p, config.min_p)
    opened = [(folder, *load_checkpoint(folder)) for folder in folders]
    views: list[NextTokenView] = []
    for text in config.texts or [""]:
        of_text = [_view(folder, model, tokenizer, text, sampling, config) for folder, model, tokenizer in opened]
        views += of_text
        if not config.json and sys.stdout.isatty():
            show(of_text, Console())
    if config.json:
        print(json.dumps([view.plain() for view in views], ensure_ascii=False, indent=2))
    elif not sys.stdout.isatty():
        print("\n".join(tab_separated(views)))
    else:
        say(f"shaded by surprise; drawn: how often it is chosen with {sampling.words()}")
    return views


def _view(
    folder: Path, model: "LanguageModel", tokenizer: "Tokenizer", text: str, sampling: Sampling, config: NextStage
) -> NextTokenView:
    asks = is_assistant(folder, tokenizer) if config.chat is None else config.chat
    ids = request(tokenizer, text) if asks else document_prompt(tokenizer, text)
    return view_next_token(
        folder.name, model, tokenizer, text, ids, sampling, count=config.count, back=config.back, beams=config.beams,
        max_tokens=config.max_tokens,
    )  # fmt: skip
