"""``vsc-engine fit-pca``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.console import say


def fit_pca(
    descriptors: Annotated[str, typer.Argument(help="Raw embeddings: store (folder or URL) or .npz (extract).")],
    engines: Annotated[Path, typer.Option(help="Engines directory to fold the PCA into.")],
    num_components: Annotated[int | None, typer.Option(min=1, help="Default: the preset's.")] = None,
) -> None:
    """Fit a PCA on raw embeddings and fold it into the ensemble engine.

    Example: vsc-engine fit-pca out/norm_set --engines engines/
    """
    import numpy as np

    from engine import projection
    from engine.build.engines import set_pca
    from engine.runtime.engines_directory import EnginesDirectory
    from engine.storage.location import location
    from engine.store.store import read_descriptors

    preset = EnginesDirectory.open(engines).manifest.preset
    rows = np.concatenate([item.descriptors for item in read_descriptors(location(descriptors))])
    pca = projection.fit_pca(rows, num_components=num_components or preset.pca.num_components)
    set_pca(engines, pca)
    say(f"PCA of {rows.shape[1]} to {len(pca.components)} dimensions, fitted on {len(rows)} rows, is in {engines}")
