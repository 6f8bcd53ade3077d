"""Data of your own: sequences to sort, as a LightningDataModule. Its loader is a plain one, and resumes exactly."""

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class Sorting(LightningDataModule):
    """Rows `a b c ... | sorted`, of digits; the separator is the last id."""

    def __init__(self, digits: int = 8, rows: int = 2048, batch_size: int = 16) -> None:
        super().__init__()
        self.digits, self.rows, self.batch_size = digits, rows, batch_size
        self.vocab_size = 17  # what the recipe has to know: how many ids there are,
        self.sequence_length = 2 * digits  # and how long the sequences are that the model reads

    def dataset(self, rows: int, seed: int) -> TensorDataset:
        numbers = torch.randint(16, (rows, self.digits), generator=torch.Generator().manual_seed(seed))
        separator = torch.full((rows, 1), 16)
        return TensorDataset(torch.cat([numbers, separator, numbers.sort(dim=1).values], dim=1))

    def train_dataloader(self):
        return DataLoader(self.dataset(self.rows, seed=0), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.dataset(128, seed=1), batch_size=64)
