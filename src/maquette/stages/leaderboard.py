"""`maquette leaderboard`: the evaluations in MLflow and in `outputs`, side by side."""

import dataclasses
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from maquette.artifacts.progress import say
from maquette.evaluation.suites.leaderboard import Board, behind, boards, read_evaluations, write_page
from maquette.stages.config import LeaderboardStage
from maquette.tracking import find_runs


def run(config: LeaderboardStage) -> list[Board]:
    """Prints a table for each suite and way of asking, writes a page beside the evaluations, returns the boards."""
    root = Path(config.outputs) / "evaluations"
    found = boards(read_evaluations(_folders(config, root)))
    if config.suite is not None:
        found = [board for board in found if board.suite == config.suite]
    if config.json:
        print(json.dumps([dataclasses.asdict(board) for board in found], indent=2))
        return found
    if not found:
        say(f"There are no evaluations in {root} yet. Make one with: maquette evaluate.")
        return found
    for board in found:
        Console().print(_table(board))
    page = write_page(root / "index.html", found)
    say(f"Open {page.absolute().as_uri()}")
    return found


def _folders(config: LeaderboardStage, root: Path) -> list[Path]:
    """Folders of evaluations: those that MLflow knows, and those that lie in `outputs`."""
    runs = find_runs(
        config.outputs, uri=config.tracking.uri, experiment=config.tracking.experiment,
        filter="tags.kind = 'evaluation'",
    )  # fmt: skip
    known = [Path(folder) for folder in runs["folder"].dropna()] if "folder" in runs else []
    lying = sorted(path for path in root.glob("*") if path.is_dir())
    return list({path.absolute(): path for path in (*known, *lying)}.values())


def _table(board: Board) -> Table:
    table = Table("model", title=f"suite {board.suite} ({board.protocol[:8]})", title_justify="left")
    names = list(dict.fromkeys(name for row in board.rows for name in row.scores))
    for name in ("mean win rate", "mean accuracy", "behind the first", *names, "bits per byte"):
        table.add_column(name, justify="right")
    if board.one_tokenizer:
        table.add_column("perplexity", justify="right")
    for row in board.rows:
        scores = [_shown(row.scores.get(name)) for name in names]
        cells = [_shown(row.mean_win_rate), _shown(row.mean_accuracy), behind(row.behind), *scores]
        table.add_row(
            row.name, *cells, _shown(row.bits_per_byte), *([_shown(row.perplexity)] if board.one_tokenizer else [])
        )
    return table


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
