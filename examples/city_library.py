"""Write a folder of small checkpoints, and make the library of the scenario city-center of it.

Twelve apps of a city share three backbones. Each fine-tunes the upper layers and has a head of its
own, so the lower layers are the same bytes in every checkpoint of a backbone, which is how finecast
finds what can be stored and sent once. The weights are made up; only sizes and sharing matter.

    python examples/city_library.py library.json                   # 1.7 GB in a temporary folder
    python examples/city_library.py small.json --scale 0.01        # a hundredth of that
    finecast library --from-checkpoints FOLDER -o library.json     # the same for your own models
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from finecast import write_library
from finecast.problem.checkpoints import library_from_checkpoints

BACKBONES = {
    "translate": (8, 22.0, ("french", "spanish", "italian", "turkish", "japanese")),
    "vision": (6, 20.0, ("museum-guide", "street-signs", "menus", "plants")),
    "speech": (4, 24.0, ("transit-desk", "tour-guide", "city-hall")),
}
"""Of each backbone: layers, MB of a layer, apps."""

OWN_LAYERS = 2
"""So many of the upper layers are fine-tuned."""

HEAD_MB = 4.0


def write_checkpoints(folder: Path, scale: float) -> None:
    """Write one folder of weights for each app, as training tools leave them."""
    for number, (backbone, (layers, megabytes, apps)) in enumerate(BACKBONES.items()):
        for app_number, app in enumerate(apps):
            own = np.random.default_rng([number, app_number + 1])
            shared = np.random.default_rng([number, 0])  # the same bytes in every app
            tensors = {}
            for layer in range(layers):
                source = own if layer >= layers - OWN_LAYERS else shared
                tensors[f"layers.{layer}.weight"] = _weights(source, megabytes * scale)
            tensors["head.weight"] = _weights(own, HEAD_MB * scale)
            home = folder / f"{backbone}-{app}"
            home.mkdir()
            (home / "config.json").write_text(json.dumps({"model_type": backbone}))
            save_file(tensors, home / "model.safetensors")


def _weights(rng: np.random.Generator, megabytes: float) -> np.ndarray:
    """Return float16 weights that take so many MB."""
    bits = rng.integers(0, 2**16, max(1, int(megabytes * 1e6 / 2)), dtype=np.uint16)
    return bits.view(np.float16)


def main() -> None:
    """Write checkpoints to a temporary folder and their library to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoints(Path(folder), given.scale)
        library = library_from_checkpoints(folder)
    write_library(given.output, library)
    print(f"{given.output}: {library.models} models, {library.blocks} blocks")


if __name__ == "__main__":
    main()
