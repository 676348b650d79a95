"""SSCD's network against torchvision's layers and the published forward pass, written out."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torchvision.models import resnet50  # noqa: E402

from engine.models.checkpoints import random_weights  # noqa: E402
from engine.models.resnet import ResNet50Descriptor  # noqa: E402

pytestmark = pytest.mark.torch


def test_the_forward_pass_is_the_published_one() -> None:
    model = ResNet50Descriptor().eval()
    random_weights(model, seed=3)
    plain = resnet50(num_classes=512).eval()
    plain.load_state_dict({name.removeprefix("backbone."): value for name, value in model.state_dict().items()})
    frames = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = plain.maxpool(plain.relu(plain.bn1(plain.conv1(frames))))
        for layer in (plain.layer1, plain.layer2, plain.layer3, plain.layer4):
            features = layer(features)
        pooled = features.flatten(2).clamp(min=1e-6).pow(3).mean(dim=2).pow(1 / 3)
        torch.testing.assert_close(model(frames), plain.fc(pooled), rtol=1e-5, atol=1e-5)


def test_the_names_are_those_of_the_published_file() -> None:
    state = ResNet50Descriptor().state_dict()
    assert state["backbone.conv1.weight"].shape == (64, 3, 7, 7)
    assert state["backbone.layer4.2.bn3.running_var"].shape == (2048,)
    assert state["backbone.fc.weight"].shape == (512, 2048)
    assert len(state) == 320
