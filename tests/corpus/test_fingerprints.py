import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maquette.corpus.fingerprints import PERMUTATIONS, Fingerprints, fingerprint

CODE = """\
import os

@cached
def name(
    path,
):
    if path:
        return 1
    else:
        return 2
x = 1
y = 2
for i in x:
    pass
z = 3

class A:
    pass
"""

PROSE = """\
Parameters
----------
x : array
    The input.

    Of any shape.
axis : int
    Along which.
out : array

A plain paragraph
of two lines.
"""


def blocks(text: str) -> list[str]:
    return [text[begin:end] for begin, end in fingerprint([text]).block_span.tolist()]


def test_blocks_of_code_are_statements_with_their_bodies() -> None:
    assert blocks(CODE) == [
        "import os",
        "@cached\ndef name(\n    path,\n):\n    if path:\n        return 1\n    else:\n        return 2",
        "x = 1\ny = 2",
        "for i in x:\n    pass",
        "z = 3",
        "class A:\n    pass",
    ]


def test_blocks_of_prose_are_paragraphs_and_items() -> None:
    assert blocks(PROSE) == [
        "Parameters\n----------",
        "x : array\n    The input.",
        "    Of any shape.",
        "axis : int\n    Along which.",
        "out : array",
        "A plain paragraph\nof two lines.",
    ]
    assert fingerprint([PROSE]).block_paragraph.tolist() == [0, 0, 1, 1, 1, 2]


@given(st.lists(st.text("ab \n.é", max_size=30), max_size=6))
def test_a_batch_is_its_documents_laid_end_to_end(texts: list[str]) -> None:
    together = fingerprint(texts)
    apart = Fingerprints.concatenate([fingerprint([])] + [fingerprint([text]) for text in texts])
    for name in Fingerprints.__slots__:
        np.testing.assert_array_equal(getattr(together, name), getattr(apart, name), err_msg=name)


@given(st.text("ab \n.é(", max_size=80))
def test_blocks_hold_every_token_once(text: str) -> None:
    result = fingerprint([text])
    assert int(result.block_size.sum()) == result.tokens.size
    assert "".join("".join(blocks(text)).split()) == "".join(text.split())


def test_signatures_estimate_the_similarity_of_shingles() -> None:
    generator = np.random.Generator(np.random.PCG64(1))
    words = [f"w{number}" for number in generator.integers(0, 10**6, 400)]
    changed = [*words[:300], *(f"v{number}" for number in range(100))]
    shingles = [{tuple(text[i : i + 5]) for i in range(396)} for text in (words, changed)]
    true = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
    prints = fingerprint([" ".join(words), " ".join(changed)])
    estimate = (prints.signature[0] == prints.signature[1]).mean()
    assert abs(estimate - true) < 4 * np.sqrt(true * (1 - true) / PERMUTATIONS)
    assert 0.55 < true < 0.65


def test_short_paragraphs_have_no_signature() -> None:
    prints = fingerprint(["one two three\n\n" + " ".join(f"w{n}" for n in range(20))])
    assert prints.signed.tolist() == [1]
