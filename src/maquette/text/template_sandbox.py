"""Where chat templates of strangers run: Jinja's sandbox, with an end.

The sandbox keeps a template from Python's insides, but lets it loop for ever (`range(99999)` twice, macros that call
themselves twice) and fill the memory (a text doubled in a loop). Here every turn of a loop and every call counts, and
no text may grow beyond a limit; a template that goes on is refused with a message. A conversation of a thousand
messages takes some ten thousand steps.
"""

import typing
from collections.abc import Iterable, Iterator
from typing import Any

import jinja2
import jinja2.nodes
import jinja2.runtime
import jinja2.sandbox
import jinja2.visitor

MAX_STEPS = 250_000
"""Turns of loops and calls in one rendering."""

MAX_CHARACTERS = 2**24
"""Of any text in one rendering, the whole result among them."""


class EndingSandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """`start()` begins a rendering; then whatever it does too much of raises `jinja2.TemplateError`."""

    intercepted_binops = frozenset(("+", "*", "**"))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters |= {_COUNTED: _counted, _LIMITED: _limited}
        self._steps = 0

    def start(self) -> None:
        self._steps = 0

    def step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise jinja2.TemplateError(f"it does not end within {MAX_STEPS:,} steps")

    def call(self, context: Any, obj: Any, /, *args: Any, **named: Any) -> Any:
        self.step()
        if isinstance(obj, jinja2.runtime.LoopContext) and args:  # a recursive loop
            args = (_counted(context, args[0]), *args[1:])
        return limited(super().call(context, obj, *args, **named))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.step()
        if operator == "**" and isinstance(right, int) and right > _MAX_EXPONENT:
            raise jinja2.TemplateError(f"it raises a number to the power {right:,}")
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if hasattr(text, "__len__") and isinstance(times, int) and len(text) * times > MAX_CHARACTERS:
                    raise too_long()
        return limited(super().call_binop(context, operator, left, right))

    def _parse(self, source: str, name: Any, filename: Any) -> jinja2.nodes.Template:
        tree = _Measured().visit(super()._parse(source, name, filename))
        return typing.cast("jinja2.nodes.Template", tree.set_environment(self))


_COUNTED, _LIMITED = "counted turns", "limited text"
"""Filters that no template can name."""

_MAX_EXPONENT = 64


class _Measured(jinja2.visitor.NodeTransformer):
    """Puts a filter around what loops go through, and around what joins texts."""

    def visit_For(self, node: jinja2.nodes.For) -> jinja2.nodes.Node:  # noqa: N802 (as its base class calls it)
        self.generic_visit(node)
        node.iter = _filtered(_COUNTED, node.iter)
        return node

    def visit_Concat(self, node: jinja2.nodes.Concat) -> jinja2.nodes.Node:  # noqa: N802
        return _filtered(_LIMITED, self.generic_visit(node))

    def visit_Filter(self, node: jinja2.nodes.Filter) -> jinja2.nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return node if node.node is None else _filtered(_LIMITED, node)  # None: the filter of a {% filter %} block


def _filtered(name: str, node: Any) -> jinja2.nodes.Filter:
    return jinja2.nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


@jinja2.pass_context
def _counted(context: Any, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        context.environment.step()
        yield value


@jinja2.pass_context
def _limited(context: Any, value: Any) -> Any:
    return limited(value)


def limited(value: Any) -> Any:
    """The value. Raises `jinja2.TemplateError` for a text that is too long."""
    if isinstance(value, str) and len(value) > MAX_CHARACTERS:
        raise too_long()
    return value


def too_long() -> jinja2.TemplateError:
    """The error of a text beyond the limit."""
    return jinja2.TemplateError(f"it makes a text of more than {MAX_CHARACTERS:,} characters")
