"""The version of what figures are made with: it tells different settings apart, and nothing else."""

from services.ledger.factors import factor_set
from services.ledger.overrides import read_overrides

LARGE = {"provider": "lab", "model": "large", "input_usd_per_million": 2.0, "output_usd_per_million": 8.0}
SMALL = {"provider": "lab", "model": "small", "joules_per_output_token": 0.1}


def version(*models: dict[str, object]) -> str:
    return factor_set(
        read_overrides({"providers": {"lab": {"kind": "openai", "zone": "FRA"}}, "models": list(models)}), None, "", 10
    ).version


def test_models_of_the_file_change_the_version_whatever_their_order() -> None:
    assert version(LARGE, SMALL) == version(SMALL, LARGE)
    assert len({version(), version(LARGE), version(SMALL), version(LARGE | {"input_usd_per_million": 3.0})}) == 4
