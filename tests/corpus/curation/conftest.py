from pathlib import Path

import pytest

from maquette.corpus.curation.curate import Curated
from maquette.corpus.synthetic_web.web import make_web
from maquette.corpus.workers import workers
from support.made_crawl import run

PACKAGES = ("networkx", "click", "requests", "Jinja2", "attrs", "pydantic")


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic web of a few hundred pages."""
    folder = tmp_path_factory.mktemp("web")
    with workers(1) as pool:
        make_web(folder, pool, 120, PACKAGES)
    return folder


@pytest.fixture(scope="session")
def curated(web: Path, tmp_path_factory: pytest.TempPathFactory) -> Curated:
    """The synthetic web curated."""
    return run(web, tmp_path_factory.mktemp("work") / "one")
