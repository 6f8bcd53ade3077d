"""Which language a text is in, and how sure that is: py3langid's naive Bayes model (97 languages, inside its wheel)."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import StageError
from maquette.corpus.cleaning import Rejection
from maquette.corpus.curation.config import LanguageConfig
from maquette.corpus.document import Document

_SAMPLE = 600  # characters from each of three places: more changes no answer and costs time


@functools.cache
def _identifier() -> Any:
    try:
        import py3langid
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise StageError(
            "Language identification needs the package py3langid.",
            'Install it with: pip install "maquette-lm[curation]"; or keep all languages: curation.language.keep=[].',
        ) from None
    return LanguageIdentifier.from_modelpath(Path(py3langid.__file__).parent / MODEL_FILE, norm_probs=True)


def language_of(text: str) -> tuple[str, float]:
    """The language's ISO 639-1 code and its probability; of long texts the beginning, middle and end are looked at."""
    if len(text) > 3 * _SAMPLE:
        middle = len(text) // 2
        text = f"{text[:_SAMPLE]} {text[middle : middle + _SAMPLE]} {text[-_SAMPLE:]}"
    name, probability = _identifier().classify(text)
    return str(name), float(probability)


def check_language(document: Document, config: LanguageConfig) -> Document | Rejection:
    """The document with its language in `meta`, or a rejection where that is not wanted or not sure."""
    name, probability = language_of(document.text)
    document = dataclasses.replace(
        document, meta=document.meta | {"language": name, "language_confidence": round(probability, 4)}
    )
    if config.keep and name not in config.keep:
        return Rejection(document, "language: another one", probability)
    if config.keep and probability < config.confidence:
        return Rejection(document, "language: not sure", probability)
    return document
