"""Nodes of the config: dataclasses and dicts alike, their arguments, and what a changed `_target_` leaves of them."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from maquette.artifacts import ConfigError
from maquette.artifacts.targets import (
    arguments_of,
    build,
    has_key,
    node_value,
    node_values,
    target_of,
    typed,
    with_values,
)


class Base:
    def __init__(self, first: int, size: int = 1, name: str = "base") -> None:
        self.first, self.size, self.name = first, size, name


class Derived(Base):
    def __init__(self, first: int, *, more: Any = None, **settings: Any) -> None:
        super().__init__(first, **settings)
        self.more = more


class Other:
    def __init__(self, first: int, size: int = 7, depth: int = 0) -> None:
        if depth < 0:
            raise ValueError("depth must not be negative")
        self.first, self.size, self.depth = first, size, depth


@dataclass
class Settings:
    _target_: str = f"{__name__}.Base"
    _partial_: bool = True
    size: int = 3
    name: str | None = None
    sizes: list[int] = field(default_factory=list)


DICT = {"_target_": f"{__name__}.Base", "_partial_": True, "size": 3, "name": None, "sizes": []}


@pytest.mark.parametrize("node", [Settings(), DICT])
def test_a_dataclass_and_a_dict_are_read_alike(node: Any) -> None:
    assert node_values(node) == DICT
    assert target_of(node) == f"{__name__}.Base"
    assert node_value(node, "size") == 3 and node_value(node, "depth", 5) == 5
    assert has_key(node, "name") and not has_key(node, "depth")
    changed = with_values(node, size=4)
    assert type(changed) is type(node)
    assert (node_value(changed, "size"), node_value(node, "size")) == (4, 3)
    built = build(node, 1, key="thing", leave_out=["sizes"], name="given")
    assert (type(built), built.first, built.size, built.name) == (Base, 1, 3, "given")


def test_arguments_go_up_the_bases_that_settings_are_handed_on_to() -> None:
    assert list(arguments_of(Derived)) == ["first", "more", "size", "name"]
    assert list(arguments_of(Other)) == ["first", "size", "depth"]
    assert list(arguments_of(lambda first, *rest, size=2: None)) == ["first", "size"]


def test_lists_arrive_as_lists_and_nested_nodes_are_built() -> None:
    node = {"_target_": f"{__name__}:Derived", "more": [{"_target_": f"{__name__}.Other", "first": 2}, [1, 2]]}
    more = build(node, 1, key="thing").more
    assert type(more) is list and type(more[1]) is list
    assert isinstance(more[0], Other) and more[0].first == 2


def test_plain_values_get_their_dataclass_where_it_is_ours() -> None:
    assert typed(DICT, [Settings]) == Settings()
    other = {"_target_": f"{__name__}.Other", "depth": 2}
    assert typed(other, [Settings]) == other


@pytest.mark.parametrize(
    ("node", "named"),
    [
        ({"_target_": f"{__name__}.Othr"}, "Other"),
        ({"_target_": f"{__name__}.Other", "width": 1}, "width"),
        ({"_target_": f"{__name__}.Other", "depth": -1}, "must not be negative"),
    ],
)
def test_what_a_target_refuses_is_said_with_the_key(node: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(node, 1, key="thing")
    text = f"{caught.value} {caught.value.hint}" if hasattr(caught.value, "hint") else str(caught.value)
    assert "thing" in text and named in text
