"""Completions of a policy from vLLM (`objective.rollout_backend=vllm`), an engine that serves language models on GPUs.

Never run with vLLM itself: a module of its interface's shape stands in for it in the tests.

At each iteration the policy's weights are written as a Hugging Face folder and the engine reads them in place
(`LLM.collective_rpc("reload_weights")`, as vLLM's page on sleep mode has it). Engine and training compute in other
number formats and kernels, so a token's probability when it was drawn is not exactly the policy's, and the loss would
be about another distribution than it was sampled from: `losses.truncated_importance_weights` corrects that.

Each process has an engine of its own on its own GPU, beside the training.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts import ConfigError
from maquette.data.conversations import Prompt
from maquette.model import LanguageModel, hf
from maquette.model.adapters import adapted
from maquette.model.architecture import TransformerConfig
from maquette.model.generation import row_seed
from maquette.objectives.completions import Completion

if TYPE_CHECKING:
    from maquette.text import Tokenizer

_MEMORY_SHARE = 0.3
"""Of a GPU's memory; the rest is the training's."""


class VllmSampler:
    """Samples as `completions.sample_completions` does, from an engine that `push` gives the policy's weights.

    Raises `ConfigError` where vLLM is not installed, or does not know such models.
    """

    def __init__(self) -> None:
        try:
            import vllm  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            hint = "pip install vllm, which brings the version of PyTorch that it was built for."
            raise ConfigError("objective.rollout_backend=vllm needs vLLM.", hint) from None
        self._vllm: Any = vllm
        self._engine: Any = None
        self._folder = tempfile.TemporaryDirectory(prefix="maquette-vllm-")

    def push(self, model: LanguageModel, tokenizer: "Tokenizer") -> None:
        """Has the engine sample from the model as it is now."""
        config = model.config
        if not isinstance(config, TransformerConfig) or config.token_shift or config.own_code or adapted(model):
            raise ConfigError(
                "objective.rollout_backend=vllm knows whole models of Hugging Face families alone, without an adapter.",
                "Use a checkpoint with model.token_shift=false, or leave objective.rollout_backend out.",
            )
        folder = Path(self._folder.name) / "policy"
        hf.save(model, tokenizer, folder)
        if self._engine is not None:
            self._engine.collective_rpc("reload_weights")
            self._engine.reset_prefix_cache()  # what was read of prompts belongs to the weights before
            return
        # The engine runs in this process, on this process's GPU.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        self._engine = self._vllm.LLM(
            model=str(folder), skip_tokenizer_init=True, max_model_len=config.max_position_embeddings,
            gpu_memory_utilization=_MEMORY_SHARE, distributed_executor_backend="external_launcher",
            logprobs_mode="processed_logprobs",
        )  # fmt: skip

    def __call__(
        self,
        model: LanguageModel,
        tokenizer: "Tokenizer",
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        numbers: Sequence[int],
    ) -> list[Completion]:
        """One completion of each prompt, with the log-probabilities of its tokens when they were drawn."""
        context = model.config.max_position_embeddings
        settings = [
            self._vllm.SamplingParams(
                temperature=temperature, max_tokens=min(max_tokens, context - len(prompt.ids)),
                stop_token_ids=sorted(tokenizer.stop_ids), seed=row_seed(seed, number), logprobs=0, detokenize=False,
            )
            for prompt, number in zip(prompts, numbers, strict=True)
        ]  # fmt: skip
        asked = [{"prompt_token_ids": list(prompt.ids)} for prompt in prompts]
        results = self._engine.generate(asked, settings, use_tqdm=False)
        completions = []
        for prompt, result in zip(prompts, results, strict=True):
            written = result.outputs[0]
            tokens = tuple(int(token) for token in written.token_ids)
            log_probs = tuple(
                float(likely[token].logprob) for token, likely in zip(tokens, written.logprobs, strict=True)
            )
            ended = bool(tokens) and tokens[-1] in tokenizer.stop_ids
            text = tokenizer.decode(tokens[:-1] if ended else tokens, skip_special=True)
            completions.append(Completion(prompt.messages, text, prompt.ids, tokens, ended, prompt.facts, log_probs))
        return completions
