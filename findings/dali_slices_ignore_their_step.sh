#!/usr/bin/env bash
# nvidia-dali 2.4.0, dynamic mode: a slice with a step gives other pictures than it says.
#
# tensor[0:16:2] of a stack of 16 pictures has the right shape, 8 pictures, but these are pictures 0 to 7, not 0, 2, ...,
# 14; tensor[1:16:2] is 1 to 8. Nothing is raised. Small tensors (6 x 4, 16 x 40) come out right, so that a test on a toy
# array passes; a stack of 16 x 40 x 80 does not. sequence_rearrange with the numbers of the pictures is right.
#
# Seen with: nvidia-dali 2.4.0 (CPU device, no GPU needed), numpy 2.4.6, Python 3.11
#   (6, 4) right
#   (16, 40, 80) pictures [0, 1, 2, 3, 4, 5, 6, 7] in place of [0, 2, 4, 6, 8, 10, 12, 14]
#   sequence_rearrange right
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet nvidia-dali-cuda130==2.4.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import nvidia.dali
import nvidia.dali.experimental.dynamic as ndd

assert nvidia.dali.__version__ == "2.4.0", nvidia.dali.__version__
random = np.random.default_rng(0)
small = random.integers(0, 255, (6, 4), np.uint8)
large = random.integers(0, 255, (16, 40, 80), np.uint8)
with ndd.EvalContext():
    found = np.asarray(ndd.as_tensor(small)[0:6:2].cpu())
    assert np.array_equal(found, small[::2])
    print("(6, 4) right")
    found = np.asarray(ndd.as_tensor(large)[0:16:2].cpu())
    numbers = [number for one in found for number in range(16) if np.array_equal(one, large[number])]
    print("(16, 40, 80) pictures", numbers, "in place of", list(range(0, 16, 2)))
    assert numbers == list(range(8)), "slices heed their step now"
    order = list(range(0, 16, 2))
    found = np.asarray(ndd.sequence_rearrange(ndd.as_tensor(large), new_order=order).cpu())
    assert np.array_equal(found, large[::2])
    print("sequence_rearrange right")
PYTHON
