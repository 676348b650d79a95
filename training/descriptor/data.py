"""The batches of descriptor training: which pictures each step shows, as which views. Knows nothing of models.

All that is random about a picture depends on the seed, the step and its place in the batch alone. So neither the
number of workers nor a restart changes what a step sees, and ranks share one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.descriptor.annotated_pairs import AnnotatedPairSource
from training.descriptor.views import Views, easy_view, fit
from training.footage.resizing import Frame
from training.store.frame_store import FrameStore, video_and_slot

MAX_OTHERS = 8
"""How many pictures two views can have mixed in; further ones are not remembered."""


@dataclass(frozen=True)
class Item:
    """A picture of a step: its place in the batch of all ranks, its position in the store (annotated pair: -1)."""

    step: int
    place: int
    index: int
    input_px: int


@dataclass(frozen=True)
class Batch:
    """``views``: uint8 ``(2N, px, px, 3)``, first views then second views.

    ``groups``: int64 ``(N, 1 + MAX_OTHERS)``, of each picture and of those that were mixed into one of its views, -1
    where there are fewer.
    """

    views: Tensor
    groups: Tensor


class PlannedBatches(Sampler[list[Item]]):
    """The items of this rank for each step from ``first_step`` on.

    Every ``num_pictures // batch`` steps go through all pictures in a new order. The first ``num_annotated`` places of
    a batch are annotated pairs.
    """

    def __init__(
        self,
        pictures: NDArray[np.int64],
        *,
        pairs_per_rank: int,
        rank: int,
        world_size: int,
        num_annotated: int,
        sizes_px: Sequence[int],
        seed: int,
        first_step: int,
    ) -> None:
        self._pictures = pictures
        self._pairs_per_rank, self._rank = pairs_per_rank, rank
        self._num_annotated = num_annotated
        self._num_drawn = pairs_per_rank * world_size - num_annotated
        self._sizes_px = sizes_px
        self._seed, self._first_step = seed, first_step

    def __len__(self) -> int:
        return len(self._sizes_px) - self._first_step

    def __iter__(self) -> Iterator[list[Item]]:
        steps_per_epoch = max(1, len(self._pictures) // max(1, self._num_drawn))
        for step in range(self._first_step, len(self._sizes_px)):
            epoch, part = divmod(step, steps_per_epoch)
            order = np.random.default_rng([self._seed, epoch]).permutation(self._pictures)
            drawn = order[part * self._num_drawn : (part + 1) * self._num_drawn]
            indices = np.concatenate([np.full(self._num_annotated, -1), drawn])
            start = self._rank * self._pairs_per_rank
            yield [
                Item(step, place, int(indices[place]), self._sizes_px[step])
                for place in range(start, start + self._pairs_per_rank)
            ]


Pair = tuple[Frame, Frame, list[int]]
"""Two views, and the groups of what they show: the picture's own comes first."""


class ViewPairs(Dataset[Pair]):
    """Draws the two views of an item, and the groups of what they show."""

    def __init__(
        self,
        store: FrameStore,
        pictures: NDArray[np.int64],
        views: Views,
        groups: NDArray[np.int64],
        *,
        annotated: AnnotatedPairSource | None,
        seed: int,
    ) -> None:
        self._store, self._pictures, self._views = store, pictures, views
        self._groups, self._annotated, self._seed = groups, annotated, seed

    def __getitem__(self, item: Item) -> Pair:
        rng = np.random.default_rng([self._seed, item.step, item.place])
        if item.index < 0:
            if self._annotated is None:
                raise ValueError("an annotated pair is asked for, but there is no ground truth")
            query, ref = self._annotated.draw(rng)
            # Nearly native, because the query has been edited already.
            first, second = (fit(easy_view(rng, self._store.picture(index)), item.input_px) for index in (query, ref))
            return first, second, [int(self._groups[ref])]
        shown = [int(self._groups[item.index])]

        def other() -> Frame:
            index = int(self._pictures[rng.integers(len(self._pictures))])
            shown.append(int(self._groups[index]))
            return self._store.picture(index)

        first, second = self._views.draw(rng, self._store.picture(item.index), other, input_px=item.input_px)
        return first, second, shown


def load_batches(dataset: ViewPairs, batches: PlannedBatches, *, num_workers: int) -> DataLoader[Pair]:
    """Batches in the order of the plan, made by ``num_workers`` processes (0: in this one)."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=num_workers,
        worker_init_fn=_one_thread,
        prefetch_factor=4 if num_workers else None,
        persistent_workers=False,
        multiprocessing_context="spawn" if num_workers else None,
    )


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _collate(items: list[Pair]) -> Batch:
    firsts, seconds, shown = zip(*items, strict=True)
    groups = torch.full((len(items), 1 + MAX_OTHERS), -1, dtype=torch.int64)
    for row, numbers in zip(groups, shown, strict=True):
        kept = numbers[: len(row)]
        row[: len(kept)] = torch.tensor(kept)
    return Batch(torch.from_numpy(np.stack([*firsts, *seconds])), groups)


def group_names(names: Sequence[str], *, same: Sequence[tuple[str, str]] = ()) -> NDArray[np.int64]:
    """A number for each picture that is equal for what must not be told apart: pictures of one video.

    Names of a video's pictures end in a slot, ``clips/V0001/000007``. ``same``: pairs of video ids that are one group,
    such as those of the ground truth; a picture file counts by its name. Returns int64 ``(len(names),)``.
    """
    parents: dict[str, str] = {}

    def root(key: str) -> str:
        while parents.setdefault(key, key) != key:
            key = parents[key]
        return key

    for first, second in same:
        parents[root(first)] = root(second)
    keys = [root(video_of(name) or name) for name in names]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=np.int64)


def video_of(name: str) -> str | None:
    """The video id in the name of a video's picture; None for a picture file."""
    shown = video_and_slot(name)
    return None if shown is None else shown[0]
