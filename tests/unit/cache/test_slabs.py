"""Slabs against the comparison of everything with everything."""

import numpy as np
import pytest
from numpy.typing import NDArray

from services.cache import gate
from services.cache.nearest import BLOCK_NUMBERS, Search, basis_of, sketch
from services.cache.slabs import Slab
from services.cache.template import Filling, filling

DIMENSION = 256
BLOCK_ROWS = BLOCK_NUMBERS // DIMENSION
FLOOR = 0.6
Vectors = NDArray[np.float32]


def directions(rng: np.random.Generator, count: int, kinds: int, spread: float) -> Vectors:
    """Vectors of length 1 around a few centres, near each other where `spread` is small."""
    centres = rng.standard_normal((kinds, DIMENSION))
    found = centres[rng.integers(kinds, size=count)] + spread * rng.standard_normal((count, DIMENSION))
    units: Vectors = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    return units


def slab_of(vectors: Vectors) -> Slab:
    slab = Slab()
    for number, vector in enumerate(vectors):
        slab.put(str(number), vector, filling(str(number)))
    return slab


def nearest(vectors: dict[str, Vectors], asked: Vectors, most: int) -> dict[str, float]:
    cosines = {name: float(vector @ asked) for name, vector in vectors.items()}
    best = sorted((name for name, cosine in cosines.items() if cosine >= FLOOR), key=lambda name: -cosines[name])[:most]
    return {name: cosines[name] for name in best}


def found_by(slab: Slab, search: Search) -> dict[str, float]:
    return dict(slab.named(search))


# Templates; questions of some kinds; no two alike, so that sketches tell nothing.
@pytest.mark.parametrize(("kinds", "spread"), [(1, 0.1), (40, 0.7), (3000, 0.5)])
@pytest.mark.parametrize("count", [1, 70, BLOCK_ROWS, 3 * BLOCK_ROWS + 77])
def test_sketches_lose_nothing(count: int, kinds: int, spread: float) -> None:
    rng = np.random.default_rng(7)
    vectors = directions(rng, count + 12, kinds, spread)
    kept, asked = vectors[:count], vectors[count:]
    slab = slab_of(kept)
    for each in [*asked, kept[0]]:
        found, wanted = (
            found_by(slab, slab.search(each, FLOOR, 64)),
            nearest({str(row): vector for row, vector in enumerate(kept)}, each, 64),
        )
        assert list(found.values()) == pytest.approx(list(wanted.values()), abs=1e-5)
        # Of equally near ones at the end any will do.
        assert found.keys() == wanted.keys() or min(found.values()) == pytest.approx(min(wanted.values()), abs=1e-5)
    assert found["0"] == pytest.approx(1)


def test_what_leaves_is_never_found_and_what_moves_into_its_place_is() -> None:
    rng = np.random.default_rng(3)
    vectors = dict(enumerate(directions(rng, 2 * BLOCK_ROWS + 200, 5, 0.3)))
    slab, held = slab_of(np.array(list(vectors.values()))), {str(row): vector for row, vector in vectors.items()}
    sizes = [slab.size_bytes]
    for step, name in enumerate(rng.permutation([*held])):
        slab.remove(str(name))
        del held[str(name)]
        if step % 400 == 0 and held:
            asked = held[next(iter(held))]
            assert list(found_by(slab, slab.search(asked, FLOOR, 8)).values()) == pytest.approx(
                list(nearest(held, asked, 8).values()), abs=1e-5
            )
        sizes.append(slab.size_bytes)
    assert not len(slab)
    assert sizes[-1] == 0
    assert sizes == sorted(sizes, reverse=True)


def test_growing_copies_nothing_beyond_the_first_block() -> None:
    vectors = directions(np.random.default_rng(1), 2 * BLOCK_ROWS + 1, 3, 0.3)
    slab = slab_of(vectors[:BLOCK_ROWS])
    before = slab.search(vectors[0], FLOOR, 8).blocks[0].vectors
    for number in range(BLOCK_ROWS, len(vectors)):
        slab.put(str(number), vectors[number], filling(str(number)))
    blocks = slab.search(vectors[0], FLOOR, 8).blocks
    assert blocks[0].vectors is before
    # No more than one block stands empty.
    assert sum(len(block.vectors) for block in blocks) <= len(slab) + BLOCK_ROWS


def test_a_search_that_others_overtake_gives_nobody_elses_cosine() -> None:
    vectors = directions(np.random.default_rng(5), 3 * BLOCK_ROWS, 1, 0.3)
    slab = slab_of(vectors)
    search = slab.search(vectors[10], FLOOR, 64)
    found = search.run()
    assert str(found[0][0]) == "10"
    # Another one takes the best one's place, some leave and some are new.
    for number in (10, 11, 12):
        slab.remove(str(number))
    slab.put("new", vectors[10], filling("new"))
    names = dict(slab.named(slab.search(vectors[10], FLOOR, 64), found[0]))
    assert not names.keys() & {"10", "11", "12"}
    for name, cosine in names.items():
        assert cosine == pytest.approx(float(vectors[int(name)] @ vectors[10]) if name != "new" else 1, abs=1e-5)


def test_everything_may_leave_while_a_search_runs() -> None:
    vectors = directions(np.random.default_rng(5), 50, 1, 0.3)
    slab = slab_of(vectors)
    search = slab.search(vectors[0], FLOOR, 64)
    found = search.run()
    for number in range(50):
        slab.remove(str(number))
    assert list(slab.named(slab.search(vectors[10], FLOOR, 64), found[0])) == []


def test_a_sketch_bounds_every_cosine() -> None:
    vectors = directions(np.random.default_rng(9), 400, 30, 1.0)
    basis = basis_of(vectors[:256])
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-4)
    sketches = np.array([sketch(vector, basis) for vector in vectors])
    assert (sketches @ sketches.T >= vectors @ vectors.T - 1e-5).all()


@pytest.mark.parametrize("step", [1, 7])
def test_beside_a_template_lie_other_texts_and_the_same_numbers(step: int) -> None:
    vectors = directions(np.random.default_rng(2), 400, 1, 0.3)
    texts = [f"how is {number} made" if number % 50 else f"who made number {number}" for number in range(400)]
    slab = Slab()
    held = {}
    for number, text in enumerate(texts):
        slab.put(text, vectors[number], filling(text))
        held[text] = vectors[number]
    # Leaving moves others into the place of who left.
    for text in texts[1:300:step]:
        slab.remove(text)
        del held[text]
    asked = vectors[399]
    for text in ("how is 399 made", "how is 12345 made"):
        rows = slab.rows_beside(filling(text))
        assert rows is not None
        wanted = {name: vector for name, vector in held.items() if name == text or not name.startswith("how is")}
        assert dict(slab.named(slab.search(asked, FLOOR, 64), rows)) == pytest.approx(nearest(wanted, asked, 64), abs=1e-5)


def test_all_are_compared_where_a_template_is_not_most() -> None:
    vectors = directions(np.random.default_rng(2), 400, 1, 0.3)
    slab = Slab()
    for number, vector in enumerate(vectors):
        slab.put(str(number), vector, filling(f"how is {number} made" if number % 8 else f"who is {chr(number + 1000)}"))
    assert slab.rows_beside(filling("how is 3 made")) is None
    # A text without numbers differs from nobody in numbers.
    assert slab.rows_beside(filling("how is it made")) is None
    assert slab.rows_beside(None) is None


def test_a_filling_is_told_as_the_gate_tells_it() -> None:
    def differ(one: Filling, other: Filling) -> bool:
        return one.template == other.template and one.whole != other.whole

    texts = ["1 USD in EUR", "01 USD in EUR", "10 USD in EUR", "a 1 b 2", "a 2 b 1", "a b", "a", "1", "12", "1 2"]
    for one in texts:
        for other in texts:
            assert differ(filling(one), filling(other)) is gate.differ_in_numbers_only(gate.numerals(one), gate.numerals(other))
