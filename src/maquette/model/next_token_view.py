"""The next token in a terminal: bars for the likeliest, what each setting leaves, the text shaded by surprise, and
beams as a tree; the same as tab-separated lines and as JSON.

Signs for what can't be seen (a space, a line end) are those of the tokenizer's report (`measure.visible`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree as RichTree

from maquette.artifacts import ConfigError
from maquette.model.next_token import (
    Beam,
    Branch,
    NextToken,
    TextEntropy,
    beam_search,
    beam_tree,
    next_token,
    read_text,
)
from maquette.model.sampling import Sampling
from maquette.text.measure import visible

if TYPE_CHECKING:
    from maquette.model.heads import LanguageModel
    from maquette.text import Tokenizer

_SHADES = ("", "black on #fff1c9", "black on #fed98e", "black on #fe9929", "white on #cc4c02")
"""Of tokens by their surprise, each for 2.5 bits more; the first leaves the terminal's own colours."""
_BITS = 2.5

_WIDEST = 80
"""Columns of one model: longer bars are no easier to read."""


@dataclass(frozen=True)
class NextTokenView:
    """What a model makes of a text: `tokens` are shown as they are, `before` of them stand before the place."""

    model: str
    text: str
    ids: tuple[int, ...]
    before: int
    reading: TextEntropy
    prediction: NextToken
    beams: tuple[Beam, ...]
    tokenizer: "Tokenizer"

    def shown(self, token: int) -> str:
        """A token as something that can be seen."""
        return visible(self.tokenizer.token_bytes(token)) or f"⟨{token}⟩"

    def plain(self) -> dict[str, Any]:
        """As JSON; surprise and entropy in bits."""
        surprises = (None, *self.reading.surprises)
        candidates = [{"text": self.shown(one.token), **asdict(one)} for one in self.prediction.candidates]
        beams = [
            {"text": self.tokenizer.decode(beam.tokens), "tokens": list(beam.tokens), "log_prob": beam.log_prob}
            for beam in self.beams
        ]
        return {
            "model": self.model,
            "text": self.text,
            "tokens": [
                {"text": self.shown(token), "token": token, "surprise": surprise}
                for token, surprise in zip(self.ids, surprises, strict=True)
            ],
            "position": self.before,
            "entropy": self.prediction.entropy,
            "candidates": candidates,
            "others": self.prediction.others,
            "truncations": [asdict(one) for one in self.prediction.truncations],
            **({"beams": beams} if beams else {}),
        }


def view_next_token(
    name: str,
    model: "LanguageModel",
    tokenizer: "Tokenizer",
    text: str,
    ids: Sequence[int],
    sampling: Sampling,
    *,
    count: int,
    back: int = 0,
    beams: int = 0,
    max_tokens: int = 8,
) -> NextTokenView:
    """The model's view of the place `back` tokens before the end of `ids`, which are `text` as the model reads it.

    Raises `ConfigError` where there is no such place, or the text is longer than the model reads."""
    if back >= len(ids):
        raise ConfigError(f"back={back}: {text!r:.60} has {len(ids) - 1:,} tokens.", "Go back less far.")
    read = ids[: len(ids) - back]
    continuations = (
        beam_search(model, read, beams=beams, max_tokens=max_tokens, stop_ids=[*tokenizer.stop_ids]) if beams else []
    )
    return NextTokenView(
        name, text, tuple(ids), len(read), read_text(model, ids), next_token(model, read, sampling, count),
        tuple(continuations), tokenizer,
    )  # fmt: skip


def tab_separated(views: Sequence[NextTokenView]) -> Iterator[str]:
    """A line of headings, then one for each candidate."""
    yield "model\ttext\trank\ttoken\tid\tprobability\tdrawn"
    for view in views:
        text = visible(view.text.encode("utf-8", "replace"))
        for rank, one in enumerate(view.prediction.candidates, 1):
            numbers = f"{one.token}\t{one.probability:.6g}\t{one.drawn:.6g}"
            yield f"{view.model}\t{text}\t{rank}\t{view.shown(one.token)}\t{numbers}"


def show(views: Sequence[NextTokenView], console: Console) -> None:
    """Several views of one text stand side by side where the terminal has 38 columns for each."""
    side_by_side = len(views) > 1 and console.width >= 38 * len(views) + len(views) - 1
    width = min(_WIDEST, (console.width - len(views) + 1) // len(views) if side_by_side else console.width)
    top = max(one.probability for view in views for one in view.prediction.candidates)
    panels = [Group(*_parts(view, width, top)) for view in views]
    if side_by_side:
        console.print(Columns(panels, width=width, padding=(0, 1, 0, 0)))
    else:
        console.print(*panels, sep="\n")


def _parts(view: NextTokenView, width: int, top: float) -> Iterator[RenderableType]:
    prediction = view.prediction
    yield Text(view.model, style="bold")
    yield _shaded(view)
    yield Text(
        f"entropy {prediction.entropy:.2f} bits: as unsure as among {2**prediction.entropy:,.0f} equal tokens\n",
        style="dim",
    )
    yield _bars(view, width, top)
    yield Text("")
    yield _truncations(prediction)
    if view.beams:
        yield Text("")
        yield _tree(view)


def _shaded(view: NextTokenView) -> Text:
    """The text, each token on a ground that is the darker the more it surprised; ▏ marks the place."""
    text = Text()
    special = set(view.tokenizer.special_ids.values())
    for index, (token, surprise) in enumerate(zip(view.ids, (0.0, *view.reading.surprises), strict=True)):
        if index == view.before:
            text.append("▏", "bold")
        if token in special:
            text.append(view.shown(token), "dim")
            continue
        written = view.tokenizer.decode([token])
        shown = written if written.isprintable() or written == "\n" else view.shown(token)
        text.append(shown, _SHADES[min(int(surprise / _BITS), len(_SHADES) - 1)])
    if view.before == len(view.ids):
        text.append("▏", "bold")
    return text


def _bars(view: NextTokenView, width: int, top: float) -> Table:
    candidates, others = view.prediction.candidates, view.prediction.others
    names = [view.shown(one.token) for one in candidates]
    column = min(18 if width >= 60 else 12, max(8, *map(len, names)))
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, width=column, overflow="ellipsis")
    table.add_column(justify="right", width=6)
    bar = max(4, width - column - 6 - 7 - 4)
    table.add_column(width=bar)
    table.add_column(justify="right", width=7)
    table.add_row(*(Text(one, "dim") for one in ("token", "model", "", "drawn")))
    for name, one in zip(names, candidates, strict=True):
        drawn = Text(percent(one.drawn), "" if one.drawn else "dim")
        table.add_row(Text(name), percent(one.probability), Text(_bar(one.probability / top, bar), "cyan"), drawn)
    table.add_row(*(Text(one, "dim") for one in ("others", percent(others), "", "")))
    return table


def _bar(share: float, width: int) -> str:
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]


def percent(probability: float) -> str:
    """Two or three digits: 12.3%, 0.04%, 0 where it is none."""
    if not probability:
        return "0"
    shares = 100 * probability
    return f"{shares:.1f}%" if shares >= 0.1 else f"{shares:.2f}%" if shares >= 0.01 else "<.01%"


def _truncations(prediction: NextToken) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    for _ in range(3):
        table.add_column(justify="right")
    table.add_row(*(Text(one, "dim") for one in ("what is left", "tokens", "holding", "bits")))
    for one in prediction.truncations:
        table.add_row(one.setting, f"{one.tokens:,}", percent(one.probability), f"{one.entropy:.2f}")
    return table


def _tree(view: NextTokenView) -> RichTree:
    """The beams, what they have in common once; at each token its probability, at each end that of the whole."""
    tree = RichTree(Text(f"likeliest continuations ({len(view.beams)} beams)", "dim"), guide_style="dim")
    _grow(tree, view, beam_tree(view.beams))
    return tree


def _grow(tree: RichTree, view: NextTokenView, branches: Sequence[Branch]) -> None:
    for branch in branches:
        label = Text()
        for token, log_prob in zip(branch.tokens, branch.log_probs, strict=True):
            label.append(view.shown(token), "bold" if branch.best else "")
            label.append(f" {percent(math.exp(log_prob))} ", "dim")
        if branch.whole is not None:
            label.append(f"= {percent(math.exp(branch.whole))}", "bold")
            label.append(" likeliest" if branch.best else "", "dim")
        _grow(tree.add(label), view, branch.branches)
