"""The four services in one process: the cheapest form, with the same code and no sockets between them."""

import sys

from services.cache.__main__ import build as build_cache
from services.cache.settings import CacheSettings
from services.dispatch.__main__ import build as build_dispatch
from services.dispatch.settings import DispatchSettings
from services.ledger.__main__ import build as build_ledger
from services.ledger.settings import LedgerSettings
from services.router.__main__ import build as build_router
from services.router.settings import RouterSettings
from services.runtime import app


def main() -> int:
    # Left in reverse order: the router's last settlements find the ledger still there.
    return app.run_together(
        [
            (LedgerSettings, build_ledger),
            (CacheSettings, build_cache),
            (DispatchSettings, build_dispatch),
            (RouterSettings, build_router),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
