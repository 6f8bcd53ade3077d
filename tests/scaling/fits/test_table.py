"""Anybody's table of runs: names of columns, what is refused with its line, what is left out; it comes back."""

import math
from pathlib import Path

import numpy as np
import pytest

from maquette.artifacts import ConfigError
from maquette.scaling.fits.table import RunTable, read_table
from maquette.scaling.laws.runs import LawError


def written(tmp_path: Path, text: str, name: str = "my.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "header",
    ["N,D,loss", "n_params,n_tokens,Loss", "Model Size,Training Tokens,val_loss", "params,tokens,validation/loss"],
)
def test_columns_by_the_names_that_people_use(tmp_path: Path, header: str) -> None:
    table = read_table(written(tmp_path, f"{header}\n1e6,2e7,3.5\n300k,6m,3.9\n"))
    assert table.params.tolist() == [1e6, 3e5] and table.tokens.tolist() == [2e7, 6e6]
    assert table.loss.tolist() == [3.5, 3.9]
    assert table.compute.tolist() == [1.2e14, 1.08e13]
    assert "6 N D" in table.notes[0]


def test_tokens_follow_from_compute(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "n_params,flops,loss\n1e6,6e13,3\n"))
    assert table.tokens.tolist() == [1e7] and "D is worked out" in table.notes[0]


def test_bad_values_are_refused_with_line_and_column(tmp_path: Path) -> None:
    for text, message in [
        ("N,D,loss\n1e6,2e7,3\n1e6,oops,3\n", "my.csv line 3, column D: oops is not a number above 0"),
        ("N,D,loss\n1e6,2e7,-3\n", "line 2, column loss: -3"),
        ("N,D,loss\n0,2e7,3\n", "line 2, column N: 0"),
    ]:
        with pytest.raises(LawError, match=message):
            read_table(written(tmp_path, text))


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    for text, message in [
        ("N,loss\n1,2\n", "no column for two of N, D and C; its columns are N, loss"),
        ("N,D\n1,2\n", "no column for the loss"),
        ("N,D,loss\n", "has no rows"),
        ("N,D,loss\n1,2\n3,4,5,6\n", "is damaged: .* line 3"),
    ]:
        with pytest.raises(ConfigError, match=message):
            read_table(written(tmp_path, text))
    with pytest.raises(ConfigError, match="no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(LawError, match="no run with a loss"):
        read_table(written(tmp_path, "N,D,loss\n1,2,nan\n"))


def test_what_is_left_out_is_named_with_its_reason(tmp_path: Path) -> None:
    text = "name,N,D,loss,excluded_outlier\na,1,2,3,0\nb,1,2,3,1\nc,1,2,,0\nd,1,2,inf,0\n"
    table = read_table(written(tmp_path, text))
    assert table.names == ("a",)
    assert dict(table.left_out)["b"] == "marked in the column excluded_outlier"
    assert "no finite loss" in dict(table.left_out)["c"] and "d" in dict(table.left_out)
    with pytest.raises(ConfigError, match="no such run"):
        table.without(["nobody"])


def test_other_settings_stay_and_numbers_among_them_are_numbers(tmp_path: Path) -> None:
    text = "N,D,loss,activation,lr,seed,N_core,kind\n4,2,3,gelu,1e-3,0,3,x\n8,2,3,swiglu,,1,6,y\n"
    table = read_table(written(tmp_path, text))
    assert table.frame["activation"].tolist() == ["gelu", "swiglu"]
    assert table.frame["lr"][0] == 1e-3 and np.isnan(table.frame["lr"][1])
    assert table.seed is not None and table.seed.tolist() == [0, 1]
    assert table.kinds is not None and table.kinds.tolist() == ["x", "y"]
    core = table.in_convention("kaplan")
    assert core.params.tolist() == [3, 6] and core.compute.tolist() == [36, 72]
    with pytest.raises(LawError, match="N_core"):
        read_table(written(tmp_path, "N,D,loss\n1,2,3\n")).in_convention("kaplan")


def test_a_table_written_and_read_again_is_the_same(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).lognormal(10, 2, (3, 9))
    numbers[2] = 1 + np.log(numbers[2])
    text = "name,N,D,loss,lr,note\n" + "".join(
        f"r{i},{n!r},{d!r},{loss!r},{i / 7!r},{'yes, so' and 'so'}\n"
        for i, (n, d, loss) in enumerate(numbers.T.tolist())
    )
    first = read_table(written(tmp_path, text))
    again = read_table(written(tmp_path, first.csv(), "again.csv"))
    for name in ("params", "tokens", "loss", "compute", "budget"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert again.names == first.names
    assert np.array_equal(again.frame["lr"], first.frame["lr"])
    assert again.csv() == first.csv()


def test_taking_rows_takes_all_columns(tmp_path: Path) -> None:
    table: RunTable = read_table(written(tmp_path, "N,D,loss,lr\n1,2,3,4\n5,6,7,8\n9,10,11,12\n"))
    part = table.take(np.array([2, 0]))
    assert part.params.tolist() == [9, 1] and part.frame["lr"].tolist() == [12, 4] and len(part.names) == 2
    assert table.take(table.params > 4).loss.tolist() == [7, 11]


def _family(n: float = 1, d: float = 1, c: float = 1) -> list[list[float]]:
    """Rows N, D, C, loss of plausible runs, in other units."""
    sizes = [(1e6 * 2**i, 4e7 * 2**j) for i in range(3) for j in range(3)]
    return [[N * n, D * d, 6 * N * D * c, 1.7 + 400 / N**0.34 + 2000 / D**0.34] for N, D in sizes]


@pytest.mark.parametrize(
    ("head", "rows", "message"),
    [
        ("N,D,C,loss", _family(1e-9, 1e-9), r"line 2, column N: 0\.001 is less than one"),
        ("N,D,C,loss", _family(1e-6, 1e-6), r"line 10: C is 3\.84e\+15, and 6 N D is 3\.84e\+03|line 2: C is"),
        ("N,D,C,loss", _family(c=1 / 8.64e19), r"line \d+: C is"),
        ("N,C,loss", [[n, c, loss] for n, _, c, loss in _family(c=1 / 8.64e19)], "D from C: .* is less than one"),
        ("N,D,loss", [[n, d, 97.3] for n, d, *_ in _family()], "line 2, column loss: no model has a loss of 97.3"),
    ],
)
def test_numbers_in_other_units_are_refused_with_their_line(
    tmp_path: Path, head: str, rows: list[list[float]], message: str
) -> None:
    text = "\n".join([head, *(",".join(map(repr, row)) for row in rows)])
    with pytest.raises(LawError, match=message):
        read_table(written(tmp_path, text))


@pytest.mark.parametrize(
    ("head", "rows", "units"),
    [
        ("N,D,C,loss", _family(1e-9, 1e-9), {"N": "billions", "D": "billions"}),
        ("N,D,C,loss", _family(1e-6, c=1 / 8.64e19), {"N": "millions", "C": "petaflops_days"}),
        ("N,D,loss", [[n, d, math.exp(loss)] for n, d, _, loss in _family()], {"loss": "perplexity"}),
        ("N,D,loss", [[n, d, loss / math.log(2)] for n, d, _, loss in _family()], {"loss": "bits"}),
    ],
)
def test_units_convert_and_are_noted(tmp_path: Path, head: str, rows: list[list[float]], units: dict[str, str]) -> None:
    text = "\n".join([head, *(",".join(map(repr, row)) for row in rows)])
    table = read_table(written(tmp_path, text), units)
    expected = np.array(_family()).T
    for values, column in zip((table.params, table.tokens, table.compute, table.loss), expected, strict=True):
        assert values == pytest.approx(column)
    assert all(f"{letter}: {unit}" in table.notes[0] for letter, unit in units.items())


@pytest.mark.parametrize("units", [{"M": "billions"}, {"N": "billion"}, {"loss": "comma"}])
def test_units_that_are_none_are_refused(tmp_path: Path, units: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="is not known"):
        read_table(written(tmp_path, "N,D,loss\n1e6,2e7,3\n"), units)


def test_decimal_commas_and_semicolons(tmp_path: Path) -> None:
    text = "name;N;D;loss\nlr 0.1;1.000.000;2e7;4,5805\nlr 0.2;500000;2e7;4,580\n"
    table = read_table(written(tmp_path, text), {"decimals": "comma"})
    assert table.loss.tolist() == [4.5805, 4.58] and table.params.tolist() == [1e6, 5e5]
    assert table.names == ("lr 0.1", "lr 0.2")


def test_of_several_losses_the_one_that_counts_is_said(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "N,D,val_loss,loss\n1e6,2e7,4.1,3.9\n"))
    assert table.loss.tolist() == [3.9]
    assert any("column loss" in note and "val_loss" in note for note in table.notes)


def test_decimal_commas_are_no_thousands(tmp_path: Path) -> None:
    text = "N\tD\tloss\n1000000\t20000000\t{}\n"
    for loss, message in (("4,5805", "column loss: 4,5805 is not a number"), ("4,580", "no model has a loss of 4,580")):
        with pytest.raises(LawError, match=message):
            read_table(written(tmp_path, text.format(loss), "comma.tsv"))
    table = read_table(written(tmp_path, 'N,D,loss\n"1,000,000","20,000,000.0",4.5\n'))
    assert table.params.tolist() == [1e6] and table.tokens.tolist() == [2e7]


def test_rows_that_come_twice_count_once_and_strange_budgets_are_remarked(tmp_path: Path) -> None:
    text = "name,N,D,C,loss\na,1e6,2e7,1.2e14,4\nb,1e6,2e7,1.2e14,4\nc,2e6,2e7,4.8e15,3.9\n"
    table = read_table(written(tmp_path, text))
    assert table.names == ("a", "c") and "twice" in dict(table.left_out)["b"]
    assert any("line 4" in note and "units" in note for note in table.notes)
