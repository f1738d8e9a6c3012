import pytest

from generation.engine.request import GenerateRequest
from training.pipelines.failures import FailureCode, RequestFailed
from training.pipelines.references import ModelKind

MESSAGE = {
    "type": "generate",
    "id": "job-1",
    "model": {"source": "/models/starter", "kind": "folder"},
    "prompt": "a red heart",
    "negative_prompt": "",
    "seed": 7,
    "steps": 4,
    "width": 64,
    "height": 128,
    "guidance_scale": 5,
    "scheduler": None,
    "output": "/staging/picture.png",
    "text": {"parameters": "a red heart"},
}


def test_reads_a_whole_request():
    request = GenerateRequest.parse(MESSAGE)

    assert request.model.kind == ModelKind.FOLDER
    assert request.model.name == "starter"
    assert not request.model.allow_download
    assert (request.width, request.height, request.guidance_scale) == (64, 128, 5.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None),
        ("prompt", ["a"]),
        ("prompt", "half a pair \ud800"),
        ("seed", True),
        ("seed", -1),
        ("seed", 2**63),
        ("steps", 0),
        ("steps", 1.5),
        ("width", 65),
        ("width", "64"),
        ("height", 10**9),
        ("guidance_scale", float("nan")),
        ("guidance_scale", float("inf")),
        ("guidance_scale", 10**400),
        ("guidance_scale", "7"),
        ("scheduler", 3),
        ("output", "relative.png"),
        ("output", "/"),
        ("output", "/a\0b.png"),
        ("text", []),
        ("text", {"parameters": 1}),
        ("text", {"": "empty keyword"}),
        ("text", {"k" * 80: "long keyword"}),
        ("text", {"ключ": "keyword that PNG cannot spell"}),
        ("adapters", {}),
        ("adapters", ["a"]),
        ("init_image", "relative.png"),
        ("strength", 0.5),
        ("previews", 1),
        ("model", None),
        ("model", {"source": "/models/a", "kind": "pickle"}),
        ("model", {"source": "/models/a", "kind": ["folder"]}),
        ("model", {"source": "", "kind": "folder"}),
        ("model", {"source": "../../etc", "kind": "hub"}),
        ("model", {"source": "a/b", "kind": "hub", "allow_download": "yes"}),
    ],
)
def test_refuses_what_no_picture_can_be_made_of(field, value):
    with pytest.raises(RequestFailed) as caught:
        GenerateRequest.parse(MESSAGE | {field: value})

    assert caught.value.code == FailureCode.BAD_REQUEST
    assert f"“{field}" in caught.value.detail or field == "text"


def test_refuses_a_request_without_its_fields():
    with pytest.raises(RequestFailed):
        GenerateRequest.parse({"type": "generate", "id": "job-1"})
