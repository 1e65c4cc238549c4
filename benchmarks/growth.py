"""How time grows with what there is: the exponent e of seconds ~ size ** e."""

import math


def exponent(small: tuple[float, float], large: tuple[float, float]) -> float:
    """Return the exponent between two measurements, each a size and its seconds."""
    return round(math.log(large[1] / small[1]) / math.log(large[0] / small[0]), 3)
