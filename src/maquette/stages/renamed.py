"""Keys by their old names, so that a line from before is answered with the new one."""

_RENAMED: dict[str, str] = {}


def renamed_key(key: str) -> str | None:
    """The new name of a key, where it had another one."""
    return _RENAMED.get(key)
