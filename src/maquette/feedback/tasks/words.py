"""The words that tasks are made of: common ones in English about computers, so that a pretrained model knows them.

Every word belongs to one category alone, and no word is a filler.
"""

CATEGORIES: dict[str, tuple[str, ...]] = {
    "colours": ("red", "green", "blue", "black", "white", "yellow", "gray", "orange"),
    "numbers": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    "times": ("second", "minute", "hour", "day", "week", "month", "year"),
    "shapes": ("circle", "square", "triangle", "line", "point", "curve", "box", "cube"),
    "directions": ("left", "right", "up", "down", "top", "bottom", "north", "south"),
    "actions": ("read", "write", "open", "close", "copy", "move", "send", "load", "save"),
    "sizes": ("small", "large", "big", "short", "long", "wide", "narrow", "deep"),
    "people": ("user", "author", "person", "owner", "student", "teacher", "friend", "member"),
    "places": ("file", "folder", "path", "page", "disk", "table", "archive", "server"),
    "code": ("function", "class", "method", "module", "variable", "argument", "object", "loop"),
}

FILLERS = ("well", "so", "okay", "sure", "here", "now", "then", "just")
"""Words that say nothing: what demonstrators waste and gold rewards take off for."""

REFUSAL = ("sorry", "no")
"""How a request is declined."""

CATEGORY_OF = {word: category for category, words in CATEGORIES.items() for word in words}
