"""Fits the complexity score to prompts with known outcomes of a strong and a weak model, and says how well it does.

    python -m training.complexity DATA.jsonl... [--out FILE] [--without NAME]... [--quick]

Each file is one data set, named by its file, of lines {"id", "prompt", "strong", "weak", ...}: qualities from 0 to 1. Weighted ridge
regression on the features of services/router/complexity.py, solved by conjugate gradients. Each data set's mean is taken out of its
targets, so that the order within data sets is learnt and not which of them a prompt is from. The same files give the same bytes on the
same kind of processor with the same numpy.
"""

import os

# One thread adds in one order.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.router.complexity import SHIPPED, Lift
from services.router.prompt_features import Lexicon, features
from services.router.prompt_words import Floats, shortened, slots_of, words_of
from training.calibration import calibration, calibration_error
from training.evaluation import Outcome, figures_of, passages
from training.lexicon import lexicon_of

Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]

SEED: Final = 6
FOLDS: Final = 5
LANDMARKS: Final = 1024
# Directions in which the landmarks hardly differ are held back more, for their weights could not be kept exactly.
LEAST_EIGENVALUE: Final = 1e-3
SLOTS: Final = 1 << 17
# Slots that fewer prompts fall into have no weight.
LEAST_PROMPTS: Final = 2
STEPS: Final = 30
# Characters that are paid for besides a prompt's own.
LEAST_LENGTH: Final = 80
# A data set of fewer rows weighs as if it had so many.
LEAST_ROWS: Final = 300
# How often the data is divided anew to see how much of a figure is the division.
DIVISIONS: Final = 5


@dataclass(frozen=True, slots=True)
class Recipe:
    """What may be chosen about the fit."""

    # The target is the strong model's gain plus so much of the weak one's failure.
    failure: float = 0.25
    # ... less so much for each e-fold of the prompt's length, with which the price of asking the strong model grows.
    thrift: float = 0.02
    # How strongly weights are held back.
    ridge: float = 6.0
    # How much the kernel of topics counts against that of forms.
    topic: float = 1.0
    # Rows of a data set with n rows weigh (largest / n) ** balance.
    balance: float = 0.3


@dataclass(frozen=True, slots=True)
class Prompts:
    """All prompts, read once: rows of features, and their topics as a sparse matrix."""

    outcomes: tuple[Outcome, ...]
    data_set: Indices
    names: tuple[str, ...]
    passage: Indices
    forms: Floats
    # Sparse entries: row, slot, and one over the square root of how many the row has.
    row: Indices
    slot: Indices
    value: Floats
    lexicon: Lexicon

    def of(self, name: str) -> NDArray[np.bool_]:
        """Which rows are of a data set."""
        return np.array([outcome.data_set == name for outcome in self.outcomes])

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Which rows are not anchors."""
        return ~self.of(ANCHORS.stem)

    @property
    def judged_names(self) -> list[str]:
        """The data sets that are not the anchors."""
        return [name for name in self.names if name != ANCHORS.stem]


# Our own opinions of what is easy and hard beyond benchmarks, which hold no small talk. Trained on always, judged by never.
ANCHORS: Final = Path(__file__).parent / "anchors.jsonl"


def read(paths: Sequence[Path]) -> list[Outcome]:
    """The rows of all files, in an order that does not depend on theirs. Rows that are marked as contaminated are left out."""
    rows = []
    for path in sorted(paths, key=lambda path: path.name):
        for line in path.read_bytes().splitlines():
            row = json.loads(line)
            if not row.get("flag_contaminated"):
                tokens = (row.get("in_tokens", 0), row.get("strong_out_tokens", 0), row.get("weak_out_tokens", 0))
                rows.append(Outcome(path.stem, row["id"], row["prompt"], float(row["strong"]), float(row["weak"]), *tokens))
    return sorted(rows, key=lambda row: (row.data_set, row.id))


def prepare(outcomes: Sequence[Outcome]) -> Prompts:
    """Reads features and topics of all prompts."""
    texts = [words_of(shortened(outcome.prompt)) for outcome in outcomes]
    lexicon = lexicon_of(texts)
    classes = [lexicon.classes_of(words) for words in texts]
    forms = np.array([features(words, mine, lexicon) for words, mine in zip(texts, classes, strict=True)])
    found = [slots_of(words, mine > 0, SLOTS).astype(np.int64) for words, mine in zip(texts, classes, strict=True)]
    row = np.repeat(np.arange(len(found)), [len(slots) for slots in found])
    value = 1 / np.sqrt([len(slots) + 1 for slots in found])[row]
    names = tuple(sorted({outcome.data_set for outcome in outcomes}))
    data_set = np.array([names.index(outcome.data_set) for outcome in outcomes])
    passage = passages([outcome.prompt for outcome in outcomes])
    slot = np.concatenate(found)
    return Prompts(tuple(outcomes), data_set, names, passage, forms, row, slot, value.astype(np.float32), lexicon)


def lift_of(forms: Floats, weight: Doubles) -> Lift:
    """Landmarks drawn from these rows, heavier ones sooner; features are centred and scaled by the rows."""
    low, middle, high = np.percentile(forms, (10, 50, 90), axis=0)
    # Of what hardly ever differs, the rare difference would be far out.
    spread = (high - low) / 2.56 + 0.5 * forms.std(axis=0) + 1e-6
    lift = Lift.of(halved(middle), halved(spread), np.zeros((0, forms.shape[1]), np.float32))
    draw = np.random.Generator(np.random.PCG64(SEED))
    soonest = np.argsort(draw.exponential(size=len(forms)) / weight, kind="stable")[:LANDMARKS]
    return Lift.of(lift.middle, lift.spread, halved(lift.place(forms[np.sort(soonest)])))


def whitening(lift: Lift) -> Floats:
    """The inverse root of the landmarks' likeness among themselves (Nyström): products of rows times it are their likeness."""
    values, vectors = np.linalg.eigh(lift.likeness(lift.landmarks).astype(np.float64))
    return np.asarray(vectors / np.sqrt(np.maximum(values, LEAST_EIGENVALUE)), np.float32)


def halved(values: NDArray[Any]) -> Floats:
    """The values as the file keeps them."""
    return np.asarray(values, np.float16).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Fit:
    """The weights of a score."""

    lift: Lift
    form_weights: Floats
    topic_weights: Floats

    def scores(self, prompts: Prompts) -> Doubles:
        """The scores of all prompts."""
        form = self.lift.likeness(self.lift.place(prompts.forms)) @ self.form_weights
        topic = np.bincount(prompts.row, self.topic_weights[prompts.slot] * prompts.value, minlength=len(form))
        return np.asarray(form + topic, np.float64)


def fit(prompts: Prompts, trained: NDArray[np.bool_], recipe: Recipe) -> Fit:
    """The score that is fitted to the rows that are trained on."""
    chosen = np.flatnonzero(trained)
    weight = weights_of(prompts.data_set[chosen], recipe)
    lift = lift_of(prompts.forms[chosen], weight)
    white = whitening(lift)
    form = lift.likeness(lift.place(prompts.forms[chosen])) @ white
    inside = trained[prompts.row]
    row = np.cumsum(trained)[prompts.row[inside]] - 1
    slot, value = prompts.slot[inside], prompts.value[inside]
    prompts_with = np.bincount(slot, minlength=SLOTS)
    rarity = np.where(prompts_with >= LEAST_PROMPTS, np.log((1 + len(chosen)) / (1 + prompts_with)), 0.0)
    value = value * rarity[slot]
    kept = value > 0
    row, slot, value = row[kept], slot[kept], value[kept]
    scale = np.sqrt(recipe.topic / ((value**2).sum() / len(chosen)))
    topics = Topics(row, slot, (value * scale).astype(np.float32), len(chosen))
    on_form, on_topic = solve(form, topics, targets(prompts, chosen, recipe), weight, recipe.ridge)
    return Fit(lift, (white @ on_form).astype(np.float32), halved(scale * rarity * on_topic))


def weights_of(data_set: Indices, recipe: Recipe) -> Doubles:
    """What each row counts, by the data set that it is from."""
    sizes = np.bincount(data_set)
    return np.asarray(((sizes.max() / np.maximum(sizes, LEAST_ROWS)) ** recipe.balance)[data_set])


def targets(prompts: Prompts, chosen: Indices, recipe: Recipe) -> Doubles:
    """What is predicted of each row, less the mean of its data set."""
    outcomes = [prompts.outcomes[row] for row in chosen]
    need = np.array([outcome.strong - outcome.weak + recipe.failure * (1 - outcome.weak) for outcome in outcomes])
    raw = need - recipe.thrift * np.log([LEAST_LENGTH + len(outcome.prompt) for outcome in outcomes])
    of_set = prompts.data_set[chosen]
    means = np.bincount(of_set, raw) / np.maximum(np.bincount(of_set), 1)
    return np.asarray(raw - means[of_set])


@dataclass(frozen=True, slots=True)
class Topics:
    """A sparse matrix of rows by slots."""

    row: Indices
    slot: Indices
    value: Floats
    rows: int

    def times(self, weights: Doubles) -> Doubles:
        return np.asarray(np.bincount(self.row, weights[self.slot] * self.value, minlength=self.rows), np.float64)

    def transposed_times(self, values: Doubles) -> Doubles:
        return np.asarray(np.bincount(self.slot, values[self.row] * self.value, minlength=SLOTS), np.float64)


def solve(form: Floats, topics: Topics, target: Doubles, weight: Doubles, ridge: float) -> tuple[Doubles, Doubles]:
    """The weights with the least weighted square error plus `ridge` times their squares, by conjugate gradients in the space of rows."""

    def product(dual: Doubles) -> Doubles:
        on_form = form @ (dual.astype(np.float32) @ form)
        return on_form + topics.times(topics.transposed_times(dual)) + ridge * dual / weight

    dual = np.zeros(len(target))
    residual = target.copy()
    scaled = residual * weight
    direction, size = scaled.copy(), float(residual @ scaled)
    for _ in range(STEPS):
        step = product(direction)
        length = size / float(direction @ step)
        dual += length * direction
        residual -= length * step
        scaled = residual * weight
        grown = float(residual @ scaled)
        direction = scaled + grown / size * direction
        size = grown
    return (dual.astype(np.float32) @ form).astype(np.float64), topics.transposed_times(dual)


def folds_of(passage: Indices, count: int, seed: int) -> Indices:
    """Which fold each row is in; rows about one passage are in the same."""
    found = np.unique(passage)
    np.random.Generator(np.random.PCG64(seed)).shuffle(found)
    fold = {int(one): index % count for index, one in enumerate(found)}
    return np.array([fold[int(one)] for one in passage])


def cross_validated(prompts: Prompts, recipe: Recipe, seed: int = SEED, count: int = FOLDS) -> Doubles:
    """Each row's score by a fit that saw no row about its passage."""
    fold = folds_of(prompts.passage, count, seed)
    scores = np.zeros(len(fold))
    for held in range(count):
        scores[fold == held] = fit(prompts, (fold != held) | ~prompts.judged, recipe).scores(prompts)[fold == held]
    return scores


def left_out(prompts: Prompts, recipe: Recipe) -> Doubles:
    """Each row's score by a fit that saw no row of its data set."""
    scores = np.zeros(len(prompts.data_set))
    for name in prompts.judged_names:
        mine = prompts.of(name)
        scores[mine] = fit(prompts, ~mine, recipe).scores(prompts)[mine]
    return scores


def calibrated(prompts: Prompts, recipe: Recipe, scores: Doubles) -> Doubles:
    """The calibration of scores of rows that the fit did not see, as the scorer holds it."""
    seen = prompts.judged
    strong = np.array([outcome.strong for outcome in prompts.outcomes])[seen]
    weak = np.array([outcome.weak for outcome in prompts.outcomes])[seen]
    outcomes = np.column_stack((weak >= strong, weak, strong)).astype(float)
    table = calibration(scores[seen], outcomes, weights_of(prompts.data_set, recipe)[seen])
    table[:, 3] = np.maximum(table[:, 2], table[:, 3])
    return table


def arrays_of(prompts: Prompts, fitted: Fit, table: Doubles) -> dict[str, Any]:
    """What the scorer reads."""
    lift = fitted.lift
    named = {"middle": lift.middle, "spread": lift.spread, "landmarks": lift.landmarks, "topic_weights": fitted.topic_weights}
    halves = {name: values.astype(np.float16) for name, values in named.items()}
    return halves | {
        "form_weights": fitted.form_weights,
        "kinds": prompts.lexicon.kinds.astype(np.uint8),
        "classes": prompts.lexicon.classes,
        "rarity": prompts.lexicon.rarity,
        "calibration": table,
    }


def by_data_set(prompts: Prompts, scores: Doubles) -> dict[str, dict[str, float]]:
    """The figures of each data set."""
    figures = {}
    for name in prompts.judged_names:
        rows = np.flatnonzero(prompts.of(name))
        figures[name] = figures_of([prompts.outcomes[row] for row in rows], scores[rows])
    return figures


def measured(prompts: Prompts, recipe: Recipe, scores: Doubles, table: Doubles) -> dict[str, Any]:
    """All figures: cross-validated with several divisions, each data set left out, and how far the calibration is off."""
    runs = [by_data_set(prompts, scores)]
    runs += [by_data_set(prompts, cross_validated(prompts, recipe, SEED + more)) for more in range(1, DIVISIONS)]
    names = list(runs[0])
    macro = {key: [float(np.mean([run[name][key] for name in names])) for run in runs] for key in runs[0][names[0]]}
    suffices = np.interp(scores, table[:, 0], table[:, 1])
    seen = np.array([float(outcome.weak >= outcome.strong) for outcome in prompts.outcomes])
    off = {}
    for name in names:
        mine = prompts.of(name)
        off[name] = calibration_error(suffices[mine], seen[mine], np.ones(mine.sum()))
    return {
        "rows": {name: int(prompts.of(name).sum()) for name in names},
        "cross_validated": {name: {key: [run[name][key] for run in runs] for key in runs[0][name]} for name in names},
        "cross_validated_macro": macro,
        "left_out": by_data_set(prompts, left_out(prompts, recipe)) if len(names) > 1 else {},
        "calibration_error": off,
    }


def rounded(value: Any) -> Any:
    """The same with numbers that a reader can take in."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def train(paths: Sequence[Path], out: Path, recipe: Recipe, *, quick: bool = False) -> dict[str, Any]:
    """Writes the scorer's file to `out` and its figures beside it; `quick` spares the figures."""
    prompts = prepare(read([*paths, ANCHORS]))
    scores = cross_validated(prompts, recipe)
    table = calibrated(prompts, recipe, scores)
    fitted = fit(prompts, np.ones(len(scores), bool), recipe)
    file = BytesIO()
    # Not compressed: what compression gives depends on the version of zlib.
    np.savez(file, **arrays_of(prompts, fitted, table))
    figures: dict[str, Any] = {"sha256": hashlib.sha256(file.getvalue()).hexdigest(), "recipe": asdict(recipe)}
    if not quick:
        figures |= measured(prompts, recipe, scores, table)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Both at the end: neither is ever without the other for long.
    out.write_bytes(file.getvalue())
    out.with_suffix(".json").write_text(json.dumps(rounded(figures), indent=1) + "\n", encoding="utf-8")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="leave a data set out, by the name of its file")
    parser.add_argument("--quick", action="store_true", help="no figures")
    given = parser.parse_args()
    figures = train([path for path in given.data if path.stem not in given.without], given.out, Recipe(), quick=given.quick)
    print(json.dumps(rounded(figures), indent=1))


if __name__ == "__main__":
    main()
