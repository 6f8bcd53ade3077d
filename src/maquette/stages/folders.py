"""Where the config tree lies: inside the installed package, or at the top of a checkout; then the user's own folder."""

from pathlib import Path

import maquette


def config_folders(own: Path | None = None) -> list[Path]:
    """The folders that YAML files are looked for in; the project's own comes first."""
    package = Path(maquette.__file__).parent
    shipped = package / "conf"
    project = shipped if shipped.is_dir() else package.parents[1] / "conf"
    return [project] if own is None else [project, own]
