"""Where the settings say that the books are, and what is said when they cannot be used."""

from pathlib import Path

from sqlalchemy.exc import DBAPIError

from services.ledger.engines import Place, server_url
from services.ledger.settings import LedgerSettings
from services.runtime.settings import SettingsError


def place_of(settings: LedgerSettings) -> Place:
    """Where the books are. Raises SettingsError for a URL that names no PostgreSQL."""
    if settings.database_url is None:
        return settings.database
    try:
        return server_url(settings.database_url)
    except ValueError as error:
        raise SettingsError([f"LEDGER_DATABASE_URL: {error}"]) from None


def unusable(place: Place, error: Exception) -> SettingsError:
    """What is wrong with a store, without a password."""
    if isinstance(place, Path):
        return SettingsError([f"LEDGER_DB_PATH={str(place)!r}: {cause_of(error)}"])
    return SettingsError([f"LEDGER_DATABASE_URL, database {place.database!r} of user {place.username!r}: {cause_of(error)}"])


def cause_of(error: Exception) -> str:
    said = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(said).split())
