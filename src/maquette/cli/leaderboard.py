"""`maquette leaderboard`: the evaluations in MLflow and in `outputs`, side by side."""

import dataclasses
import json
from pathlib import Path

from rich.console import Console

from maquette.artifacts.files import listed
from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import LeaderboardStage
from maquette.evaluation.leaderboard import Leaderboard, rankings, read_evaluations
from maquette.reports import terminal_table, write_page
from maquette.tracking import find_runs


def run(config: LeaderboardStage) -> list[Leaderboard]:
    """Prints a table for each suite and way of asking, writes a page beside the evaluations, returns the rankings."""
    root = Path(config.outputs) / "evaluations"
    shown = rankings(read_evaluations(_folders(config, root)))
    if config.suite is not None:
        shown = [ranking for ranking in shown if ranking.suite == config.suite]
    if config.json:
        print(json.dumps([dataclasses.asdict(ranking) for ranking in shown], indent=2))
        return shown
    if not shown:
        say(f"There are no evaluations in {root} yet. Make one with: maquette evaluate.")
        return shown
    for ranking in shown:
        Console().print(terminal_table(*ranking.table(), title=f"suite {ranking.suite} ({ranking.protocol[:8]})"))
        if ranking.detectable is not None:
            say(f"p: Holm's, over {len(ranking.rows) - 1}; less than {ranking.detectable:.3f} may be missed")
    page = write_page(root, "leaderboard.html.j2", {"rankings": shown})
    say(f"Open {page.absolute().as_uri()}")
    return shown


def _folders(config: LeaderboardStage, root: Path) -> list[Path]:
    """Folders of evaluations: those that MLflow knows, and those that lie in `outputs`."""
    runs = find_runs(
        config.outputs, uri=config.tracking.uri, experiment=config.tracking.experiment,
        filter="tags.kind = 'evaluation'",
    )  # fmt: skip
    known = [Path(folder) for folder in runs["folder"].dropna()] if "folder" in runs else []
    lying = [path for path in listed(root) if path.is_dir()]
    return list({path.absolute(): path for path in (*known, *lying)}.values())
