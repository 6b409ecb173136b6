"""The router: takes the public requests and leads each through cache, dispatch and ledger."""
