"""A pipeline in a folder of its own, with an API that honours the key."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomrx.demo.api_server import DemoApi
from tests.acceptance.pipeline import Pipeline


@pytest.fixture
def api(tmp_path: Path) -> Iterator[DemoApi]:
    with DemoApi(tmp_path / "received") as server:
        yield server


@pytest.fixture
def new_pipeline(tmp_path: Path, api: DemoApi) -> Callable[..., Pipeline]:
    def make(name: str = "site", **settings: object) -> Pipeline:
        root = tmp_path / name
        root.mkdir()
        return Pipeline(root, api, **settings)

    return make


@pytest.fixture
def pipeline(new_pipeline: Callable[..., Pipeline]) -> Pipeline:
    return new_pipeline()
