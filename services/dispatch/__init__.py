"""Calls providers: adapters, attempts, and what is known of each provider."""
