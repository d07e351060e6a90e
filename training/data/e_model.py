"""What listening tests said of bandwidth, codecs and lost packets: the ITU-T E-model.

Shares are of the range from the worst to undamaged speech: transmission ratings over that of undamaged speech.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jsqa_metric.bandwidth import bark

WIDE, NARROW = 129.0, 93.2
"""Ratings of undamaged wideband and narrowband speech: G.107.1, G.107."""
PASS_BANDS_HZ = (3400.0, 7000.0)
"""Where narrowband and wideband speech end."""
IMPAIRMENTS: dict[tuple[str, int], float] = {
    ("mu-law", 64000): WIDE - NARROW + 0,
    ("g726", 40000): WIDE - NARROW + 2,
    ("g726", 32000): WIDE - NARROW + 7,
    ("g726", 24000): WIDE - NARROW + 25,
    ("g726", 16000): WIDE - NARROW + 50,
    ("g723.1", 6300): WIDE - NARROW + 15,
    ("amr-nb", 12200): WIDE - NARROW + 5,
    ("g722", 64000): 13,
    ("amr-wb", 6600): 41,
    ("amr-wb", 8850): 26,
    ("amr-wb", 12650): 13,
    ("amr-wb", 14250): 10,
    ("amr-wb", 15850): 7,
    ("amr-wb", 18250): 5,
    ("amr-wb", 19850): 4,
    ("amr-wb", 23050): 1,
    ("amr-wb", 23850): 8,
}
"""Equipment impairment factors from listening tests, at no loss: G.113, appendices I (narrowband) and IV (wideband)."""
G729_IMPAIRMENT, G729_ROBUSTNESS = 11.0, 19.0
"""Of G.729A, whose decoder conceals lost packets: G.113, appendix I."""
SILENCE_ROBUSTNESS = 4.3
"""Packet-loss robustness factor of G.711 without concealment, where losses are silence: G.113, appendix I."""
MOST_IMPAIRED = 95.0


def band_share(bandwidth_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is left of the range when nothing is wrong but bandwidth: linear in Bark, all of it for wideband.

    >>> band_share(np.array([3400.0, 7000.0, 20000.0])).round(3)
    array([0.722, 1.   , 1.   ])
    """
    low, high = map(bark, PASS_BANDS_HZ)
    missing = (high - np.vectorize(bark)(bandwidth_hz)) / (high - low)
    return 1 - (1 - NARROW / WIDE) * np.maximum(missing, 0)


def loss_share(
    percent: NDArray[np.float64], robustness: float = SILENCE_ROBUSTNESS, impairment: float = 0.0
) -> NDArray[np.float64]:
    """What is left of the range of narrowband speech when packets get lost at random.

    Args:
        percent: How many.
        robustness: Packet-loss robustness factor of the codec and its concealment.
        impairment: By the codec alone.

    >>> loss_share(np.array([0.0, 1.0, 10.0])).round(3)
    array([1.   , 0.808, 0.287])
    """
    return 1 - (impairment + (MOST_IMPAIRED - impairment) * percent / (percent + robustness)) / NARROW
