"""A hosted encoder against a real server that fails by plan: what comes out is right, or nothing does."""

from __future__ import annotations

import logging
import socket
import threading
import time

import numpy as np
import pytest
import stamina
from openai_server import FORBIDDEN, HARMLESS, KEY, MODEL, Faults, RateLimit, serving

from pipeline.encoders.loading import load_encoder
from pipeline.encoders.remote import client, encoder
from pipeline.encoders.remote.client import ATTEMPTS
from pipeline.exceptions import ConfigError, InterruptedRunError, ModelError, StallError
from pipeline.ray_data.watchdog import Watchdog
from pipeline.records import DeadCode

TEXTS = [f"text {number} " + "word " * (number % 7) for number in range(120)]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", KEY)


@pytest.fixture(autouse=True)
def no_backoff():
    """Retry at once."""
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        yield


def connect(server, **remote):
    """Return the encoder of the server's model, a few texts a request."""
    keys = {"base_url": server.url, "api_key_env": "TEST_API_KEY", "max_batch_items": 7, "concurrency": 4}
    return load_encoder(MODEL, backend="remote", device="cpu", remote={**keys, **remote})


def encode_each(loaded, texts, progress=None):
    return loaded._encoder.encode_each(loaded._preparer.prepare(texts), progress)


def expected(server, texts):
    return np.stack([server.vector(text) for text in texts])


def total(server, texts):
    return sum(server.tokens(text) for text in texts)


def test_vectors_are_the_models_own_in_the_order_of_the_texts(server):
    loaded = connect(server)
    found = encode_each(loaded, TEXTS)
    np.testing.assert_array_equal(found.vectors, expected(server, TEXTS))
    assert (found.tokens, found.dead) == (total(server, TEXTS), {})
    assert sorted(server.sizes) == [1, 1, *[7] * 17]
    assert loaded.spec.dimension == 16


@pytest.mark.parametrize("seed", range(3))
def test_faults_lose_double_and_miscount_nothing(server, seed):
    loaded = connect(server, timeout_seconds=0.5, concurrency=8)
    server.faults, server.slow_s = Faults(rate=0.3, seed=seed), 1.0
    found = encode_each(loaded, TEXTS * 2)
    np.testing.assert_array_equal(found.vectors, expected(server, TEXTS * 2))
    assert (found.tokens, found.dead) == (2 * total(server, TEXTS), {})
    assert server.seen["requests"] - server.seen["good"] >= 5


@pytest.mark.parametrize("fault", HARMLESS)
def test_each_fault_alone_is_got_over(server, fault):
    loaded = connect(server, timeout_seconds=0.3)
    server.faults, server.slow_s = Faults(script=[fault, fault]), 0.7
    found = encode_each(loaded, TEXTS[:5])
    np.testing.assert_array_equal(found.vectors, expected(server, TEXTS[:5]))
    assert found.tokens == total(server, TEXTS[:5])
    assert server.seen[fault] == (1 if fault == "reorder" else 2)


@pytest.mark.parametrize("fault", ["lose", "double", "twice", "no usage", "no vector", "cut json"])
def test_replies_that_stay_wrong_are_refused(server, fault):
    loaded = connect(server)
    server.faults = Faults(rate=1, kinds=[fault])
    with pytest.raises(ModelError, match=f"gave {ATTEMPTS} replies in a row that cannot be used"):
        encode_each(loaded, TEXTS[:5])
    assert server.seen[fault] == ATTEMPTS


def test_another_model_is_refused_at_once(server):
    loaded = connect(server)
    server.faults = Faults(script=["rename"])
    with pytest.raises(ModelError, match="answers as model 'another-model'"):
        encode_each(loaded, TEXTS[:5])
    assert server.seen["requests"] == 2


def test_another_dimension_is_refused_at_once(server):
    loaded = connect(server)
    server.widen = 1
    with pytest.raises(ModelError, match="17 numbers a vector, 16 were expected"):
        encode_each(loaded, TEXTS[:5])
    assert server.seen["requests"] == 2


def test_fewer_dimensions_are_asked_of_the_api(server):
    loaded = connect(server, dimensions=4)
    whole = expected(server, TEXTS[:3])[:, :4]
    np.testing.assert_array_equal(
        loaded.encode(TEXTS[:3]), np.stack([vector / np.linalg.norm(vector) for vector in whole])
    )
    assert loaded.spec.dimension == 4
    with pytest.raises(ModelError, match=r"check encoder.model and encoder.remote.dimensions"):
        connect(server, dimensions=99)


def test_lists_of_numbers_are_the_same_vectors(server):
    server.floats_only = True
    np.testing.assert_array_equal(connect(server).encode(TEXTS), expected(server, TEXTS))


def test_refused_texts_are_found_and_the_others_embedded(server):
    texts = list(TEXTS)
    bad = (0, 40, 41, 119)
    for row in bad:
        texts[row] = f"{FORBIDDEN} {row}"
    texts[60] = "long " * 9000
    loaded = connect(server, max_batch_items=60)
    found = encode_each(loaded, texts)
    assert {row: reason[:30] for row, (_, reason) in found.dead.items()} == {
        **dict.fromkeys(bad, "400 The input was rejected for"),
        60: "400 This model's maximum conte",
    }
    good = [row for row in range(120) if row not in found.dead]
    np.testing.assert_array_equal(found.vectors[good], expected(server, [texts[row] for row in good]))
    assert np.isnan(found.vectors[sorted(found.dead)]).all()
    assert found.tokens == total(server, [texts[row] for row in good])
    assert server.seen["requests"] <= 80
    with pytest.raises(ModelError, match="refuses text 0: 400 The input was rejected"):
        loaded.encode(texts)


def test_a_request_above_the_apis_tokens_is_halved(server):
    texts = ["a " * 7000 + str(number) for number in range(60)]  # two bytes a token, as the estimate goes
    loaded = connect(server, max_batch_items=60, max_batch_tokens=10**7)
    found = encode_each(loaded, texts)
    assert (found.dead, found.tokens) == ({}, 60 * 7001)
    assert server.sizes == [1, 30, 30]
    server.sizes.clear()
    assert encode_each(connect(server, max_batch_items=60), texts).tokens == 60 * 7001
    assert max(server.sizes) == 42, "the default estimate keeps the limit"


def test_an_api_that_refuses_everything_buries_no_corpus(server):
    loaded = connect(server)
    server.faults = Faults(rate=1, kinds=["refuse"])
    with pytest.raises(ModelError, match="refuses any text: 400 no"):
        encode_each(loaded, TEXTS)


@pytest.mark.parametrize(
    ("fault", "error", "reason"),
    [
        ("403", ConfigError, r"encoder.remote.api_key_env: .* refuses the key, or this key the model .* \(403\)"),
        ("quota", ModelError, "the account at .* is used up"),
    ],
)
def test_what_no_waiting_mends_ends_the_run_at_once(server, fault, error, reason):
    loaded = connect(server)
    server.faults = Faults(rate=1, kinds=[fault])
    with pytest.raises(error, match=reason):
        encode_each(loaded, TEXTS[:5])
    assert server.seen["requests"] == 2


def test_a_wrong_key_model_or_address_is_told_apart(server, monkeypatch):
    with pytest.raises(
        ModelError, match=r"404 no such path: /embeddings; check encoder.model and encoder.remote.base_url"
    ):
        connect(server, base_url=server.url.removesuffix("/v1"))
    with pytest.raises(ConfigError, match=r"encoder.remote: .*\(401\); name one by api_key_env"):
        connect(server, api_key_env=None)
    monkeypatch.setenv("TEST_API_KEY", "sk-wr0ng")
    with pytest.raises(ConfigError, match=r"encoder.remote.api_key_env: .*\(401\); give another one") as caught:
        connect(server)
    assert "sk-wr0ng" not in str(caught.value)
    monkeypatch.setenv("TEST_API_KEY", KEY)
    server.model = "another"
    with pytest.raises(ModelError, match="404 The model `text-embedding-test` does not exist"):
        connect(server)


def test_a_server_without_a_key_is_asked_without_one(server):
    server.key = None
    assert connect(server, api_key_env=None).encode(TEXTS[:2]).shape == (2, 16)


def test_a_key_that_a_server_repeats_is_left_out(server, caplog):
    caplog.set_level(logging.DEBUG)
    loaded = connect(server)
    server.faults = Faults(script=["echo", None, "429"])
    found = encode_each(loaded, TEXTS[:1])
    assert found.dead == {0: (DeadCode.REFUSED, "400 cannot serve Bearer ***")}
    encode_each(loaded, TEXTS[:1])
    assert "puts requests off" in caplog.text
    assert KEY not in caplog.text


def test_an_api_that_is_not_there_may_be_tried_again():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(InterruptedRunError, match=f"failed {ATTEMPTS} times in a row, at last: ConnectError"):
            load_encoder(MODEL, backend="remote", device="cpu", remote={"base_url": url})


def test_an_address_that_only_the_client_knows_to_be_wrong_is_named():
    with pytest.raises(ConfigError, match=r"encoder.remote.base_url: 'http://256.1.1.1/v1' is no address"):
        load_encoder(MODEL, backend="remote", device="cpu", remote={"base_url": "http://256.1.1.1/v1"})


def test_redirects_are_not_followed(server):
    loaded = connect(server)
    server.faults = Faults(script=["redirect"])
    with pytest.raises(ModelError, match="answers 307 elsewhere"):
        encode_each(loaded, TEXTS[:3])
    assert server.seen["requests"] == 2


def test_rate_limits_are_kept_by_what_the_headers_say(server):
    loaded = connect(server, max_batch_items=2, concurrency=4)
    server.limit = RateLimit(size=10, full_in_s=0.25)
    found = encode_each(loaded, TEXTS)
    np.testing.assert_array_equal(found.vectors, expected(server, TEXTS))
    assert found.waited_s > 0.5, "60 requests at 40 a second"
    assert server.seen["over the limit"] <= 20, "of 60 requests; it is known beforehand when the next one may go"


def test_waiting_for_a_rate_limit_is_no_stall(server, monkeypatch):
    monkeypatch.setattr(encoder, "TICK_SECONDS", 0.2)
    loaded = connect(server)
    server.faults = Faults(script=["429 long"])
    signs, over, stalls = [], threading.Event(), []

    def watch():
        watchdog = Watchdog(1.0, time.monotonic())
        while not over.wait(0.05):
            try:
                watchdog.look(time.monotonic(), len(signs), [0])
            except StallError as error:
                stalls.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = encode_each(loaded, TEXTS[:3], lambda rows, tokens: signs.append((rows, tokens)))
    over.set()
    watcher.join()
    assert found.waited_s > 1.4
    assert signs[:2] == [(0, 0), (0, 0)]
    assert signs[-1] == (3, total(server, TEXTS[:3]))
    assert stalls == []


def test_a_version_after_the_models_name_is_pinned(server):
    server.reply_model = f"{MODEL}-v2"
    assert connect(server).spec.revision == f"{MODEL}-v2"
    server.reply_model = "models/of/ours"
    with pytest.raises(ModelError, match="answers as model 'models/of/ours'; if that is the one you mean"):
        connect(server)
    assert connect(server, reply_model="models/of/ours").spec.revision == "models/of/ours"


def test_the_identity_is_the_service_and_never_the_key(server):
    identity = connect(server).spec.identity()
    assert identity["hosted"] == {"service": server.url, "reply_model": None, "dimensions": None, "max_chars": None}
    assert connect(server, service="ours").spec.identity()["hosted"]["service"] == "ours"
    assert KEY not in str(identity)


def test_texts_are_cut_where_the_job_says(server):
    loaded = connect(server, max_chars=10)
    prepared = loaded._preparer.prepare(["0123456789", "0123456789abc", "é" * 11], ["", "", ""])
    assert prepared.rows["text"].to_pylist() == ["0123456789", "0123456789", "é" * 10]
    assert prepared.rows["truncated"].to_pylist() == [False, True, True]
    assert prepared.rows["chars_lost"].to_pylist() == [0, 3, 1]
    assert prepared.rows["n_tokens"].null_count == 3
    assert loaded._preparer.prepare(["a"], ["0123456789"]).no_room.tolist() == [True]
    with pytest.raises(ConfigError, match=r"encoder.prompt: fills all 10 characters"):
        load_encoder(
            MODEL,
            backend="remote",
            prompt="0123456789",
            remote={"base_url": server.url, "api_key_env": "TEST_API_KEY", "max_chars": 10},
        )


def test_prompts_go_before_texts(server):
    np.testing.assert_array_equal(
        connect(server).encode(["a", "b"], prompt="query: "), expected(server, ["query: a", "query: b"])
    )


@pytest.mark.model
def test_minilm_comes_back_bit_by_bit():
    with serving("packaged:all-MiniLM-L6-v2") as server:
        texts = ["Lorsque l'œuf éclôt…", "A cat sat on the mat.", "漢字かな交じり文", "x" * 3000]
        found = encode_each(connect(server, max_batch_items=2), texts)
        assert found.vectors.tobytes() == np.stack([server.encoder.encode([text])[0] for text in texts]).tobytes()
        assert found.tokens == total(server, texts)


def test_a_request_that_never_gets_its_turn_ends_the_run(server, monkeypatch):
    monkeypatch.setattr(client, "DELAYS_IN_A_ROW", 3)
    loaded = connect(server)
    server.faults = Faults(rate=1, kinds=["429"])
    with pytest.raises(InterruptedRunError, match=r"put a request off 3 times in a row; .*max_batch_tokens"):
        encode_each(loaded, TEXTS[:3])
