"""TRL's side of `post_training_speed.py`: its trainers as they are, in float32, without gradient checkpointing.

`sft`, `dpo` (reference computed in every step, TRL's default), `dpo-precomputed`, `ppo` (`trl.experimental.ppo`, which
ended with 1.12).
"""

import sys
import tempfile

import torch
from datasets import Dataset
from shapes import EXAMPLES, MINIBATCHES, PASSES, ROWS, SIZES, VOCABULARY, Rows, Size, words
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from turns import Turns

from maquette.training.devices import keep_large_buffers

STEPS = 100_000


class Steps(TrainerCallback):
    def __init__(self) -> None:
        self.turns = Turns()

    def on_step_end(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        self.turns.step_done()


def main(kind: str, size: str, threads: int) -> None:
    torch.set_num_threads(threads)
    keep_large_buffers()
    if kind == "ppo":
        policy(SIZES[size])
        return
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    rows = ROWS[kind.partition("-")[0]]
    common = {
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": rows.count, "max_steps": STEPS, "bf16": False,
        "gradient_checkpointing": False, "report_to": [], "save_strategy": "no", "use_cpu": True, "disable_tqdm": True,
        "max_length": rows.length, "learning_rate": 1e-5,
    }  # fmt: skip
    model, tokenizer = LlamaForCausalLM(config(SIZES[size], rows)), word_tokenizer()
    if kind == "sft":
        trainer = SFTTrainer(
            model, SFTConfig(**common), train_dataset=dataset(rows, ("prompt", "completion")),
            processing_class=tokenizer, callbacks=[Steps()],
        )  # fmt: skip
    else:
        reference = LlamaForCausalLM(config(SIZES[size], rows))
        trainer = DPOTrainer(
            model, reference, DPOConfig(**common, precompute_ref_log_probs=kind == "dpo-precomputed"),
            train_dataset=dataset(rows, ("prompt", "chosen", "rejected")), processing_class=tokenizer,
            callbacks=[Steps()],
        )  # fmt: skip
    trainer.train()


def policy(size: Size) -> None:
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    rows = ROWS["ppo"]
    shape = config(size, rows)
    settings = PPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=rows.count,
        gradient_accumulation_steps=1, num_mini_batches=MINIBATCHES, num_ppo_epochs=PASSES,
        total_episodes=STEPS * rows.count, response_length=rows.answer, local_rollout_forward_batch_size=rows.count,
        num_sample_generations=0, temperature=1.0, bf16=False, gradient_checkpointing=False, report_to=[],
        save_strategy="no", use_cpu=True, disable_tqdm=True, learning_rate=1e-5, kl_coef=0.05,
    )  # fmt: skip
    prompts = Dataset.from_dict({"input_ids": [words(rows, number)[0] for number in range(EXAMPLES)]})
    trainer = PPOTrainer(
        settings, word_tokenizer(), LlamaForCausalLM(shape), LlamaForCausalLM(shape),
        LlamaForSequenceClassification(shape), prompts, LlamaForSequenceClassification(shape), callbacks=[Steps()],
    )  # fmt: skip
    trainer.train()


def config(size: Size, rows: Rows) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=size.hidden_size, intermediate_size=size.feed_forward,
        num_hidden_layers=size.num_hidden_layers, num_attention_heads=size.num_attention_heads,
        max_position_embeddings=rows.length,
        pad_token_id=0, bos_token_id=None, eos_token_id=None, num_labels=1, attn_implementation="sdpa",
    )  # fmt: skip


def word_tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({str(token): token for token in range(VOCABULARY)}, unk_token="0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="0", eos_token="1", padding_side="left")


def dataset(rows: Rows, names: tuple[str, ...]) -> Dataset:
    """Words as text, which TRL makes into tokens; it closes answers with an end itself."""
    rows_of_text = [words(rows, number) for number in range(EXAMPLES)]
    texts = {"prompt": [" ".join(map(str, one[0])) for one in rows_of_text]}
    for place, name in enumerate(names[1:], 1):
        texts[name] = [" " + " ".join(map(str, one[place][:-1])) + " 1" for one in rows_of_text]
    return Dataset.from_dict(texts)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
