"""The folded network against timm's, which normalizes each convolution, with the same ImageNet weights."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import timm  # noqa: E402

from engine.models.checkpoints import load_imagenet_lite, random_weights  # noqa: E402
from engine.models.efficientnet_lite import EfficientNetLite0, EfficientNetLiteDescriptor, fold_batch_norms  # noqa: E402
from engine.models.pooling import gem  # noqa: E402

pytestmark = pytest.mark.torch


def test_folded_random_weights_compute_what_timm_computes() -> None:
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0, global_pool="").eval()
    random_weights(reference, seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, buffer in reference.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2, generator=generator)
        elif name.endswith("running_mean"):
            buffer.normal_(generator=generator)
    model = EfficientNetLite0().eval()
    folded = fold_batch_norms(list(reference.state_dict().values()))
    model.load_state_dict(dict(zip(model.state_dict(), folded, strict=True)))
    for side_px in (145, 96):  # odd and even sides in front of each stride
        frames = torch.randn(2, 3, side_px, side_px, generator=generator)
        with torch.inference_mode():
            expected = reference(frames)
            assert expected.std() > 0.1
            torch.testing.assert_close(model(frames), expected, rtol=1e-4, atol=1e-4)


def test_imagenet_weights_fill_all_of_it() -> None:
    model = EfficientNetLite0()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_imagenet_lite(model)
    assert all(not torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_descriptor_is_a_projection_of_pooled_features() -> None:
    model = EfficientNetLiteDescriptor().eval()
    frames = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = gem(model.backbone(frames), dim=(2, 3)) @ model.projection.weight.T + model.projection.bias
        torch.testing.assert_close(model(frames), expected)
    assert model(frames).shape == (2, 512)
    assert sum(parameter.numel() for parameter in model.parameters()) < 5_000_000


@pytest.mark.parametrize("shapes", [[(4, 3, 1, 1), (4,), (4,), (4,), (4,)], [(4, 3, 1, 1)] + [(5,)] * 4 + [()]])
def test_tensors_that_are_no_normalized_convolutions_are_an_error(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="expected"):
        fold_batch_norms([torch.ones(shape) for shape in shapes])
