"""`maquette instruct author.checkpoint=...`: instructions that a model writes, checked, counted and priced.

Run the command again to resume, with a larger count= to go on: replies are kept as they come.
"""

from pathlib import Path

from maquette.artifacts import StageError
from maquette.artifacts.files import digest, locked
from maquette.artifacts.progress import say
from maquette.cli.command_line.model_config import InstructStage
from maquette.feedback.instruct.tasks import read_seeds, request_identity, seed_file
from maquette.model.loading import find_checkpoint, model_name, weights_digest
from maquette.tracking import start_run


def run(config: InstructStage) -> Path:
    """Writes the journal, instructions.jsonl, rejected.jsonl and index.html; returns their folder. Raises `StageError`
    where the author does not reply, or nothing of it can be kept."""
    seeds = read_seeds(seed_file(config.seeds))
    asked = {"seed": config.seed, "tasks_per_request": config.tasks_per_request, "author": config.author.identity()}
    asked |= request_identity(seed_file(config.seeds))
    name = config.author.model
    if config.author.url is None:
        checkpoint = find_checkpoint(config.author.checkpoint, config.outputs, key="author.checkpoint")
        name, asked["weights"] = model_name(checkpoint), weights_digest(checkpoint)
    folder = Path(config.outputs) / "instructions" / f"{name.replace('/', '-').lstrip('.')}-{digest(asked)[:8]}"
    with (
        locked(folder),
        start_run(
            config.tracking, outputs=config.outputs, name=f"instruct-{folder.name}", folder=folder, params=asked,
            tags={"kind": "instruct"},
        ) as log,
    ):  # fmt: skip
        from maquette.feedback.building import build_author
        from maquette.feedback.instruct.report import write_report_page
        from maquette.feedback.instruct.writing import INSTRUCTIONS, JOURNAL, write_instructions, write_outcome

        written = write_instructions(
            build_author(config.author, config.outputs), seeds, folder / JOURNAL, count=config.count,
            requests=config.requests, tasks_per_request=config.tasks_per_request, at_once=config.author.workers,
            seed=config.seed,
        )  # fmt: skip
        facts = write_outcome(folder, written, config.author, name)
        page = write_report_page(folder, facts, written.task_filter, seeds)
        log.log_metrics({f"instruct/{key}": facts[key] for key in ("tries", "accepted", "seconds", "dollars")}, step=0)
        log.log_artifact(page)
    if not facts["accepted"]:
        raise StageError(
            f"None of {facts['tries']:,} tasks that {name} wrote could be kept.",
            f"{page} says why; try a larger model, or another temperature.",
        )
    say(f"{folder / INSTRUCTIONS}; open {page.absolute().as_uri()}")
    return folder
