"""Objects by dotted name: found beside the user, errors that name what is near, and digests of users' code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.targets import import_target, module_spec, place_of, users_code


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a user's in the current folder; every test gets one of its own name."""
    name = f"stranger_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("from .model import Attention\n")
    (folder / "model.py").write_text(
        f"import math\nfrom {name}.parts import SCALE\n\nclass Attention:\n    scale = SCALE\n"
    )
    (folder / "parts.py").write_text("SCALE = 2\n")
    (folder / "broken.py").write_text("\nraise RuntimeError('no such thing')\n")
    (folder / "unclosed.py").write_text("x = 1\ny = (\n")
    (tmp_path / f"{name}_alone.py").write_text("def reward(x):\n    return 1 / x\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield name
    for module in [module for module in sys.modules if module.startswith(name)]:
        del sys.modules[module]


def test_a_dotted_name_and_a_colon_find_the_same_object_in_the_current_folder(package):
    result = import_target(f"{package}.model.Attention")
    assert result.scale == 2
    assert import_target(f"{package}.model:Attention") is result
    assert import_target(f"{package}_alone:reward")(2) == 0.5
    assert import_target("torch.optim.RMSprop").__name__ == "RMSprop"


def test_an_installed_module_wins_over_a_file_of_its_name(package, tmp_path):
    (tmp_path / "json.py").write_text("raise RuntimeError\n")
    import_target(f"{package}.model.Attention")
    assert module_spec("json").origin != str(tmp_path / "json.py")


@pytest.mark.parametrize(
    ("dotted", "names"),
    [
        ("{}.model.Atention", ["model.attention={}.model.Atention", "Atention", "Attention?"]),
        ("{}.modl.Attention", ["modl", "model?"]),
        ("{}x.model.Attention", ["{}x", "installed", "{}?"]),
        ("{}.broken.Attention", ["broken.py:2", "RuntimeError", "no such thing"]),
        ("{}.unclosed.x", ["unclosed.py:2", "SyntaxError"]),
        ("swiglue", ["model.attention=swiglue", "package.module.Name"]),
        ("a..b", ["package.module.Name"]),
    ],
)  # fmt: skip
def test_what_is_not_there_is_answered_with_what_is_near(package, dotted, names):
    with pytest.raises(ConfigError) as caught:
        import_target(dotted.format(package), key="model.attention")
    for name in names:
        assert name.format(package) in str(caught.value)


def test_an_error_in_a_users_function_names_function_file_and_line(package):
    reward = import_target(f"{package}_alone:reward")
    with pytest.raises(StageError) as caught, users_code(f"{package}_alone:reward"):
        reward(0)
    assert f"{package}_alone:reward" in str(caught.value)
    assert f"{package}_alone.py:2" in str(caught.value)
    assert "ZeroDivisionError" in str(caught.value)


def test_a_digest_covers_the_modules_of_every_target_and_what_they_import(package):
    config = {
        "model": {"_target_": f"{package}.model.Attention", "names": ["torch.nn.Linear", "words"]},
        "optimizer": {"_target_": "torch.optim.RMSprop"},
        "callbacks": [{"_target_": "lightning.pytorch.callbacks.EarlyStopping"}],
    }
    before = code_digest(config)
    assert sorted(before) == [f"{package}.model", f"{package}.parts"]
    assert code_digest(f"{package}.model:Attention") == before
    assert package not in sys.modules
    Path(package, "parts.py").write_text("SCALE = 3\n")
    after = code_digest(config)
    assert [name for name in after if after[name] != before[name]] == [f"{package}.parts"]


def test_a_name_that_a_package_passes_on_counts_where_it_is_defined(package):
    before = code_digest(f"{package}.Attention")
    assert sorted(before) == [package, f"{package}.model", f"{package}.parts"]


def test_a_digest_of_what_is_not_there_is_refused(package):
    with pytest.raises(ConfigError, match="modle"):
        code_digest({"objective": {"_target_": f"{package}.modle.Loss"}})


def test_digests_need_neither_torch_nor_the_users_package(package):
    code = (
        "import sys; from maquette.artifacts.code_digest import code_digest;"
        f"print(sorted(code_digest('{package}.model:Attention', {{'_target_': 'torch.optim.RMSprop'}})));"
        f"sys.exit('torch' in sys.modules or '{package}' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([f"{package}.model", f"{package}.parts"])


def test_the_place_of_an_error_is_where_a_user_wrote_it(package: str, tmp_path: Path) -> None:
    file = tmp_path / package / "raises.py"
    file.write_text("def fail():\n    raise ValueError('boom')\n")
    with pytest.raises(ValueError, match="boom") as caught:
        import_target(f"{package}.raises.fail")()
    assert place_of(caught.value) == f" at {file}:2 in fail"
    with pytest.raises(ConfigError) as ours:  # this test's own frame called the package: it is not to blame
        import_target("nowhere.to_be_found")
    assert place_of(ours.value) == ""
