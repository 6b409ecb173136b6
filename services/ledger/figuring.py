"""The figurer that the settings ask for, and the factors that it figures with."""

from decimal import Decimal

from services.ledger import carbon
from services.ledger.carbon import Hours
from services.ledger.cost import DEAR, Tariffs
from services.ledger.factors import FactorSet, factor_set
from services.ledger.figures import Figurer
from services.ledger.overrides import DeclaredPrice, read_overrides
from services.ledger.settings import LedgerSettings
from services.runtime.config_file import read_config


def figurer_of(settings: LedgerSettings, hours: Hours) -> tuple[Figurer, FactorSet]:
    """Raises SettingsError for what joulegate.toml gets wrong."""
    overrides = read_overrides(read_config(settings.config))
    carbon.check_zones(overrides.providers.values(), settings.gateway_zone)
    unknown = _unknown_price(settings)
    factors = factor_set(overrides, unknown, settings.gateway_zone, settings.gateway_watts_per_core)
    figurer = Figurer(overrides, Tariffs(overrides, unknown), settings.gateway_zone, hours, factors.version)
    figurer.watts_per_core = settings.gateway_watts_per_core
    figurer.denies_unpriced = settings.unknown_model_policy == "deny"
    return figurer, factors


def _unknown_price(settings: LedgerSettings) -> DeclaredPrice | None:
    """What the operator wants booked of a model without a price."""
    stated = (settings.unknown_input_usd_per_million, settings.unknown_output_usd_per_million)
    if stated == (None, None):
        return None
    return DeclaredPrice(
        *(default if usd is None else Decimal(str(usd)) for usd, default in zip(stated, (DEAR.input, DEAR.output), strict=True))
    )
