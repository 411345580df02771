"""CT images of half a megabyte that deflate as real ones do: a body with organs in air, and a scanner's noise over all of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from receiving.loads import INSTANCE, LOADS, header

_SIDE: Final = 512
_SLICES: Final = 8  # different ones, used in turn
_AIR, _SOFT, _LUNG, _BONE = 24, 1064, 250, 1700
_NOISE: Final = 14.0  # Hounsfield units, as of a chest at a usual dose
_OUTSIDE: Final = 250  # radius of what the scanner reconstructs: nothing beyond it


def slices(seed: int = 1) -> list[bytes]:
    """The pixels, 12 of 16 bits."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:_SIDE, :_SIDE] - _SIDE // 2
    made = []
    for number in range(_SLICES):
        image = np.full((_SIDE, _SIDE), _AIR, float)
        image[_ellipse(x, y, 215, 160)] = _SOFT
        for side in (-1, 1):
            image[_ellipse(x - side * 95, y + 10, 70 - number, 105 - number)] = _LUNG
        image[_ellipse(x, y - 110, 22, 18)] = _BONE
        image += 25 * np.sin(x / 19 + number) * np.cos(y / 27)
        noise = random.normal(0, _NOISE, image.shape)
        noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / np.sqrt(3)  # neighbours share it: a reconstruction kernel
        image = np.where(_ellipse(x, y, _OUTSIDE, _OUTSIDE), image + noise, 0)
        made.append(np.clip(np.rint(image), 0, 4095).astype("<u2").tobytes())
    return made


def _ellipse(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    return (x / width) ** 2 + (y / height) ** 2 < 1


def build(folder: Path, count: int, per_study: int | None = None) -> list[Path]:
    """Write so many images, each with a UID of its own, in studies of `per_study` or in one."""
    return list(_built(folder, count, per_study or count))


def _built(folder: Path, count: int, per_study: int) -> Iterator[Path]:
    folder.mkdir()
    pixels = slices()
    for number in range(count):
        if number % per_study == 0:
            start, _ = header(LOADS["ct"], study=number // per_study + 1)
        path = folder / f"2.25.{10**8 + number}.dcm"
        uid = INSTANCE[:-9] + str(10**8 + number)
        path.write_bytes(start.replace(INSTANCE.encode(), uid.encode()) + pixels[number % _SLICES])
        yield path
