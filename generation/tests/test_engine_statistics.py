"""What the engine has in memory is told by the thread that reads requests, while the other one changes it."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from generation.engine.models import ModelCache
from generation.tests import tiny_adapters
from training.pipelines.hardware import choose_hardware
from training.pipelines.references import AdapterReference, ModelKind, ModelReference

pytestmark = pytest.mark.usefixtures("one_thread")


class Meanwhile:
    """Does something in another thread while this one is asked for the hash of a key, and gives it some time."""

    action = None

    def __hash__(self):
        if self.action is not None and threading.current_thread() is threading.main_thread():
            action, Meanwhile.action = self.action, None
            wait([self.pool.submit(action)], timeout=0.5)
        return super().__hash__()


class Name(Meanwhile, str):
    pass


class Source(Meanwhile, type(Path())):
    pass


@pytest.fixture
def meanwhile():
    with ThreadPoolExecutor(1) as pool:
        Meanwhile.pool = pool

        def do(action):
            Meanwhile.action = staticmethod(action)

        yield do
        assert Meanwhile.action is None  # it was done
    Meanwhile.action = None


@pytest.fixture
def references(tiny_sd15, tmp_path):
    return [
        ModelReference(Name(shutil.copytree(tiny_sd15, tmp_path / name)), ModelKind.FOLDER)
        for name in ("one", "two")
    ]


@pytest.fixture
def cache(references):
    cache = ModelCache(choose_hardware("cpu"), capacity=2)
    for reference in references:
        cache.load(reference)
    return cache


def test_while_a_model_is_used(cache, references, meanwhile):
    meanwhile(lambda: cache.find(references[0]))

    said = cache.statistics()

    assert [model["name"] for model in said["models"]] == ["one", "two"]
    assert said["hits"] == 0


def test_while_a_model_is_let_go(cache, references, meanwhile):
    meanwhile(lambda: cache.spare_memory(cache._models[max(cache._models, key=str)]))

    assert len(cache.statistics()["models"]) == 2


def test_what_a_model_has_served_is_counted_when_it_is_gone(cache, references):
    one, two = (cache.find(reference) for reference in references)
    one.prompts.hits, two.prompts.hits = 3, 4
    assert cache.statistics()["served"]["prompt_hits"] == 7

    cache.spare_memory(two)

    assert cache.statistics()["served"]["prompt_hits"] == 7
    assert [model["name"] for model in cache.statistics()["models"]] == ["two"]


def test_while_an_adapter_is_used(cache, references, meanwhile, tmp_path):
    model = cache.find(references[0])
    stack = [
        AdapterReference(
            id=name,
            name=name,
            source=Source(
                tiny_adapters.write_kohya(
                    tmp_path / f"{name}.safetensors",
                    tiny_adapters.make_changes(model.pipeline, parts=["unet"], seed=number, strength=1.0),
                )
            ),
            weight=1.0,
        )
        for number, name in enumerate("ab")
    ]
    model.adapters.use(stack)
    meanwhile(lambda: model.adapters.use(stack[:1]))

    assert [resident.id for resident in model.adapters.residents] == ["a", "b"]
