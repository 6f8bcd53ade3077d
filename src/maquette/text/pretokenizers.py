"""How text is cut into pieces before merging; a token never reaches over a cut.

The patterns are for Oniguruma, the engine of `tokenizers`: `++` and `*+` are possessive (no backtracking, so that a
megabyte of spaces stays linear). Each cuts any string into pieces without losing a character, and each cuts
`<|document|>` at least into `<|`, `document` and `|>`: no learned token can be a special token's text.
"""

# Letters with the marks that belong to them: without \p{M} Thai and Devanagari words are cut inside a syllable
# (GPT-4's pattern does that, GPT-4o's no longer).
_LETTER = r"\p{L}\p{M}"
_CONTRACTION = r"'(?i:[sdmt]|ll|ve|re)"
_WORD = rf"[^\r\n{_LETTER}\p{{N}}]?+[{_LETTER}]++"
_SIGNS = rf" ?[^\s{_LETTER}\p{{N}}]++[\r\n]*+"
_SPACES = r"\s+(?!\S)|\s+"  # the last space before a word goes with the word
_INDENTATION = r"(?:\A|(?<=[\r\n]))(?:(?: {4})++|\t++)"


def pattern(name: str, digits: int) -> str:
    """The regular expression of a pre-tokenizer; its matches are the pieces.

    `gpt4`: as GPT-4's (cl100k_base): words with the sign or space before them, contractions, signs with the line ends
    after them, digits in groups of at most `digits` from the left.
    `code`: the same, but at the beginning of a line a run of four-space units or of tabs is a piece of its own (so
    indentation and word never mix: GPT-4's cuts "    return" into three spaces and " return"), and lines that hold
    only spaces are not swallowed by the line end before them.
    `whitespace`: words as they stand between spaces, nothing else; `digits` has no effect.
    """
    numbers = rf"\p{{N}}{{1,{digits}}}"
    if name == "gpt4":
        return "|".join((_CONTRACTION, _WORD, numbers, _SIGNS, r"\s*[\r\n]+", _SPACES))
    if name == "code":
        return "|".join((_INDENTATION, _CONTRACTION, _WORD, numbers, _SIGNS, r"[^\S\r\n]*+[\r\n]++", _SPACES))
    if name == "whitespace":
        return "|".join((r"<\||\|>", r" ?(?:(?!<\||\|>)\S)++", _SPACES))
    raise ValueError(f"no pre-tokenizer is called {name!r}")
