import json
from pathlib import Path

import numpy as np
import pytest

from services.router.complexity import Scorer
from training.calibration import calibration
from training.complexity import Recipe, cross_validated, folds_of, prepare, read, train
from training.evaluation import Outcome, figures_of, passages

WORDS = ("apple", "river", "stone", "cloud", "seven", "green", "table", "north", "music", "paper")


def write(directory: Path, name: str, lines: list[dict[str, object]]) -> Path:
    path = directory / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two data sets in which the weak model fails at what must be proven and at nothing else."""
    directory = tmp_path_factory.mktemp("data")
    paths = []
    for name, form in (("first", "Question: {}"), ("second", "{} Answer in one word.")):
        lines: list[dict[str, object]] = []
        for number in range(60):
            hard = number % 3 == 0
            topic = " ".join(WORDS[number * step % 10] for step in (1, 3, 7)) + f" {number}"
            text = form.format(f"Prove that {topic} is prime, and derive why." if hard else f"Name the {topic}.")
            lines.append({"id": f"{number}", "prompt": text, "strong": 1.0, "weak": 0.0 if hard else 1.0})
        paths.append(write(directory, name, lines))
    return paths


def test_training_twice_gives_the_same_bytes_whatever_the_order_of_files_and_lines(data: list[Path], tmp_path: Path) -> None:
    turned = [write(tmp_path, path.stem, [json.loads(line) for line in reversed(path.read_text().splitlines())]) for path in reversed(data)]
    first = train(data, tmp_path / "first.npz", Recipe(), quick=True)
    second = train(turned, tmp_path / "second.npz", Recipe(), quick=True)
    assert first["sha256"] == second["sha256"]
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()
    assert json.loads((tmp_path / "first.json").read_text())["sha256"] == first["sha256"]


def test_what_is_learnt_in_one_data_set_holds_in_another_and_the_scorer_says_the_same(data: list[Path], tmp_path: Path) -> None:
    train([data[0]], tmp_path / "scorer.npz", Recipe(), quick=True)
    scorer = Scorer.load(tmp_path / "scorer.npz")
    outcomes = read([data[1]])
    scores = np.array([scorer.raw_score(outcome.prompt) for outcome in outcomes])
    assert figures_of(outcomes, scores)["apgr"] > 0.8


def test_the_scorer_scores_a_text_as_training_did(data: list[Path], tmp_path: Path) -> None:
    train(data, tmp_path / "scorer.npz", Recipe(), quick=True)
    scorer = Scorer.load(tmp_path / "scorer.npz")
    prompts = prepare(read(data))
    alone = [scorer.raw_score(outcome.prompt) for outcome in prompts.outcomes]
    at = np.argsort(alone)
    held = cross_validated(prompts, Recipe())
    assert np.corrcoef(held[at], np.array(alone)[at])[0, 1] > 0.9


def test_prompts_about_one_passage_are_in_one_fold() -> None:
    passage = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness. "
    prompts = [passage + "Who wrote it?", "What is two plus two?", passage + "When was it written?", "Name a colour that is not red."]
    found = passages(prompts)
    assert found[0] == found[2]
    assert len(set(found.tolist())) == 3
    many = np.repeat(np.arange(50), 3)
    fold = folds_of(many, 5, seed=1)
    assert all(len(set(fold[many == one])) == 1 for one in range(50))
    assert set(fold.tolist()) == set(range(5))


def test_a_perfect_order_saves_what_the_strong_model_need_not_do() -> None:
    outcomes = [Outcome("x", str(n), "", 1.0, 0.0 if n < 2 else 1.0, 100, 100, 100) for n in range(10)]
    best = figures_of(outcomes, -np.arange(10.0))
    assert best["apgr"] == pytest.approx(0.9)
    # Both hard ones go to the strong model, the rest to one at 120 instead of 4000.
    assert best["saved_at_95"] == pytest.approx(1 - (2 * 4000 + 8 * 120) / 40_000)
    worst = figures_of(outcomes, np.arange(10.0))
    assert worst["apgr"] == pytest.approx(0.1)


def test_calibration_finds_rates_that_fall() -> None:
    draw = np.random.default_rng(3)
    scores = draw.normal(size=4000)
    rate = 1 / (1 + np.exp(scores))
    table = calibration(scores, (draw.random(4000) < rate).astype(float)[:, None], np.ones(4000))
    assert (np.diff(table[:, 1]) <= 0).all()
    at = np.array([-1.0, 0.0, 1.0])
    assert np.abs(np.interp(at, table[:, 0], table[:, 1]) - 1 / (1 + np.exp(at))).max() < 0.08
