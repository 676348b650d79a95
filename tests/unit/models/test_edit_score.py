from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor, nn

from engine.models.checkpoints import random_weights
from engine.models.edit_score import EditScore, build_edit_score, build_frame_features
from tests.conftest import golden_root
from tests.golden_models import RELATIVE_ERROR, golden_names, load_golden_model, relative_error

pytestmark = pytest.mark.torch

FEATURES, WIDTH, HEADS, FRAMES = 10, 12, 3, 6
KINDS = ("weight", "bias")


@pytest.fixture(scope="module")
def model() -> EditScore:
    model = EditScore(
        feature_dim=FEATURES,
        hidden_dim=WIDTH,
        intermediate_dim=20,
        num_layers=2,
        num_heads=HEADS,
        max_frames=FRAMES,
        vocabulary_size=110,
        num_positions=16,
    )
    random_weights(model, seed=0)
    return model.eval()


def features(num_frames: int, *, zeros: tuple[int, ...] = ()) -> Tensor:
    rows = torch.randn(num_frames, FEATURES, generator=torch.Generator().manual_seed(num_frames))
    rows[list(zeros)] = 0
    return rows


def full_length_logit(model: EditScore, rows: Tensor) -> Tensor:
    """The reference in float64: all frames and tokens up to the maximum, hidden ones masked with minus infinity."""
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}
    padded = torch.cat((rows.double(), torch.zeros(FRAMES - len(rows), FEATURES)))
    projected = nn.functional.linear(padded, state["frame_proj.0.weight"], state["frame_proj.0.bias"])
    projected = nn.functional.layer_norm(
        projected, (WIDTH,), state["frame_proj.1.weight"], state["frame_proj.1.bias"], 1e-5
    )
    words = state["bert.embeddings.word_embeddings.weight"]
    tokens = torch.cat((words[101:102], projected, words[102:103]))
    tokens += state["bert.embeddings.position_embeddings.weight"][: len(tokens)]
    tokens += state["bert.embeddings.token_type_embeddings.weight"][0]
    norm = "bert.embeddings.LayerNorm."
    tokens = nn.functional.layer_norm(tokens, (WIDTH,), state[norm + "weight"], state[norm + "bias"], 1e-12)
    visible = torch.cat((torch.ones(2, dtype=torch.bool), padded.abs().sum(dim=1) > 0))
    for index in range(2):
        tokens = encoder_layer(state, f"bert.encoder.layer.{index}.")(
            tokens[None], src_key_padding_mask=~visible[None]
        )[0]
    mean = tokens[visible].sum(dim=0) / (visible.sum() + 1e-5)
    return nn.functional.linear(torch.cat((tokens[0], mean)), state["output_proj.weight"], state["output_proj.bias"])


def encoder_layer(state: dict[str, Tensor], prefix: str) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 20, activation="gelu", layer_norm_eps=1e-12, batch_first=True, dtype=torch.float64
    )
    parts = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
    pairs = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    values = {f"{name}.{kind}": state[f"{prefix}{ours}.{kind}"] for name, ours in pairs.items() for kind in KINDS}
    values |= {f"self_attn.in_proj_{kind}": torch.cat([state[f"{part}.{kind}"] for part in parts]) for kind in KINDS}
    layer.load_state_dict(values)
    return layer.eval()


@pytest.mark.parametrize("name", golden_names("video_score"))
@torch.no_grad()
def test_padded_videos_give_the_logits_of_the_reference(name: str) -> None:
    golden = load_golden_model(name)
    assert relative_error(golden.model.logits(golden.arrays["input"]), golden.arrays["output"]) < RELATIVE_ERROR


@pytest.mark.parametrize("name", golden_names("video_score"))
@torch.no_grad()
def test_videos_without_padding_give_the_scores_of_the_reference(name: str) -> None:
    golden = load_golden_model(name)
    for padded, num_frames, score in zip(
        golden.arrays["input"], golden.arrays["real_lengths"], golden.arrays["score"], strict=True
    ):
        assert not padded[num_frames:].any()
        assert relative_error(golden.model(padded[:num_frames]), score[None]) < RELATIVE_ERROR


@pytest.mark.parametrize(
    ("num_frames", "zeros"),
    [
        *[(num_frames, ()) for num_frames in range(1, FRAMES + 1)],
        (FRAMES, (0,)),
        (FRAMES, (2, 3)),
        (FRAMES, (FRAMES - 1,)),
        (4, (0, 2)),
        (4, (3,)),
        (1, (0,)),
    ],
)
@torch.no_grad()
def test_any_length_and_zero_frames_give_the_score_at_full_length(
    model: EditScore, num_frames: int, zeros: tuple[int, ...]
) -> None:
    rows = features(num_frames, zeros=zeros)
    expected = full_length_logit(model, rows)
    assert relative_error(model.logits(rows[None]).double(), expected) < RELATIVE_ERROR
    assert relative_error(model(rows).double(), expected.sigmoid()) < RELATIVE_ERROR


@torch.no_grad()
def test_only_a_video_of_the_maximal_length_sees_the_closing_token(model: EditScore) -> None:
    changed = copy.deepcopy(model)
    changed.bert.embeddings.word_embeddings.weight[102] *= -1
    full, shorter = features(FRAMES), features(FRAMES - 1)
    assert relative_error(changed.logits(full[None]), model.logits(full[None])) > 100 * RELATIVE_ERROR
    assert torch.equal(changed.logits(shorter[None]), model.logits(shorter[None]))


def test_batches_of_padded_videos_train_every_used_weight(model: EditScore) -> None:
    batch = torch.zeros(2, 5, FEATURES)
    batch[0, :3], batch[1] = features(3), features(5)
    model.logits(batch).sum().backward()
    unused = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    model.zero_grad()
    assert unused == {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}


@pytest.mark.parametrize("name", ["clip_vit_l14", "vsm"])
def test_tensors_are_those_of_the_reference_checkpoints(name: str) -> None:
    recorded = json.loads((golden_root() / "checkpoints" / f"{name}.json").read_text())
    with torch.device("meta"):
        model = build_edit_score("edit_score_bert") if name == "vsm" else build_frame_features()
    assert {key: list(tensor.shape) for key, tensor in model.state_dict().items()} == recorded["state_dict"]
    assert sum(parameter.numel() for parameter in model.parameters()) == recorded["parameter_elements"]
