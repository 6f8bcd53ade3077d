"""`maquette ratings battles=arena.jsonl`: who is ahead in an arena, how sure that is, and what style and topics do."""

import json
from pathlib import Path
from typing import Any

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest, file_digest, locked, write_json
from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import RatingsStage
from maquette.evaluation.arena import rate, read_battles, show_ratings
from maquette.evaluation.figures import ratings_figure
from maquette.reports import write_page
from maquette.tracking import start_run

FILE = "ratings.json"


def run(config: RatingsStage) -> dict[str, Any]:
    """Rates a file of battles; writes ratings.json, index.html and the figure, and returns the JSON's content."""
    if config.battles is None:
        raise ConfigError("There is nothing to rate.", "Give battles=<file> with model_a, model_b and winner a row.")
    battles, skipped = read_battles(config.battles)
    path = Path(config.battles).expanduser()
    asked = {"topics": config.topics, "bootstrap": config.bootstrap, "level": config.level, "seed": config.seed}
    identity = {"name": path.stem, "file": str(path), "digest": file_digest(path), "skipped": skipped}
    folder = Path(config.outputs) / "ratings" / f"{path.stem}-{digest([identity['digest'], asked])[:8]}"
    with (
        locked(folder),
        start_run(
            config.tracking, outputs=config.outputs, name=f"ratings-{folder.name}", folder=folder,
            params={**asked, "battles": str(path)}, tags={"kind": "ratings"},
        ) as log,
    ):  # fmt: skip
        result = identity | rate(
            battles, shares=config.topics or None, bootstrap=config.bootstrap, level=config.level, seed=config.seed
        )
        page = write_page(folder, "ratings.html.j2", result, {"ratings": ratings_figure(result)})
        write_json(folder / FILE, result)
        for made in (page, folder / FILE, folder / "figures"):
            log.log_artifact(made)
    if config.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        show_ratings(result)
    for why, count in skipped.items():
        say(f"Left out: {count:,} rows with {why}.")
    say(f"Open {page.absolute().as_uri()}")
    return result
