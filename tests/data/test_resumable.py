"""Anybody's DataLoader resumes in the middle of an epoch: the batches are those of a run that was never stopped."""

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset, WeightedRandomSampler

from maquette.artifacts import ConfigError
from maquette.data.custom_data import ResumableLoader, make_resumable, resumable

NUMBERS = TensorDataset(torch.arange(50))


class Backwards(Sampler):
    def __init__(self):
        self.begin = 0

    def __iter__(self):
        offset = int(torch.randint(50, ()))
        return iter([(offset - i) % 50 for i in range(50)])

    def __len__(self):
        return 50


LOADERS = {
    "in order": {"batch_size": 4},
    "shuffled": {"batch_size": 4, "shuffle": True},
    "shuffled, its own seed": {"batch_size": 4, "shuffle": True, "generator": torch.Generator},
    "workers": {"batch_size": 4, "shuffle": True, "num_workers": 2},
    "dropped last": {"batch_size": 4, "shuffle": True, "drop_last": True},
    "one by one": {"batch_size": None, "shuffle": True},
    "a sampler": {"batch_size": 4, "sampler": Backwards},
    "weighted": {"batch_size": 4, "sampler": lambda: WeightedRandomSampler(range(1, 51), 50)},
}


def loader(options, **more):
    options = {key: value() if callable(value) else value for key, value in options.items()}
    return ResumableLoader(DataLoader(NUMBERS, **options), **more)


def epoch(batches):
    return [batch[0].tolist() for batch in batches]


@pytest.mark.parametrize("options", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("stop", [0, 5, 12, 17])
def test_it_goes_on_where_it_stood(options, stop):
    if options["batch_size"] is None:
        stop *= 3
    whole = loader(options, seed=3)
    expected = epoch(whole) + epoch(whole)
    begun, seen = loader(options, seed=3), []
    while len(seen) < stop:
        for batch in begun:
            seen.append(batch[0].tolist())
            if len(seen) == stop:
                state = begun.state_dict()
                break
    state = begun.state_dict() if not stop else state
    torch.rand(7)  # whatever else draws random numbers meanwhile
    resumed = loader(options, seed=3)
    resumed.load_state_dict(state)
    rest = epoch(resumed)
    if len(seen) + len(rest) < len(expected):
        rest += epoch(resumed)
    assert (seen + rest)[: len(expected)] == expected


def test_epochs_differ_seeds_differ_and_random_numbers_elsewhere_do_not_move():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    one = loader(LOADERS["shuffled"], seed=0)
    first, second = epoch(one), epoch(one)
    assert first != second and sorted(number for batch in first for number in batch) == list(range(50))
    assert epoch(loader(LOADERS["shuffled"], seed=1)) != first
    assert torch.equal(torch.random.get_rng_state(), before)


def test_processes_share_an_epoch():
    whole = epoch(loader(LOADERS["shuffled"], seed=2))
    parts = [loader(LOADERS["shuffled"], seed=2, rank=rank, world_size=2) for rank in range(2)]
    halves = [epoch(part) for part in parts]
    assert [len(half) for half in halves] == [6, 6] == [len(part) for part in parts]
    assert [batch for pair in zip(*halves, strict=True) for batch in pair] == whole[:12]


def test_another_length_is_refused():
    state = loader({"batch_size": 5}).state_dict()
    with pytest.raises(ConfigError, match="10 batches"):
        loader({"batch_size": 4}).load_state_dict(state)


class Endless(IterableDataset):
    def __iter__(self):
        yield from torch.arange(20)


def test_what_has_no_state_is_said_and_what_has_one_is_left_alone(capsys):
    plain = DataLoader(Endless(), batch_size=2)
    assert resumable(plain, "stranger.data.Endless", seed=0) is plain
    assert "stranger.data.Endless" in capsys.readouterr().err
    own = loader({"batch_size": 4})
    assert resumable(own, "x", seed=0) is own and not capsys.readouterr().err


class Numbers(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(NUMBERS, batch_size=4, shuffle=True)


class Recorder(LightningModule):
    def __init__(self, stop=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.stop = [], stop

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0].tolist())
        return self.weight * batch[0].float().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("stop", [5, 13, 20])
def test_under_lightning_it_resumes_exactly(tmp_path, stop):
    def fit(steps, path=None):
        module = Recorder()
        trainer = Trainer(
            max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=make_resumable(Numbers(), seed=4), ckpt_path=path, weights_only=True)
        return module, trainer

    whole, _ = fit(30)
    begun, trainer = fit(stop)
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    rest, _ = fit(30, tmp_path / "stopped.ckpt")
    assert begun.seen + rest.seen == whole.seen
    assert torch.equal(rest.weight, whole.weight)
