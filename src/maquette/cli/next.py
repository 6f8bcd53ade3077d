"""`maquette next 'she likely prefers'`: the distribution over the next token, as a model has it and as it is drawn."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import NextStage
from maquette.model.generation import document_prompt
from maquette.model.loading import find_models, load_checkpoint, model_names
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
    folders = find_models(config.models, config.checkpoint, config.outputs)
    sampling = Sampling(config.temperature, config.top_k, config.top_p, config.min_p)
    opened = [(*one, *load_checkpoint(one[0])) for one in zip(folders, model_names(folders), strict=True)]
    views: list[NextTokenView] = []
    for text in config.texts or [""]:
        of_text = [_view(*one, text, sampling, config) for one in opened]
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
    folder: Path, name: str, model: "LanguageModel", tokenizer: "Tokenizer", text: str, sampling: Sampling,
    config: NextStage,
) -> NextTokenView:  # fmt: skip
    asks = is_assistant(folder, tokenizer) if config.chat is None else config.chat
    ids = request(tokenizer, text) if asks else document_prompt(tokenizer, text)
    return view_next_token(
        name, model, tokenizer, text, ids, sampling, count=config.count, back=config.back, beams=config.beams,
        max_tokens=config.max_tokens,
    )  # fmt: skip
