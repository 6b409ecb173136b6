"""Two grids as they were: grams of CO2e for each kilowatt hour, by the hour, from 13 April 2020, 06:00 UTC.

Generation by fuel is the U.S. Energy Information Administration's (Hourly Electric Grid Monitor, balancing authorities CISO and ERCO;
public domain). Weighted by the life-cycle medians of IPCC AR5 WG3 annex III: coal 820, gas 490, nuclear 12, hydro 24, utility solar 48,
wind 11; oil 650. CISO's hours are without hydro and imports, which are not in its figures.
"""

# fmt: off
CALIFORNIA = (
    288, 289, 281, 238, 226, 226, 247, 265, 251, 180, 160, 138, 133, 131, 128, 129, 123, 139, 153, 201, 300, 315, 289, 279,
    277, 282, 295, 318, 329, 331, 326, 334, 288, 181, 151, 143, 142, 147, 142, 144, 143, 156, 182, 236, 366, 381, 376, 359,
)
TEXAS = (
    237, 241, 244, 245, 249, 255, 283, 320, 317, 307, 351, 378, 402, 420, 435, 441, 442, 431, 405, 388, 381, 349, 318, 301,
    292, 294, 308, 323, 334, 350, 376, 400, 418, 433, 435, 438, 447, 447, 443, 442, 437, 435, 444, 467, 477, 456, 423, 409,
)
# fmt: on
