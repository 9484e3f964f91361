"""One scripted server for the session, and OpenAI's own clients, as they come."""

import openai
import pytest

from tests.serving import scripted


@pytest.fixture(scope="session")
def server():
    """The scripted server; tests leave it as they found it."""
    with scripted.served() as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    """The client, which checks every shape and does not try again."""
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0,
        _strict_response_validation=True,
    ) as made:  # fmt: skip
        yield made
