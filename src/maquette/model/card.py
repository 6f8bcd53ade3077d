"""The parts of a model card (README.md) that come with the folder and not with the run: how to open the model."""

from typing import Any

from maquette.model.config import CoreConfig, count_parameters


def usage(architecture: str, config: CoreConfig) -> str:
    """A Markdown section on opening the folder, in `transformers` and here."""
    here = 'maquette sample "Once upon a time" checkpoint=<this folder>'
    if not config.opens_in_transformers:
        code = "".join(f"It needs `{name}`, which is not in this folder.\n\n" for name in config.own_code)
        return f"## Use\n\n{code}```\n{here}\n```\n"
    own = architecture == "MaquetteForCausalLM"
    trust = ", trust_remote_code=True" if own else ""
    note = "The modelling code lies beside the weights, in `modeling_maquette.py`.\n\n" if own else ""
    return f"""## Use

{note}```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder{trust})
model = AutoModelForCausalLM.from_pretrained(folder{trust})
inputs = tokenizer("Once upon a time", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0], skip_special_tokens=True))
```

```
{here}
```
"""


def imported_card(name: str, source: str, architecture: str, config: CoreConfig, digests: dict[str, str]) -> str:
    """The card of a model that was trained elsewhere. `digests`: SHA-256 of the files it was read from."""
    parts = count_parameters(config)
    shape: dict[str, Any] = {
        "architecture": architecture,
        "parameters N (core and head)": f"{parts.core + parts.head:,} ({parts.core:,} core, {parts.head:,} head)",
        "vocabulary": f"{config.vocab_size:,}",
        "context": f"{config.max_position_embeddings:,} tokens",
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in shape.items())
    files = "\n".join(f"- {file}: `{digest}`" for file, digest in digests.items())
    return f"""---
library_name: transformers
pipeline_tag: text-generation
---
# {name}

Imported by Maquette; trained elsewhere.

| | |
|---|---|
{rows}

## Lineage

Read from `{source}` (SHA-256):

{files}
"""
