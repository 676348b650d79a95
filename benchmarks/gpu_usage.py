"""How busy a GPU's decoders (NVDEC) and multiprocessors are while a block runs, as `nvidia-smi` tells. GPU 0 only."""

from __future__ import annotations

import subprocess
import threading
from typing import Self

_QUERY = ("nvidia-smi", "--query-gpu=utilization.decoder,utilization.gpu", "--format=csv,noheader,nounits", "--id=0")
_INTERVAL_S = 0.5


def parse(line: str) -> tuple[float, float]:
    """Percent of NVDEC and of the multiprocessors from a line of `nvidia-smi`; ``ValueError`` for any other line."""
    decoder, multiprocessors = line.split(",")
    return float(decoder), float(multiprocessors)


class GpuUsage:
    """Samples GPU 0 while its block runs. Raises ``OSError`` on entry where there is no `nvidia-smi`."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._sample()
        self._samples.clear()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def figures(self) -> dict[str, float]:
        """Mean percent over the samples."""
        count = max(1, len(self._samples))
        nvdec, multiprocessors = (sum(values) / count for values in zip(*(self._samples or [(0.0, 0.0)]), strict=True))
        return {"num_samples": len(self._samples), "nvdec_percent": nvdec, "sm_percent": multiprocessors}

    def summary(self) -> str:
        """One line for people."""
        found = self.figures()
        return (
            f"GPU while DALI decodes: NVDEC {found['nvdec_percent']:.0f}% busy, multiprocessors "
            f"{found['sm_percent']:.0f}% ({found['num_samples']:.0f} samples)"
        )

    def _watch(self) -> None:
        while not self._stopped.wait(_INTERVAL_S):
            self._sample()

    def _sample(self) -> None:
        answer = subprocess.run(_QUERY, capture_output=True, text=True, check=True).stdout
        self._samples.append(parse(answer.splitlines()[0]))
