"""Embedders: what they give, and what they do with answers that are none."""

import asyncio
import math
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from services.cache.embedders.base import Embedder, EmbeddingError, normalised
from services.cache.embedders.endpoint import EndpointEmbedder
from services.cache.embedders.hashing import HashEmbedder
from services.cache.embedders.wordllama import WordllamaEmbedder
from tests.fakes.embeddings import EmbeddingsEndpoint

TEXTS = ["How do I reset my password?", "I forgot my password, how can I get a new one?", "日本語のテキスト", "x" * 900]

# How the tokenizer writes it.
SPACE = "\u2581"


@pytest.fixture(scope="module")
def wordllama() -> WordllamaEmbedder:
    return WordllamaEmbedder()


async def cosine(embedder: Embedder, one: str, other: str) -> float:
    vectors = await embedder.embed([one, other])
    return float(vectors[0] @ vectors[1])


@pytest.mark.parametrize("kind", ["wordllama", "hash"])
async def test_vectors_have_length_one_and_do_not_depend_on_company(kind: str, wordllama: WordllamaEmbedder) -> None:
    embedder: Embedder = wordllama if kind == "wordllama" else HashEmbedder()
    vectors = await embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert np.array_equal((await embedder.embed([text]))[0], vector)


async def test_wordllama_gives_what_its_own_package_gives(wordllama: WordllamaEmbedder) -> None:
    from wordllama import WordLlama

    from services.cache.embedders.wordllama import _folder

    # Words are summed apart, but where a token may be of several spaces.
    spaced = [
        "two  spaces",
        " at the ends ",
        "a\nb\tc d",
        "   ",
        "déjà vu, 42 €! 日本 語",
        "order 12-3: a_b==c",
        f"{'y' * 40} is long, is long",
    ]
    theirs = WordLlama.load(cache_dir=_folder(), disable_download=True).embed([*TEXTS, *spaced], norm=True)
    assert np.allclose(await wordllama.embed([*TEXTS, *spaced]), theirs, atol=1e-5)


def test_no_token_of_wordllama_reaches_over_a_space(wordllama: WordllamaEmbedder) -> None:
    assert not [token for token in wordllama._tokenizer.get_vocab() if SPACE in token.lstrip(SPACE)]


async def test_wordllama_puts_a_paraphrase_above_its_floor_and_another_matter_below(wordllama: WordllamaEmbedder) -> None:
    assert await cosine(wordllama, TEXTS[0], TEXTS[1]) > wordllama.floor
    assert await cosine(wordllama, TEXTS[0], "Which trains go to Graz on Sunday?") < wordllama.floor
    assert wordllama.fingerprint == "wordllama-0.4.0.post1-l2_supercat-256-mean"


async def test_text_without_words_is_similar_to_nothing(wordllama: WordllamaEmbedder) -> None:
    for embedder in (wordllama, HashEmbedder()):
        assert not (await embedder.embed([""])).any()


def test_rows_without_a_direction_become_zeros() -> None:
    rows = normalised(np.array([[3, 4], [0, 0], [math.inf, 1], [math.nan, 1]], np.float32))
    assert rows.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0], [0, 0], [0, 0]]


async def test_endpoint_is_asked_as_openai_would_be_and_its_vectors_put_in_order() -> None:
    async with EmbeddingsEndpoint() as endpoint:
        embedder = EndpointEmbedder(endpoint.base_url, "mini", endpoint.dimension, "secret")
        vectors = await embedder.embed(["one two", "three"])
        await embedder.close()
        assert np.allclose(vectors, await HashEmbedder().embed(["one two", "three"]), atol=1e-6)
        [call] = endpoint.calls
        assert call == {"model": "mini", "input": ["one two", "three"], "encoding_format": "float"}
        assert endpoint.authorization == "Bearer secret"


SPOILT: dict[str, Any] = {
    "no JSON": web.Response(text="oops"),
    "another shape": web.json_response({"data": [{"embedding": "AAAA", "index": 0}]}),
    "another size": web.json_response({"data": [{"embedding": [1.0, 0.0], "index": 0}]}),
    "too few": web.json_response({"data": []}),
    "an error": web.json_response({"error": {"message": "no such model"}}, status=404),
    "a way elsewhere": web.Response(status=307, headers={"location": "http://127.0.0.1:1/"}),
}


@pytest.mark.parametrize("name", SPOILT)
async def test_endpoint_that_gives_no_usable_vector_is_an_error(name: str) -> None:
    async with EmbeddingsEndpoint() as endpoint:
        spoilt = SPOILT[name]
        endpoint.instead = lambda: web.Response(body=spoilt.body, status=spoilt.status, headers=spoilt.headers)
        embedder = EndpointEmbedder(endpoint.base_url, "mini", endpoint.dimension, None)
        with pytest.raises(EmbeddingError):
            await embedder.embed(["one"])
        await embedder.close()


async def test_endpoint_that_is_not_there_is_an_error() -> None:
    embedder = EndpointEmbedder("http://127.0.0.1:1/v1", "mini", 64, None)
    with pytest.raises(EmbeddingError, match="cannot be reached"):
        await asyncio.wait_for(embedder.embed(["one"]), 30)
    await embedder.close()


def test_each_endpoint_model_and_size_has_a_space_of_its_own() -> None:
    spaces = [("http://a/v1", "m", 64), ("http://b/v1", "m", 64), ("http://a/v1", "n", 64), ("http://a/v1", "m", 65)]
    assert len({EndpointEmbedder(url, model, dimension, None).fingerprint for url, model, dimension in spaces}) == len(spaces)
