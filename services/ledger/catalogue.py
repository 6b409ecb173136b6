"""EcoLogits' catalogue of models (https://doi.org/10.21105/joss.07471), compiled model by model.

Its estimate is affine in the output tokens, so two calls give `fixed` and `per_output`, with server, data centre and the spread of the
model's size included. Against 26 published measurements its error has a geometric standard deviation of 1.84: both ends are widened by 1.8.
It counts nothing for the prompt. Open models have one size there, and are taken from it; closed ones have a range, which is a guess. A
closed model that is not catalogued is taken for the catalogued one of its family, widened by another 2.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from joulegate.chat.v1.receipt_pb2 import EnergyBasis
from services.ledger.aliases import CATALOGUE_OF, Aliases, Key, spellings
from services.ledger.energy import EnergyModel, Span, prefill
from services.ledger.tables import rows
from services.ledger.weights import Weights

if TYPE_CHECKING:
    from ecologits.model_repository import Model

WIDENING: Final = 1.8
FAMILY_WIDENING: Final = 2.0
JOULES_PER_KWH: Final = 3.6e6
# Whose data centres stand for those of everybody whose own are not known.
_ANYBODY: Final = "huggingface_hub"


@dataclass(frozen=True, slots=True)
class Family:
    """Spellings of closed models, with `*` for any text, and what stands in for them."""

    patterns: Sequence[str]
    stand_in: Key


class Catalogue:
    """Loading it takes 0.15 s, compiling a model about a millisecond."""

    def __init__(self) -> None:
        from ecologits.log import logger
        from ecologits.model_repository import models

        # Its warnings say that closed models are estimates: every figure of ours is marked as one.
        logger.setLevel(logging.ERROR)
        self._models = models
        self._aliases = Aliases((model.provider.value, model.name) for model in models.list_models())
        self._families = [Family(row["names"], (row["stand_in"][0], row["stand_in"][1])) for row in rows("families")]

    def weights(self, kind: str, name: str) -> Weights | None:
        """The size of an open model."""
        model = self._find(kind, name)
        return None if model is None else _open_weights(model)

    def modelled(self, kind: str, name: str) -> EnergyModel | None:
        """EcoLogits' own figure."""
        model = self._find(kind, name)
        return None if model is None else _compiled(model, WIDENING)

    def of_family(self, name: str) -> EnergyModel | None:
        """The figure of a closed model's family."""
        spelled = next(spellings(name))
        for family in self._families:
            if any(fnmatchcase(spelled, pattern) for pattern in family.patterns):
                model = self._models.find_model(*family.stand_in)
                return None if model is None else _compiled(model, WIDENING * FAMILY_WIDENING)
        return None

    def _find(self, kind: str, name: str) -> "Model | None":
        key = self._aliases.find(kind, name)
        return None if key is None else self._models.find_model(*key)


def pue_of(kind: str) -> Span:
    """The power usage effectiveness of a vendor's data centres."""
    from ecologits.tracers.utils import PROVIDER_CONFIG_MAP

    return _span(PROVIDER_CONFIG_MAP[CATALOGUE_OF.get(kind, _ANYBODY)].datacenter_pue)


def _sizes(model: "Model") -> tuple[Span, Span]:
    """Billions of parameters, in all and active; a dense model has one figure for both."""
    parameters = model.architecture.parameters
    return _span(getattr(parameters, "total", parameters)), _span(getattr(parameters, "active", parameters))


def _open_weights(model: "Model") -> Weights | None:
    total, active = _sizes(model)
    return Weights(total.low, active.low) if total.low == total.high and active.low == active.high else None


def _compiled(model: "Model", widening: float) -> EnergyModel:
    from ecologits.tracers.utils import PROVIDER_CONFIG_MAP, llm_impacts

    tokens = 1000
    provider = model.provider.value

    def joules(output_tokens: int) -> Span:
        # No latency: a slow network must not pass for a busy server.
        energy: Any = llm_impacts(provider, model.name, output_tokens, math.inf).energy
        return _span(energy.value).times(JOULES_PER_KWH, JOULES_PER_KWH)

    fixed, whole = joules(0), joules(tokens)
    per_output = Span((whole.low - fixed.low) / tokens, (whole.high - fixed.high) / tokens)
    per_input = prefill(_sizes(model)[1], _span(PROVIDER_CONFIG_MAP[provider].datacenter_pue))
    wider = (1 / widening, widening)
    return EnergyModel(EnergyBasis.ENERGY_BASIS_MODELLED, fixed.times(*wider), per_output.times(*wider), per_input)


def _span(value: Any) -> Span:
    """A number of EcoLogits, which may be a range."""
    if hasattr(value, "min"):
        return Span(float(value.min), float(value.max))
    return Span(float(value), float(value))
