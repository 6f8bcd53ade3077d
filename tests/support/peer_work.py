"""What two processes of a group do, each started as a task of srun: the one plans for both, and the other fails."""

import os
import sys
import threading
from pathlib import Path

from maquette.artifacts.errors import ConfigError, PeerError, StageError
from maquette.data.process_group import agree, join_group, of_all_processes, of_the_first, process_group
from maquette.training.peers import ending_together


def main(folder: Path, *, hangs: bool) -> None:
    world = process_group()
    join_group("gloo")

    def plan() -> str:
        with (folder / "planned").open("a") as file:
            file.write(f"{world.rank}\n")
        return f"a plan of {world.rank}"

    def refuse() -> None:
        raise ConfigError("size=-1 can't be.", "Take another.")

    answers = [of_the_first(plan), of_the_first(plan)]
    try:
        of_the_first(refuse)
    except (ConfigError, PeerError) as error:
        answers.append(f"{type(error).__name__}: {error.message}")
    print(of_all_processes(answers[-1]), answers, flush=True)

    def leave() -> None:
        (folder / "left").write_text("failed")

    try:
        with ending_together(world, leave):
            if world.rank == 1:
                raise StageError("the reward is NaN.")
            if hangs:  # as in a call of NCCL that waits for the dead process's GPU
                threading.Event().wait()
            agree(None)
            of_all_processes(None)
    except StageError as error:
        print(f"{type(error).__name__}: {error.message}", flush=True)
        os._exit(3)


if __name__ == "__main__":
    main(Path(sys.argv[1]), hangs=sys.argv[2] == "hangs")
