"""A checkpoint of this project as a model of lm-evaluation-harness 0.4.13, without a detour over `transformers`.

    maquette harness --model_args checkpoint=<run> --tasks arc_easy    # lm_eval's own main and options

or in Python: `lm_eval.simple_evaluate(model=HarnessModel("outputs/runs/<run>"), tasks=["arc_easy"])`.

Notable:
- tokens, windows and truncation are those of the harness's `hf` backend on the exported folder, so scores agree with it
- log-likelihoods apply the head only to the continuations, and read a question once for all its one-token answers
- a batch is as many tokens as fit, not as many rows
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from maquette.artifacts import StageError
from maquette.artifacts.progress import progress
from maquette.model.generation import generate
from maquette.model.loading import find_checkpoint, load_checkpoint
from maquette.model.sampling import Sampling
from maquette.model.scoring import score_continuations

try:
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError:
    raise StageError(
        "lm-evaluation-harness is not installed.", "Install it with: pip install 'maquette-lm[evaluation]'."
    ) from None

_MAX_NEW_TOKENS = 256
_ROWS = 64

Encoded = tuple[Any, list[int], list[int]]


@register_model("maquette")
class HarnessModel(TemplateLM):
    """`checkpoint`: a run, an imported model or a Hugging Face folder, by default the latest finished run below
    `outputs`. `batch_size_tokens`: tokens computed at once."""

    def __init__(
        self,
        checkpoint: Path | str | None = None,
        *,
        outputs: Path | str = "outputs",
        batch_size_tokens: int = 8192,
        device: str = "cpu",
        **_: Any,
    ) -> None:
        super().__init__()
        checkpoint = find_checkpoint(checkpoint, outputs)
        if device.startswith("cuda") and not torch.cuda.is_available():  # the harness's own default
            device = "cpu"
        self.model, self._tokenizer = load_checkpoint(checkpoint, device=device)
        self._checkpoint, self._batch_size_tokens = str(checkpoint), int(batch_size_tokens)

    @property
    def max_length(self) -> int:
        """Tokens of the model's context."""
        return self.model.config.max_position_embeddings

    @property
    def eot_token_id(self) -> int:
        """What ends a text."""
        ends = sorted(self._tokenizer.stop_ids)
        if not ends:
            raise StageError(
                f"{self._checkpoint}: the tokenizer has no token that ends a text.", "Add eos_token to it."
            )
        document = self._tokenizer.document_id
        return document if document in ends else ends[0]

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context."""
        document = self._tokenizer.document_id
        return self.eot_token_id if document is None else document

    @property
    def tokenizer_name(self) -> str:
        """Part of the harness's cache key."""
        return f"{self._checkpoint.replace('/', '__')}-{self._tokenizer.digest[:8]}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids as `transformers` makes them with the exported files: by default with their first token."""
        begin = [] if add_special_tokens is False else self._tokenizer.backend.encode("").ids
        return [*begin, *self._tokenizer.encode(string)]

    def _loglikelihood_tokens(
        self, requests: Sequence[Encoded], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [self._cut(context, continuation) for _, context, continuation in requests]
        with _shown("log-likelihoods", len(pairs), disable_tqdm) as advance:
            scores = score_continuations(self.model, pairs, batch_size_tokens=self._batch_size_tokens, advance=advance)
        results = [(score.log_prob, score.greedy) for score in scores]
        for request, result in zip(requests, results, strict=True):
            if request[0] is not None:
                self.cache_hook.add_partial("loglikelihood", request[0], result)
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts, in windows that share one token."""
        windows: list[Encoded] = []
        owner: list[int] = []
        for number, request in enumerate(requests):
            (text,) = request.args
            rolling = get_rolling_token_windows(
                token_list=self.tok_encode(text), prefix_token=self.prefix_token_id, max_seq_len=self.max_length,
                context_len=1,
            )  # fmt: skip
            for context, continuation in map(make_disjoint_window, rolling):
                windows.append((None, context, continuation))
                owner.append(number)
        totals = [0.0] * len(requests)
        for number, (log_prob, _) in zip(owner, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[number] += log_prob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continues each context until one of its stop strings, its number of tokens, or the end of text."""
        ending = self._tokenizer.decode([self.eot_token_id])
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(number)
        texts = [""] * len(requests)
        with _shown("generating", len(requests), disable_tqdm) as advance:
            for numbers in groups.values():
                settings = normalize_gen_kwargs(dict(requests[numbers[0]].args[1]), _MAX_NEW_TOKENS)
                stop = [text for text in handle_stop_sequences(settings.pop("until", None), eos=ending) if text]
                most = int(settings.pop("max_gen_toks"))
                if most >= self.max_length:
                    raise StageError(
                        f"The task asks for {most} new tokens; the model's context is {self.max_length}.",
                        "Give gen_kwargs='max_gen_toks=...'.",
                    )
                numbers.sort(key=lambda number: -len(requests[number].args[0]))
                for start in range(0, len(numbers), _ROWS):
                    rows = numbers[start : start + _ROWS]
                    prompts = [self.tok_encode(requests[n].args[0])[-(self.max_length - most) :] for n in rows]
                    written = generate(
                        self.model, prompts, tokenizer=self._tokenizer, sampling=_sampling(settings), max_tokens=most,
                        stop=[text for text in stop if text != ending],
                    )  # fmt: skip
                    for number, row in zip(rows, written, strict=True):
                        texts[number] = row.text
                        self.cache_hook.add_partial("generate_until", requests[number].args, row.text)
                    advance(len(rows))
        return texts

    def _cut(self, context: list[int], continuation: list[int]) -> tuple[list[int], list[int]]:
        """What of a pair fits the context: its end, as the `hf` backend keeps it."""
        whole = [*context, *continuation][-(self.max_length + 1) :]
        length = min(len(continuation), len(whole) - 1)
        return whole[:-length], whole[-length:]


def _sampling(settings: dict[str, Any]) -> Sampling:
    """Greedy unless the task samples."""
    if not settings.get("do_sample"):
        return Sampling()
    return Sampling(
        temperature=float(settings.get("temperature") or 1.0), top_k=settings.get("top_k"), top_p=settings.get("top_p")
    )


def _shown(what: str, total: int, hidden: bool) -> Any:
    return nullcontext(lambda amount: None) if hidden else progress(what, total, unit="requests")


def evaluate_from_words(arguments: Sequence[str]) -> None:
    """lm_eval's main with these words of a command line; `--model maquette` is added where no model is named. It leaves
    by `SystemExit` where it does not understand them."""
    named = any(word.partition("=")[0] in ("--model", "-M", "--config", "-C") for word in arguments)
    asks = not arguments or arguments[0] in ("ls", "validate", "-h", "--help")
    before, sys.argv = sys.argv, ["lm-eval", *arguments, *([] if named or asks else ["--model", "maquette"])]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
