"""Text from ids that arrive one at a time, as a person wants to see it: never half a character."""

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maquette.text.tokenizer import Tokenizer


class StreamDecoder:
    """Decodes ids one by one. All pushes and the final flush together are `tokenizer.decode(ids)`, of any kind.

    A character whose bytes are spread over several tokens (an emoji, Thai) is held back until it is whole; bytes that
    can't be one become U+FFFD. `continues=True` where the ids go on from an earlier text: a tokenizer that
    puts a space before each text then keeps its first space.
    """

    def __init__(self, tokenizer: "Tokenizer", *, skip_special: bool = False, continues: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = tokenizer.leading_space and not continues

    def push(self, id: int) -> str:
        """The characters that are complete with this id; often one token's text, sometimes "" or several characters."""
        data = self._tokenizer.token_bytes(id, skip_special=self._skip_special)
        if self._strip and data:
            data, self._strip = data.removeprefix(b" "), False
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD where a character never became whole, else ""."""
        return self._decoder.decode(b"", final=True)
