import json

from generation.infotext import infotext, parameters_json
from generation.models import GenerationJob
from training.models import BaseModel


def test_a_file_that_travels_does_not_tell_where_an_adapter_lies():
    loras = [{"id": "1", "name": "zeppelin", "weight": 0.8, "path": "/srv/adapters/zeppelin.safetensors"}]
    job = GenerationJob(prompt="a red heart", base_model=BaseModel(name="starter"), loras=loras)

    text = parameters_json(job, seed=1)

    assert json.loads(text)["loras"] == [{"id": "1", "name": "zeppelin", "weight": 0.8}]
    assert "/srv" not in text


def test_other_tools_read_what_a_picture_started_from_and_which_adapters_acted():
    loras = [
        {"id": "1", "name": 'a "quoted", name', "weight": 0.8},
        {"id": "2", "name": "absent", "weight": 0.0},
        {"id": "3", "name": "plain", "weight": -1},
    ]
    job = GenerationJob(
        prompt="x",
        base_model=BaseModel(name="starter"),
        loras=loras,
        strength=0.5,
        steps=2,
        width=8,
        height=8,
        guidance_scale=1.0,
    )

    line = infotext(job, seed=1).splitlines()[-1]

    assert "Denoising strength: 0.5, " in line
    assert r'LoRAs: "a \"quoted\", name: 0.8, plain: -1", ' in line
