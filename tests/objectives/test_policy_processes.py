"""What a policy learns does not depend on how many processes share its rollouts."""

import pytest

from maquette.artifacts import StageError
from maquette.data.process_group import ProcessGroup
from maquette.objectives import environment as environments
from maquette.objectives.rollouts import RolloutLoader, RolloutSchedule
from maquette.training.processes import launch
from support.policies import tiny_ppo
from support.policy_work import VARIANTS, train_policies


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="two more processes")
def test_two_processes_learn_what_one_does() -> None:
    """Three iterations of every form: normalisers, whitening, groups, controllers and stopping are over all rows."""
    alone, together = train_policies(1e-2), launch(train_policies, 1e-2, 2)
    for name in VARIANTS:
        (rows, weights), (others, theirs) = alone[name], together[name]
        assert len(rows) == len(others) >= 6, name
        for row, other in zip(rows, others, strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-5), name
        assert weights == pytest.approx(theirs, abs=1e-5), name
    assert len({tuple(weights[:50]) for _, weights in alone.values()}) == len(VARIANTS)


def test_steps_have_the_same_rows_in_any_number_of_processes() -> None:
    for processes in (1, 2, 3, 4):
        schedule = RolloutSchedule(24 // processes, 2, 3, 1, 2, processes)
        assert schedule.steps_rows() == [slice(0, 8), slice(8, 16), slice(16, 24)]
        rows = [
            row
            for number in range(3)
            for rank in range(processes)
            for row in range(*schedule.groups(rank)[number].indices(24))
        ]
        assert rows == list(range(24))


def test_an_iteration_goes_on_in_another_number_of_processes() -> None:
    """Also from a checkpoint of earlier versions, where each process has kept a part of its own."""
    objective = tiny_ppo(normalize_scores=0)
    loader = objective.loader(RolloutSchedule(8, 2, 2))
    rollouts, metrics = loader.collect(0)
    loader._held, loader.place = (rollouts, metrics), 1
    state = loader.state_dict()
    halves = [rollouts.select(slice(0, 4)), rollouts.select(slice(4, 8))]
    old = state | {"held": [{"trajectories": half.state_dict(), "metrics": metrics} for half in halves]}
    for each in (state, old):
        second = RolloutLoader(loader.collect, RolloutSchedule(4, 2, 2, processes=2), group=ProcessGroup(1, 2))
        second.load_state_dict(each)
        batch = next(iter(second))
        assert batch.rollouts.tokens.tolist() == rollouts.select(slice(6, 8)).tokens.tolist()


def test_what_one_process_raises_all_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """None waits for another whose reward has failed."""
    objective = tiny_ppo(normalize_scores=0)
    failed = StageError("The reward of an answer is nan.")
    monkeypatch.setattr(environments, "of_all_processes", lambda mine: [mine, failed])
    objective.environment.group = ProcessGroup(0, 2)
    with pytest.raises(StageError, match="nan"):
        objective.environment.completions(objective.model, 0, 4)
