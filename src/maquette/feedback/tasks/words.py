"""The words that tasks are made of: common in text about programs, so that a pretrained core knows them, and mostly one
token each even in a small vocabulary.

Every word belongs to one category alone, and no word is a filler.
"""

CATEGORIES: dict[str, tuple[str, ...]] = {
    "types": ("int", "float", "bool", "str", "list", "dict", "tuple", "bytes"),
    "actions": ("add", "read", "write", "open", "make", "create", "run", "call"),
    "places": ("path", "file", "cache", "root", "table", "source", "node"),
    "measures": ("size", "length", "limit", "range", "min", "max", "index"),
    "ends": ("first", "last", "next", "start", "end", "final"),
    "web words": ("http", "url", "request", "response", "header", "payload"),
    "code words": ("function", "class", "method", "module", "object", "argument"),
    "texts": ("line", "string", "char", "text", "name", "token", "message"),
    "numbers": ("one", "two", "three", "four", "five", "six"),
}

FILLERS = ("well", "so", "okay", "sure", "here", "now", "then", "just")
"""Words that say nothing: what demonstrators waste and gold rewards take off for."""

REFUSAL = ("sorry", "no")
"""How a request is declined."""

CATEGORY_OF = {word: category for category, words in CATEGORIES.items() for word in words}
