"""Valid and invalid requests that are generated from the schema of the server.

Half of them name an existing gallery, row and column, to reach more than the response to unknown
names.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from starlette.testclient import TestClient

from tests.explore.conftest import N, column

EXAMPLES = 20
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]

OPERATIONS = [
    ("GET", "/api/workspace"),
    ("GET", "/api/galleries/{gallery}/images"),
    ("GET", "/api/galleries/{gallery}/random"),
    ("GET", "/api/galleries/{gallery}/rows/{row}"),
    ("GET", "/api/galleries/{gallery}/images/{image}/thumbnail"),
    ("GET", "/api/galleries/{gallery}/images/{image}/canvas"),
    ("GET", "/api/galleries/{gallery}/rows/{row}/region"),
    ("GET", "/api/galleries/{gallery}/rows/{row}/neighbours"),
    ("GET", "/api/galleries/{gallery}/rows/{row}/figure"),
    ("GET", "/api/galleries/{gallery}/rows/{row}/command"),
    ("POST", "/api/galleries/{gallery}/own/neighbours"),
    ("POST", "/api/galleries/{gallery}/own/figure"),
    ("GET", "/api/galleries/{gallery}/own/command"),
]


Names = dict[str, Any]


@pytest.fixture(scope="module")
def operations(client: TestClient) -> dict[tuple[str, str], Any]:
    """The operations of the schema, by method and path."""
    schema = schemathesis.openapi.from_dict(client.get("/api/openapi.json").json())
    operations = [result.ok() for result in schema.get_all_operations()]
    return {(operation.method.upper(), operation.path): operation for operation in operations}


@pytest.fixture(scope="module")
def names(gallery: dict[str, Any]) -> Names:
    """Existing names for a request."""
    return {"gallery": gallery["id"], "column": column(gallery, "alpha", "cls")}


def test_operations_are_all_fuzzed(operations: dict[tuple[str, str], Any]) -> None:
    assert set(operations) == set(OPERATIONS)


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        pytest.param(operation, mode, id=f"{' '.join(operation)} {mode.value}")
        for operation in OPERATIONS
        for mode in GenerationMode
        # The first has no parameter that could be invalid.
        if operation != OPERATIONS[0] or mode is GenerationMode.POSITIVE
    ],
)
def test_responses_match_schema(
    client: TestClient,
    operations: dict[tuple[str, str], Any],
    names: Names,
    operation: tuple[str, str],
    mode: GenerationMode,
) -> None:
    cases = operations[operation].as_strategy(generation_mode=mode)

    # Without a database of examples and without a clock: the same requests in every run.
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, exists=st.booleans(), row=st.integers(0, N + 2))
    def check(case: Case, exists: bool, row: int) -> None:
        if exists:
            _name(case, names, row)
        answer = client.send(_request(client, case))
        case.validate_response(answer, checks=CHECKS)

    check()


def _name(case: Case, names: Names, row: int) -> None:
    """Let a case use existing names, and keep its other parameters."""
    case.path_parameters = {
        name: {"gallery": names["gallery"], "row": row, "image": row // 49}[name]
        for name in case.path_parameters or {}
    }
    if "column" in (case.query or {}):
        is_list = isinstance(case.query["column"], list)
        case.query["column"] = [names["column"]] if is_list else names["column"]


def _request(client: TestClient, case: Case) -> Any:
    words = case.as_transport_kwargs(base_url="http://127.0.0.1")
    known = {name: words.get(name) for name in ("params", "headers", "cookies")}
    body = words.get("data") if isinstance(words.get("data"), bytes) else None
    headers = {
        name: value for name, value in (known.pop("headers") or {}).items() if name != "Host"
    }
    return client.build_request(
        words["method"], words["url"], headers=headers, content=body, **known
    )
