"""The recurrent baseline: LSTM layers (Hochreiter and Schmidhuber 1997) behind the transformer's interface."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from maquette.model.architecture import LSTMConfig
from maquette.model.attention import PackedSequences
from maquette.model.cache import RecurrentCache
from maquette.model.initialization import initialize, unfilled_embedding


class LSTM(nn.Module):
    """`forward(tokens (B, T)) -> hidden (B, T, D)`. Starts from the weights that `seed` gives."""

    def __init__(self, config: LSTMConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = unfilled_embedding(config.vocab_size, config.hidden_size)
        with torch.random.fork_rng(devices=[]):  # nn.LSTM draws numbers that `initialize` then replaces
            self.lstm = nn.LSTM(
                config.hidden_size, config.hidden_size, config.num_hidden_layers, batch_first=True,
                dropout=config.dropout if config.num_hidden_layers > 1 else 0.0,
            )  # fmt: skip
        initialize(self, config, seed)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: RecurrentCache | None = None,
        packed: PackedSequences | None = None,
    ) -> Tensor:
        """`tokens (B, T)` int64 -> `(B, T, D)`.

        `positions` and `packed` are taken for the transformer's sake and change nothing: a recurrent model counts for
        itself. `segments (B, T)`: the state starts afresh with each document. `cache`: continues from its state and
        renews it.
        """
        if segments is not None and cache is not None:
            raise ValueError("A cache holds one document a row; segments do not go with it.")
        hidden = F.dropout(self.embedding(tokens), self.config.dropout, self.training)
        if cache is not None:
            output = self.go_on(hidden, cache)
        elif segments is not None:
            output, _ = self.run_pieces(hidden, F.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True))
        else:
            output, _ = self.lstm(hidden)
        return F.dropout(output, self.config.dropout, self.training)

    @property
    def own_head(self) -> Tensor | None:
        """The head's matrix `(V, D)` where it is the embedding's."""
        return self.embedding.weight if self.config.tie_word_embeddings else None

    def go_on(self, hidden: Tensor, cache: RecurrentCache) -> Tensor:
        columns = torch.arange(cache.used, cache.used + hidden.size(1), device=hidden.device)
        if cache.starts is None or cache.used > int(cache.starts.max()):
            output, (cache.hidden, cache.cell) = self.lstm(hidden, (cache.hidden, cache.cell))
        else:
            if cache.used > 0:
                raise ValueError("The first tokens must reach beyond the padding of every row.")
            begins = (columns == cache.starts[:, None]) | (columns == 0)
            output, (cache.hidden, cache.cell) = self.run_pieces(hidden, begins)
        cache.used += hidden.size(1)
        return output

    def run_pieces(self, hidden: Tensor, begins: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Runs each document from a state of zero, as a row of its own.

        `begins (B, T)` bool, true at each row's first token. Gives the output and the state after each row's end.
        """
        batch, length, _ = hidden.shape
        begins = begins.clone()
        begins[:, 0] = True
        first = begins.flatten().nonzero().squeeze(1)
        lengths = torch.diff(first, append=first.new_tensor([batch * length]))
        pieces = torch.split(hidden.flatten(0, 1), lengths.tolist())
        packed = pack_padded_sequence(
            pad_sequence(list(pieces), batch_first=True), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        output, (last_hidden, last_cell) = self.lstm(packed)
        padded, _ = pad_packed_sequence(output, batch_first=True)
        real = torch.arange(padded.size(1), device=hidden.device) < lengths[:, None]
        last_of_row = begins.sum(dim=1).cumsum(dim=0) - 1
        return padded[real].view(batch, length, -1), (last_hidden[:, last_of_row], last_cell[:, last_of_row])

    def change_context(self, *, max_position_embeddings: int | None = None, rope_theta: float | None = None) -> None:
        """Goes on with longer sequences; `rope_theta` means nothing to a recurrent model."""
        self.config = dataclasses.replace(
            self.config, max_position_embeddings=max_position_embeddings or self.config.max_position_embeddings
        )
