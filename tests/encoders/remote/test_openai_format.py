"""The server of the tests is one to OpenAI's own client: what the encoder is tested against is the published format."""

from __future__ import annotations

import numpy as np
import pytest
from openai_server import FORBIDDEN, KEY, MODEL, Faults

openai = pytest.importorskip("openai")

TEXTS = ["one text", "another, longer text", "é漢"]


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0, timeout=10) as made:
        yield made


def vectors(found):
    return np.array([entry.embedding for entry in found.data], np.float32)


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}])
def test_the_official_client_reads_the_same_vectors(server, client, encoding):
    found = client.embeddings.create(model=MODEL, input=TEXTS, **encoding)
    np.testing.assert_array_equal(vectors(found), np.stack([server.vector(text) for text in TEXTS]))
    assert (found.object, found.model, [entry.index for entry in found.data]) == ("list", MODEL, [0, 1, 2])
    assert found.usage.prompt_tokens == found.usage.total_tokens == sum(map(server.tokens, TEXTS))


def test_a_single_text_and_fewer_dimensions(server, client):
    found = client.embeddings.create(model=MODEL, input=TEXTS[0], dimensions=4)
    cut = server.vector(TEXTS[0])[:4]
    np.testing.assert_array_equal(vectors(found), [cut / np.linalg.norm(cut)])


def test_errors_are_those_the_official_client_knows(server, client):
    with pytest.raises(openai.BadRequestError, match="rejected for its content"):
        client.embeddings.create(model=MODEL, input=FORBIDDEN)
    with pytest.raises(openai.BadRequestError, match="input"):
        client.embeddings.create(model=MODEL, input=[""])
    with pytest.raises(openai.BadRequestError, match="at most 2048"):
        client.embeddings.create(model=MODEL, input=["a"] * 2049)
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="no-such-model", input="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").embeddings.create(model=MODEL, input="a")
    for fault, error in (("429", openai.RateLimitError), ("500", openai.InternalServerError)):
        server.faults = Faults(script=[fault])
        with pytest.raises(error):
            client.embeddings.create(model=MODEL, input="a")


def test_the_official_client_waits_as_the_refusal_says(server, client):
    server.faults = Faults(script=["429", "503"])
    found = client.with_options(max_retries=3).embeddings.create(model=MODEL, input=TEXTS)
    assert len(found.data) == 3
