"""Processes of one run end together: where one fails (NaN in its share of the batch, an exception of a reward), the
others stop waiting for it.

torchrun and `launch` kill the rest, but tasks of a bare `srun` live on, and one that waits for a GPU which waits for
the dead one's would do so until its collective times out. So the process that fails leaves a word in the store by which
the group met, and a thread in each of the others looks there every second.
"""

import contextlib
import datetime
import os
import threading
from collections.abc import Callable, Iterator

from maquette.artifacts.errors import MaquetteError, PeerError
from maquette.artifacts.progress import say
from maquette.data.process_group import ProcessGroup

_LOOK = 1.0
"""Seconds between two looks."""

_GRACE = 5.0
"""Seconds in which a process may end by itself, by its own error: the dead one's connections are closed."""

_KEY = "maquette/failed"


@contextlib.contextmanager
def ending_together(world: ProcessGroup, leave: Callable[[], None]) -> Iterator[None]:
    """Within the block a failure of one process is one of all: in the others it raises `PeerError`, or, where they are
    stuck in a call that nothing reaches, ends them after `leave()`."""
    if world.size == 1:
        yield
        return
    store, done = _Store(), threading.Event()

    def watch() -> None:
        reason = None
        while reason is None:
            if done.wait(_LOOK):
                return
            reason = store.failure()
        if not done.wait(_GRACE):
            if world.is_first:
                say(reason)
                leave()
            os._exit(1)

    threading.Thread(target=watch, daemon=True, name="peers").start()
    try:
        yield
    except Exception as error:
        done.set()
        reason = store.failure()
        if reason is not None:
            raise PeerError(reason) from error
        message = error.message if isinstance(error, MaquetteError) else f"{type(error).__name__}: {error}"
        store.tell(f"process {world.rank} failed: {message}")
        raise
    finally:
        done.set()


class _Store:
    """The store of torchrun's agent, or of the first process, by a connection of our own. With the number of restarts,
    which torchrun counts: a failure before one is over."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self._key = f"{_KEY}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        self._store = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False,
            timeout=datetime.timedelta(seconds=30),
        )  # fmt: skip

    def tell(self, reason: str) -> None:
        with contextlib.suppress(RuntimeError):  # the first process, which keeps it, has ended
            self._store.set(self._key, reason)

    def failure(self) -> str | None:
        """Why a process failed; None while none has."""
        try:
            return self._store.get(self._key).decode() if self._store.check([self._key]) else None
        except RuntimeError:
            return "the first process has ended"
