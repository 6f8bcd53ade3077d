"""`maquette profile`: where a step of a run goes. Takes what `maquette train` takes, and trains nothing that stays."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from maquette.artifacts.files import write_json
from maquette.artifacts.progress import say
from maquette.cli.command_line.config import ProfileStage
from maquette.cli.planning.memory import predicted_parts
from maquette.cli.planning.planned import plan_run
from maquette.reports import terminal_table, write_page

if TYPE_CHECKING:
    from maquette.training.profile_run import Profile


def run(config: ProfileStage) -> "Profile":
    """Measures some steps, writes `<outputs>/profiles/<run>/`, and prints where they went."""
    from maquette.training.profile_report import TABLES, figures, tables
    from maquette.training.profile_run import profile_job

    planned = plan_run(dataclasses.replace(config, force=True))
    folder = Path(config.outputs) / "profiles" / planned.spec.name
    folder.mkdir(parents=True, exist_ok=True)
    profile = profile_job(planned.job, config.profile_steps, folder)
    profile = dataclasses.replace(profile, predicted=predicted_parts(config, planned.spec, profile.passes))
    write_json(folder / "profile.json", profile.facts())
    shown = tables(profile)
    write_page(folder, "profile.html.j2", {"profile": profile, "tables": shown, "forms": TABLES}, figures(profile))
    if config.json:
        print(json.dumps(profile.facts(), indent=2))
        return profile
    for name in ("phases", "parts", "memory", "top"):
        Console().print(terminal_table(TABLES[name], shown[name][:12], name))
    say(f"{profile.tokens / profile.seconds:,.0f} tokens/s, model FLOPs utilisation {profile.mfu:.1%}")
    say(f"trace for ui.perfetto.dev or chrome://tracing: {folder / 'trace.json'}")
    say(f"Open {(folder / 'index.html').absolute().as_uri()}")
    return profile
