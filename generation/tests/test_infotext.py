import json

from generation.infotext import parameters_json
from generation.models import GenerationJob
from training.models import BaseModel


def test_a_file_that_travels_does_not_tell_where_an_adapter_lies():
    loras = [{"id": "1", "name": "zeppelin", "weight": 0.8, "path": "/srv/adapters/zeppelin.safetensors"}]
    job = GenerationJob(prompt="a red heart", base_model=BaseModel(name="starter"), loras=loras)

    text = parameters_json(job, seed=1)

    assert json.loads(text)["loras"] == [{"id": "1", "name": "zeppelin", "weight": 0.8}]
    assert "/srv" not in text
