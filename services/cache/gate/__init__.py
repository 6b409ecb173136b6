"""The gate of the semantic tier: a neighbour's answer serves only when every difference between the two texts is explained."""

from services.cache.gate.analysis import Analysis, analyse
from services.cache.gate.comparison import compare
from services.cache.gate.numerals import Numerals, differ_in_numbers_only, numerals
from services.cache.gate.rule import Rule

__all__ = ["Analysis", "Numerals", "Rule", "analyse", "compare", "differ_in_numbers_only", "numerals"]
