"""`maquette sample "Once upon a time"`: continues prompts with a trained model, printing as it writes.

A model that was trained to answer is asked, through the chat template."""

import sys
from collections.abc import Iterable

from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import SampleStage
from maquette.model.generation import GeneratedToken, document_prompt, stream
from maquette.model.loading import find_checkpoint, load_checkpoint
from maquette.model.sampling import Sampling
from maquette.text.chat import request
from maquette.training.record import is_assistant


def run(config: SampleStage) -> list[str]:
    """Prints every sample of every prompt (without one: of an empty document) and returns the texts, prompts first."""
    folder = find_checkpoint(config.checkpoint, config.outputs)
    model, tokenizer = load_checkpoint(folder)
    say(f"{folder}: {config.count} sample(s), seed {config.seed}")
    prompts = [prompt for prompt in config.prompts or [""] for _ in range(config.count)]
    asks = is_assistant(folder, tokenizer) if config.chat is None else config.chat
    encoded = [request(tokenizer, prompt) if asks else document_prompt(tokenizer, prompt) for prompt in prompts]
    sampling = Sampling(config.temperature, config.top_k, config.top_p, config.min_p, config.repetition_penalty)
    pieces = stream(
        model, encoded, tokenizer=tokenizer, sampling=sampling, max_tokens=config.max_tokens, stop=config.stop,
        seed=config.seed,
    )  # fmt: skip
    return print_in_order([f"{prompt}\n" for prompt in prompts] if asks else prompts, pieces)


def print_in_order(prompts: list[str], pieces: Iterable[GeneratedToken]) -> list[str]:
    """Prints the first row as it is written, the others, written meanwhile, as soon as those before them have ended."""
    texts, shown = list(prompts), [0] * len(prompts)
    ended: set[int] = set()
    current = 0
    for piece in pieces:
        texts[piece.row] += piece.text
        if piece.finish_reason is not None:
            ended.add(piece.row)
        while current < len(prompts):
            print(_printable(texts[current][shown[current] :]), end="", flush=True)
            shown[current] = len(texts[current])
            if current not in ended:
                break
            current += 1
            print("\n" if current < len(prompts) else "")
    sys.stdout.flush()
    return texts


_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}


def _printable(text: str) -> str:
    """What a model writes must not steer the terminal: control characters become their pictures there (U+2400 ...)."""
    return text.translate(_PICTURES) if sys.stdout.isatty() else text
