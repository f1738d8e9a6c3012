import pytest
from django.conf import settings
from drf_spectacular import renderers
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


@pytest.fixture
def schema():
    GENERATOR_STATS.reset()
    found = SchemaGenerator(urlconf="imagehub.api.tests.urls").get_schema(request=None, public=True)
    assert not GENERATOR_STATS, "the schema has warnings"
    return found


def failures(operation):
    return {code for code, answer in operation["responses"].items() if answer.get("content") == PROBLEM}


def test_is_valid(schema):
    validate_schema(schema)


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/api/tokens", "get", {"400", "401", "default"}),
        ("/api/tokens/{id}", "get", {"401", "404", "default"}),
        ("/api/body", "post", {"400", "401", "403", "default"}),
        ("/api/open-body", "post", {"400", "401", "403", "default"}),
        ("/api/limited", "post", {"400", "401", "403", "429", "default"}),
        ("/api/limited", "get", {"401", "default"}),
    ],
)
def test_names_the_failures_that_fit_an_operation(schema, path, method, expected):
    assert failures(schema["paths"][path][method]) == expected


def test_describes_the_problem_document(schema):
    problem = schema["components"]["schemas"]["Problem"]

    assert set(problem["required"]) == {
        "type", "title", "status", "detail", "instance", "code", "request_id",
    }  # fmt: skip
    assert "errors" in problem["properties"]


def test_describes_the_headers_of_what_is_limited(schema):
    answers = schema["paths"]["/api/limited"]["post"]["responses"]
    usage = {"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"}

    assert answers["201"]["headers"].keys() == usage
    assert answers["429"]["headers"].keys() == usage | {"Retry-After"}
    assert "headers" not in answers["400"]
    assert "headers" not in schema["paths"]["/api/body"]["post"]["responses"]["200"]


def test_describes_the_page_and_its_parameters(schema):
    operation = schema["paths"]["/api/tokens"]["get"]
    page = schema["components"]["schemas"]["PaginatedTokenList"]

    assert page["required"] == ["results", "next", "previous"]
    assert {parameter["name"] for parameter in operation["parameters"]} >= {
        "limit", "cursor", "count", "ordering", "user", "created_after",
    }  # fmt: skip


def test_offers_no_orderings_where_a_view_has_none(schema):
    parameters = schema["paths"]["/api/plain"]["get"]["parameters"]

    assert {parameter["name"] for parameter in parameters} == {"limit", "cursor", "count"}


def test_says_who_has_to_sign_in(schema):
    paths = schema["paths"]

    assert schema["components"]["securitySchemes"]["bearerAuth"] == {"type": "http", "scheme": "bearer"}
    assert {} in paths["/api/tokens"]["get"]["security"]
    assert {"bearerAuth": []} in paths["/api/body"]["post"]["security"]
    assert {} not in paths["/api/body"]["post"]["security"]


def test_names_operations_by_path_and_verb(schema):
    assert schema["paths"]["/api/tokens"]["get"]["operationId"] == "tokens_list"
    assert schema["paths"]["/api/tokens/{id}"]["get"]["operationId"] == "tokens_retrieve"


@pytest.mark.cache
class TestServed:
    @pytest.mark.parametrize("media_type", ["application/vnd.oai.openapi", "application/yaml"])
    def test_is_the_file_in_the_documentation_and_written_once(self, client, media_type, monkeypatch):
        first = client.get("/api/schema/", headers={"Accept": media_type})
        monkeypatch.delattr(renderers, "dump")
        again = client.get("/api/schema/", headers={"Accept": media_type})

        assert again["Content-Type"].startswith(media_type)
        assert again.content == first.content == (settings.BASE_DIR / "docs" / "openapi.yaml").read_bytes()

    def test_is_no_answer_to_a_wrong_question(self, client):
        response = client.post("/api/schema/", headers={"Accept": "application/yaml"})

        assert response.status_code == 405
        assert b"openapi" not in response.content
