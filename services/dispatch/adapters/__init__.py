"""Dialects of providers: pure, one file each."""
