"""Which providers serve which models, as dispatch last said."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from joulegate.dispatch.v1 import dispatch_service_pb2 as dispatch_pb
from services.router.load import Live, Load
from services.runtime.identity import Caller


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that can be asked for a model."""

    provider: dispatch_pb.Provider
    model: str
    live: Live
    # The names of both: what tells it from others.
    target: tuple[str, str] = field(init=False)

    def __post_init__(self) -> None:
        # Kept, since reading a field of a message takes longer than a decision has time for.
        object.__setattr__(self, "target", (self.provider.name, self.model))


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model as clients see it, with the names of its providers in order of preference."""

    model: dispatch_pb.Model
    providers: list[str] = field(default_factory=list)


class Catalogue:
    """One immutable picture; a newer one replaces it whole. The load of what is in it outlives it."""

    def __init__(self, providers: Sequence[dispatch_pb.Provider] = (), load: Load | None = None) -> None:
        self.providers = tuple(providers)
        self._load = load or Load()
        self._by_name = {provider.name: provider for provider in self.providers}
        self._models: dict[str, ListedModel] = {}
        self._serving: dict[str, list[dispatch_pb.Provider]] = {}
        # Who can serve the listed models that were asked for, made once.
        self._found: dict[str, list[Candidate]] = {}
        self._epoch = self._load.epoch
        for provider in self.providers:
            for model in provider.models:
                self._models.setdefault(model.id, ListedModel(model)).providers.append(provider.name)
                self._serving.setdefault(model.id, []).append(provider)

    def candidates(self, name: str) -> list[Candidate]:
        """Who can serve `model` or `provider/model`, in the configured order; empty when nobody can.

        A model's own name may hold slashes (`meta-llama/Llama-3`), so a full match wins over the reading as `provider/model`.
        """
        if name in self._serving:
            return self._listed(name)
        prefix, slash, model = name.partition("/")
        named = self._by_name.get(prefix) if slash else None
        if named is not None and (named.accepts_unlisted_models or any(listed.id == model for listed in named.models)):
            return [self._candidate(named, model)]
        if named is not None:
            return []
        return [self._candidate(provider, name) for provider in self.providers if provider.accepts_unlisted_models]

    def _listed(self, name: str) -> list[Candidate]:
        if self._epoch != self._load.epoch:
            self._found.clear()
            self._epoch = self._load.epoch
        found = self._found.get(name)
        if found is None:
            found = self._found[name] = [self._candidate(provider, name) for provider in self._serving[name]]
        return found

    def everything(self) -> list[Candidate]:
        """Every listed model at each of its providers, in the configured order."""
        return [self._candidate(provider, model.id) for provider in self.providers for model in provider.models]

    def serves(self, name: str) -> bool:
        """Whether a provider lists a model of that very name."""
        return name in self._serving

    def _candidate(self, provider: dispatch_pb.Provider, model: str) -> Candidate:
        return Candidate(provider, model, self._load.of(provider.name, model))

    def models_for(self, caller: Caller) -> list[ListedModel]:
        """Every listed model that the caller may use once, in the order of its first provider."""
        if caller.models is None:
            return list(self._models.values())
        return [usable for listed in self._models.values() if (usable := _usable(listed, caller)) is not None]

    def model(self, name: str, caller: Caller) -> ListedModel | None:
        """A listed model that the caller may use, by its name or by `provider/model`."""
        listed = self._models.get(name)
        if listed is not None:
            return _usable(listed, caller)
        prefix, _, model = name.partition("/")
        listed = self._models.get(model)
        return _usable(listed, caller, only=prefix) if listed is not None and prefix in listed.providers else None


def _usable(listed: ListedModel, caller: Caller, only: str = "") -> ListedModel | None:
    """The model with those of its providers that the caller may use; None without any, or without the one that counts."""
    if caller.models is None:
        return listed
    providers = [provider for provider in listed.providers if caller.may_use(provider, listed.model.id)]
    return ListedModel(listed.model, providers) if providers and (not only or only in providers) else None
