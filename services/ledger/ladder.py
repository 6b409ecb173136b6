"""Which figure of energy a model gets: the best of what is known about it.

What the operator states; a published measurement of the model; our regression, if its weights are open and their size known; EcoLogits'
figure, of the model or of its family; its price; and if nothing is known, the range of everything. An open model on a machine of one's own
gets no figure of a data centre, but the regression for small batches. A closed model behind an address of one's own is somebody else's all
the same.
"""

from collections.abc import Sequence
from typing import Final

from joulegate.chat.v1.receipt_pb2 import CostBasis
from services.ledger import energy, regression, weights
from services.ledger.catalogue import Catalogue, pue_of
from services.ledger.cost import Tariff
from services.ledger.energy import EnergyModel
from services.ledger.overrides import Overrides, Provider
from services.ledger.weights import Weights

# Ollama runs four requests at a time at most, unless told otherwise, and quantises to four bits; a server of one's own may be a large one.
OLLAMA_BATCH: Final = 4
OLLAMA_BITS: Final = 4
SERVER_BATCH: Final = 64


class Ladder:
    """Finds energy models. The first use loads EcoLogits."""

    def __init__(self, overrides: Overrides) -> None:
        self._overrides = overrides
        self._catalogue: Catalogue | None = None

    def find(self, provider: Provider, names: Sequence[str], tariff: Tariff) -> EnergyModel:
        """The energy model of the first of `names` (as served, as asked) that is known. Never raises, never nothing."""
        for name in names:
            stated = self._overrides.energies.get((provider.name, name))
            if stated is not None:
                return energy.declared(stated)
        if provider.kind == "demo":
            return energy.DEMO
        for name in names:
            found = self._here(provider, name) if provider.is_here else self._hosted(provider, name)
            found = found or self._closed(provider, name)
            if found is not None:
                return found
        # At time 0 a dated price is its first: good enough within a factor of ten, and the same whenever it is asked.
        nano_usd_per_million = tariff.at(0).output.base
        if tariff.basis == CostBasis.COST_BASIS_LIST and nano_usd_per_million > 0:
            return energy.from_price(nano_usd_per_million / 1e9)
        return energy.UNKNOWN

    def _here(self, provider: Provider, name: str) -> EnergyModel | None:
        known = self._weights(provider, name)
        if known is None:
            return None
        if provider.kind == "ollama":
            return energy.here(known._replace(bits=weights.bits_of(name) or min(known.bits, OLLAMA_BITS)), OLLAMA_BATCH)
        return energy.here(known, SERVER_BATCH)

    def _hosted(self, provider: Provider, name: str) -> EnergyModel | None:
        run = regression.measured(name, weights.bits_of(name))
        if run is not None:
            return energy.measured(run, pue_of(provider.kind))
        known = self._weights(provider, name)
        return None if known is None else energy.hosted(known, pue_of(provider.kind))

    def _weights(self, provider: Provider, name: str) -> Weights | None:
        known = weights.listed(name) or self._loaded().weights(provider.kind, name) or weights.from_name(name)
        return None if known is None else known._replace(bits=weights.bits_of(name) or known.bits)

    def _closed(self, provider: Provider, name: str) -> EnergyModel | None:
        return self._loaded().modelled(provider.kind, name) or self._loaded().of_family(name)

    def _loaded(self) -> Catalogue:
        if self._catalogue is None:
            self._catalogue = Catalogue()
        return self._catalogue
