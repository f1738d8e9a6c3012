"""The schema is a promise: every operation is called with what it allows and with what it does not."""

import pytest
import schemathesis
import yaml
from django.conf import settings
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)

from imagehub.accounts.models import Scope
from imagehub.accounts.services import create_token
from imagehub.tests import world

EXAMPLES = 12
"""For each operation and kind of input. Set it to a thousand before a release."""

NOT_UNDOCUMENTED = {"405"}
"""A method that an operation does not have is no operation of the schema."""

schema = schemathesis.openapi.from_dict(
    yaml.safe_load((settings.BASE_DIR / "docs" / "openapi.yaml").read_text())
)
schema.app = get_wsgi_application()
OPERATIONS = {operation.ok().label: operation.ok() for operation in schema.get_all_operations()}


@pytest.fixture(autouse=True)
def _one_connection():
    """Keep the test's transaction open between requests, as Django's own test client does."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def here(db, google):
    return world.build()


@pytest.fixture
def callers(here) -> list[dict[str, str]]:
    """The headers of somebody unknown, and those of one of the staff. Both ask the same: to think of it takes longest."""
    _, secret = create_token(here.staff, name="contract", scopes=[Scope.ADMIN], expires_at=None)
    return [{}, {"Authorization": f"Bearer {secret}"}]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_one_that_the_schema_names(label, mode, callers, here):
    operation = OPERATIONS[label]
    rows = [str(target.pk) for targets in here.targets.values() for target in targets.values()]

    @given(case=operation.as_strategy(generation_mode=mode), row=st.sampled_from([*rows, None]))
    @hypothesis_settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def call(case, row):
        if row is not None and "id" in case.path_parameters:
            case.path_parameters["id"] = row
        case.cookies.clear()
        case.headers.pop("Authorization", None)
        documented = operation.definition.raw["responses"].keys() - {"default"}
        for headers in callers:
            response = case.call(headers=headers)
            case.validate_response(
                response,
                checks=[
                    content_type_conformance,
                    response_headers_conformance,
                    response_schema_conformance,
                ],
            )
            assert str(response.status_code) in documented | NOT_UNDOCUMENTED, response.content

    try:
        call()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # it takes nothing that could be wrong
