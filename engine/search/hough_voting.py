"""Localizes copies by lines in time: which seconds of a query show which seconds of a reference, how fast, which way.

A copied segment plays the reference at one speed, so its rows lie on a line ``reference = speed * query + offset``.
Temporal Hough voting (Douze et al., "An image-based approach to video copy detection with spatio-temporal
post-filtering", IEEE TMM 2010) finds such lines: a query row and a reference row that is similar to it vote for the
offset between them, here once for each of a few speeds. Evidence is a similarity less what unrelated rows reach. It is
summed up along the lines with most votes, and the segment is where that sum is largest. What is missing to the most
similar row of the reference is taken off first: of lines through footage that hardly changes the right one then has the
largest sum. Its cells are taken out and the next one is looked for, so that each showing of an excerpt is found.

Sampled frames are a second apart. Where the cuts of the videos are known (`engine.video.cuts`) a segment begins and
ends with the shot of the query that its first and last rows belong to, and cuts that both videos have tell the offset
between them; without such, the rows of the reference before and behind the line tell it, by how similar they are.

A query has rows of scenes, shots and insets beside those of whole frames: at each time the most similar one counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import HoughVoting
from engine.projection import l2_normalize
from engine.records import Descriptors, FloatArray, Match

_DEFAULT = HoughVoting()
_BLOCK_ROWS = 256
_MAX_CELLS = 64_000_000
_MAX_TIMES = 200_000
_BINS_PER_INTERVAL = 2
_LINES_PER_SPEED = 3
SAME_SHARE = 0.5
"""Of the shorter of two intervals: from so much in common on they are the same seconds."""
_TAKEN = np.float32(8.0)
"""More than any evidence, so that what it was can be told."""
_MAX_SHIFT = 0.6
"""Of an interval: how far off the times of sampled frames, and offsets that rows tell, may be."""
_MAX_LONE_SHIFT = 0.4
"""The same where one cut alone says so."""
_STILL_EVIDENCE, _FEW_ROWS = 0.02, 2
"""Where rows beside a line differ by no more, the footage hardly moves, and they tell little; so do few rows."""
_SAME_CUT_S = 0.07
"""Frames that need not be decoded are left out."""
_TIME_DECIMALS = 3

Times = NDArray[np.float64]
Indices = NDArray[np.intp]


class _Line(NamedTuple):
    """``reference time = speed * query time + offset_s`` from query time ``first`` to ``last`` (indices, included)."""

    speed: float
    offset_s: float
    first: int
    last: int
    columns: Indices
    evidence: FloatArray
    weighted_sum: float

    def part(self, start: int, stop: int) -> _Line:
        """Its rows from ``start`` to before ``stop``, counted from its first one."""
        return self._replace(
            first=self.first + start,
            last=self.first + stop - 1,
            columns=self.columns[start:stop],
            evidence=self.evidence[start:stop],
        )


@dataclass(frozen=True, eq=False)
class _Plane:
    """How similar the times of a query, ``(T,)``, are to those of a reference, ``(U,)``.

    ``is_held``, ``(T,)``: the query still shows what it showed the time before.
    ``evidence``: float32 ``(T, U)``, similarity above that of unrelated rows; less `_TAKEN` where a segment used it.
    """

    query_s: Times
    ref_s: Times
    interval_s: float
    query_end_s: float
    is_held: NDArray[np.bool_]
    evidence: FloatArray


def localize(query: Descriptors, reference: Descriptors, *, settings: HoughVoting = _DEFAULT) -> list[Match]:
    """Find the segments that a pair of videos with descriptors of one dimension shares.

    A segment begins at the start of its first row and ends at the end of its last one in the query; in the reference,
    where the line is then, within the video. Of two segments that share more than half of the shorter one in both
    videos the one with more evidence is kept. Where both videos are very long (the product of their times is above
    `_MAX_CELLS`) the query is taken in parts, for bounded memory, and a segment ends with its part.
    """
    # References keep a row for each sampled frame; a query may have one for a minute in which nothing moves.
    interval_s = _interval_s(reference)
    shown, referred = (_rows_by_time(video, interval_s) for video in (query, reference))
    part_times = max(1, _MAX_CELLS // len(referred.starts_s))
    matches: list[Match] = []
    for start in range(0, len(shown.starts_s), part_times):
        part = shown.part(start, start + part_times)
        plane = _plane(query, part, reference, referred, interval_s=interval_s, settings=settings)
        matches.extend(_localize(plane, query, reference, settings))
    return matches


def _localize(plane: _Plane, query: Descriptors, reference: Descriptors, settings: HoughVoting) -> list[Match]:
    min_rows = min(settings.min_rows, *plane.evidence.shape)
    matches: list[Match] = []
    for _ in range(settings.max_lines):
        line = _best_line(plane, settings)
        if line is None:
            break
        exact = line._replace(offset_s=_exact_offset_s(line, plane, query, reference))
        _take_out(line, plane)
        if np.count_nonzero(line.evidence > 0) < min_rows:
            continue
        match = _match(_inside(exact, plane, reference), plane, query, reference, settings)
        if match.ref_end_s > match.ref_start_s and not any(_outdoes(other, match, settings) for other in matches):
            matches.append(match)
    return matches


class _Shown(NamedTuple):
    """What a video shows at which time: ``starts_s``, ``(T,)``, rising, from ``interval_s`` to the next at least;
    ``rows``: those shown at them, time by time; ``first``: where those of each time begin; ``is_held``, ``(T,)``: none
    of them begins there; ``end_s``: of the last."""

    starts_s: Times
    rows: Indices
    first: Indices
    is_held: NDArray[np.bool_]
    end_s: float

    def part(self, start: int, stop: int) -> _Shown:
        """The times from ``start`` to before ``stop``."""
        bounds = [*self.first.tolist(), len(self.rows)]
        stop = min(stop, len(self.starts_s))
        end_s = float(self.starts_s[stop]) if stop < len(self.starts_s) else self.end_s
        rows = self.rows[bounds[start] : bounds[stop]]
        first = self.first[start:stop] - bounds[start]
        return _Shown(self.starts_s[start:stop], rows, first, self.is_held[start:stop], end_s)


def _interval_s(video: Descriptors) -> float:
    """Time from one sampled frame to the next; one second where there is one instant, which does not tell."""
    steps_s = np.diff(np.unique(video.timestamps.astype(np.float64)))
    return float(np.median(steps_s)) if len(steps_s) else 1.0


def _rows_by_time(video: Descriptors, interval_s: float) -> _Shown:
    """Each row at all times that it stands for; where that claims more than `_MAX_TIMES`, at its start alone."""
    starts_s, ends_s = video.timestamps.astype(np.float64).T
    claimed = np.maximum(1.0, np.rint((ends_s - starts_s) / interval_s))
    num_times = np.where(claimed.sum() <= _MAX_TIMES, claimed, 1.0).astype(np.intp)
    rows = np.repeat(np.arange(len(video)), num_times)
    nth = np.arange(len(rows)) - np.repeat(np.cumsum(num_times) - num_times, num_times)
    shown_s = np.round(starts_s[rows] + nth * interval_s, _TIME_DECIMALS)
    order = np.argsort(shown_s, kind="stable")
    times_s, first = np.unique(shown_s[order], return_index=True)
    is_held = np.logical_and.reduceat(nth[order] > 0, first)
    return _Shown(times_s, rows[order], first, is_held, video.duration_s)


def _plane(
    query: Descriptors,
    shown: _Shown,
    reference: Descriptors,
    referred: _Shown,
    *,
    interval_s: float,
    settings: HoughVoting,
) -> _Plane:
    query_rows, ref_rows = (
        l2_normalize(video.descriptors) if settings.similarity == "cosine" else video.descriptors
        for video in (query, reference)
    )
    num_times = len(shown.starts_s)
    evidence = np.empty((num_times, len(referred.starts_s)), dtype=np.float32)
    for start in range(0, num_times, _BLOCK_ROWS):
        block = shown.part(start, start + _BLOCK_ROWS)
        rows, position = np.unique(block.rows, return_inverse=True)
        similarity = (query_rows[rows] @ ref_rows.T)[position][:, referred.rows]
        similarity = np.maximum.reduceat(similarity, block.first, axis=0)
        evidence[start : start + _BLOCK_ROWS] = np.maximum.reduceat(similarity, referred.first, axis=1)
    evidence -= np.float32(settings.unrelated_similarity)
    return _Plane(shown.starts_s, referred.starts_s, interval_s, shown.end_s, shown.is_held, evidence)


def _best_line(plane: _Plane, settings: HoughVoting) -> _Line | None:
    """The line with the largest sum of evidence, of those with most votes; None where it is too small."""
    cells = _voting_cells(plane.evidence, settings.votes_per_row)
    if len(cells[0]) == 0:
        return None
    speeds = np.array([1.0, *settings.other_speeds])
    offsets_s = [_voted_offsets_s(plane, cells, speed) for speed in speeds.tolist()]
    # Where a picture stands still votes are cast at random; whole videos begin or end together.
    together_s = plane.ref_s[[0, -1]] - plane.query_s[[0, -1]]
    offsets_s[0] = np.concatenate([together_s, offsets_s[0]])
    speed = np.repeat(speeds, [len(offsets) for offsets in offsets_s])
    best = _strongest_run(plane, speed, np.concatenate(offsets_s), settings)
    if best.weighted_sum < settings.min_evidence:
        return None
    return _strongest_part(best, plane.query_s, settings.max_gap_s)


def _voting_cells(evidence: FloatArray, votes_per_row: int) -> tuple[Indices, Indices]:
    """The cells of most evidence in each row, at most ``votes_per_row``, where there is some."""
    count = min(votes_per_row, evidence.shape[1])
    blocks = [evidence[start : start + _BLOCK_ROWS] for start in range(0, len(evidence), _BLOCK_ROWS)]
    columns = np.concatenate([np.argpartition(block, -count, axis=1)[:, -count:] for block in blocks]).ravel()
    rows = np.repeat(np.arange(len(evidence)), count)
    has_evidence = evidence[rows, columns] > 0
    return rows[has_evidence], columns[has_evidence]


def _voted_offsets_s(plane: _Plane, cells: tuple[Indices, Indices], speed: float) -> Times:
    """The offsets with most votes at this speed, weighted with evidence; a vote counts for the bins beside it too."""
    rows, columns = cells
    width_s = plane.interval_s / _BINS_PER_INTERVAL
    bins = np.rint((plane.ref_s[columns] - speed * plane.query_s[rows]) / width_s).astype(np.intp)
    lowest = int(bins.min())
    weights = np.bincount(bins - lowest, weights=plane.evidence[rows, columns])
    votes = np.convolve(weights, (0.5, 1.0, 0.5))[1:-1]
    most = np.argsort(-votes, kind="stable")[:_LINES_PER_SPEED]
    return np.asarray((most + lowest) * width_s, dtype=np.float64)


def _strongest_run(plane: _Plane, speed: Times, offset_s: Times, settings: HoughVoting) -> _Line:
    """Of lines, ``(L,)``, the run of query times that has the largest sum of evidence."""
    ref_s = speed[:, None] * plane.query_s + offset_s[:, None]
    columns = _nearest(plane.ref_s, ref_s)
    evidence = _along(plane.evidence, columns, settings)
    sharp = _sharpened(evidence, plane.evidence.max(axis=1), settings)
    is_outside = (ref_s < plane.ref_s[0] - plane.interval_s / 2) | (ref_s > plane.ref_s[-1] + plane.interval_s / 2)
    sharp[is_outside] = -np.inf
    # A picture that stands still says nothing of a speed.
    says_nothing = np.ix_(speed != 1.0, plane.is_held)
    sharp[says_nothing] = np.minimum(sharp[says_nothing], 0.0)
    sums, firsts = _running_sums(sharp)
    weights = np.where(speed == 1.0, 1.0, settings.other_speed_weight)
    sums *= weights[:, None]
    line, last = map(int, np.unravel_index(int(sums.argmax()), sums.shape))
    first = int(firsts[line, last])
    run = slice(first, last + 1)
    return _Line(
        speed=float(speed[line]),
        offset_s=float(offset_s[line]),
        first=first,
        last=last,
        columns=columns[line, run],
        evidence=evidence[line, run],
        weighted_sum=float(weights[line] * evidence[line, run].sum()),
    )


def _strongest_part(line: _Line, query_s: Times, max_gap_s: float) -> _Line:
    """Of the parts between longer gaps without evidence the one with the largest sum."""
    is_evident = np.flatnonzero(line.evidence > 0)
    gaps_s = np.diff(query_s[line.first + is_evident])
    if len(gaps_s) == 0:
        return line
    ends = np.flatnonzero(gaps_s - np.median(np.diff(query_s)) > max_gap_s) + 1
    if len(ends) == 0:
        return line
    parts = [slice(int(part[0]), int(part[-1]) + 1) for part in np.split(is_evident, ends)]
    part = max(parts, key=lambda part: float(line.evidence[part].sum()))
    return line.part(part.start, part.stop)


def _nearest(sorted_values: Times, values: Times) -> Indices:
    right = np.clip(np.searchsorted(sorted_values, values), 1, max(len(sorted_values) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(sorted_values) - 1)
    return np.where(values - sorted_values[left] <= sorted_values[right] - values, left, right)


def _along(evidence: FloatArray, columns: Indices, settings: HoughVoting) -> FloatArray:
    """Evidence of cells ``(L, T)``, or of the row before or behind it in the reference for a small loss."""
    times = np.arange(len(evidence))
    beside = [evidence[times, np.clip(columns + shift, 0, evidence.shape[1] - 1)] for shift in (-1, 1)]
    best = np.maximum(evidence[times, columns], np.maximum(*beside) - np.float32(settings.beside_loss))
    return np.maximum(best, np.float32(-settings.max_loss))


def _sharpened(evidence: FloatArray, most: FloatArray, settings: HoughVoting) -> FloatArray:
    """Evidence ``(L, T)`` less what is missing to the ``most`` that each time has in the reference, ``(T,)``."""
    missing = np.maximum(most, 0) - np.maximum(evidence, 0)
    loss = np.float32(settings.off_peak_loss) * np.maximum(missing, 0)
    return np.asarray(np.maximum(evidence - loss, np.float32(-settings.max_loss)))


def _running_sums(evidence: FloatArray) -> tuple[Times, Indices]:
    """The largest sum of a run that ends at each time, and where that run begins (Kadane), for ``(L, T)``."""
    num_lines, num_times = evidence.shape
    sums, firsts = np.empty((num_lines, num_times)), np.empty((num_lines, num_times), dtype=np.intp)
    running, first = np.zeros(num_lines), np.zeros(num_lines, dtype=np.intp)
    for time in range(num_times):
        starts_anew = running <= 0
        running = np.where(starts_anew, 0.0, running) + evidence[:, time]
        first = np.where(starts_anew, time, first)
        sums[:, time], firsts[:, time] = running, first
    return sums, firsts


def _exact_offset_s(line: _Line, plane: _Plane, query: Descriptors, reference: Descriptors) -> float:
    """The offset of a line to a fraction of an interval, from cuts that both videos have or from rows beside it."""
    offset_s = _offset_by_rows_s(line, plane)
    start_s, end_s = _ends_s(line, plane, query)
    query_s, ref_s = (np.array((video.shot_ends_s or ())[:-1]) for video in (query, reference))
    # Where the copy is cut in and out the reference goes on.
    query_s = query_s[(start_s + _SAME_CUT_S < query_s) & (query_s < end_s - _SAME_CUT_S)]
    shifts_s = _differences(ref_s, line.speed * query_s + offset_s, limit=_MAX_SHIFT * plane.interval_s)
    num_same = np.diff(np.searchsorted(shifts_s, [shifts_s - _SAME_CUT_S, shifts_s + _SAME_CUT_S]), axis=0)[0]
    # Two cuts may lie to one another as others do by chance.
    is_told = (num_same > 1) | (np.abs(shifts_s) <= _MAX_LONE_SHIFT * plane.interval_s)
    shifts_s, num_same = shifts_s[is_told], num_same[is_told]
    return offset_s + float(shifts_s[np.lexsort((np.abs(shifts_s), -num_same))[0]]) if len(shifts_s) else offset_s


def _differences(sorted_values: Times, values: Times, *, limit: float) -> Times:
    """All differences of two values that are at most ``limit``, sorted; those of many are few."""
    first, end = (np.searchsorted(sorted_values, values + shift) for shift in (-limit, limit))
    counts = end - first
    places = np.repeat(first, counts) + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(sorted_values[places] - np.repeat(values, counts))


def _offset_by_rows_s(line: _Line, plane: _Plane) -> float:
    """Where the similarity of rows on the line, and before and behind it in the reference, has its center."""
    if line.speed != 1:
        return line.offset_s
    times = np.arange(line.first, line.last + 1)
    shifts = np.arange(-2, 3)
    columns = line.columns[:, None] + shifts
    is_inside = (columns >= 0) & (columns < len(plane.ref_s))
    evidence = plane.evidence[times[:, None], np.clip(columns, 0, len(plane.ref_s) - 1)]
    evidence = np.where(evidence < -_TAKEN / 2, evidence + _TAKEN, evidence)
    weights = np.where(is_inside, np.maximum(evidence, 0), 0).sum(axis=0) / np.maximum(is_inside.sum(axis=0), 1)
    weights = (weights - weights.min())[1:-1]
    on_line_s = float(np.median(plane.ref_s[line.columns] - plane.query_s[times]))
    if not weights.any():
        return line.offset_s
    center_s = on_line_s + plane.interval_s * float(shifts[1:-1] @ weights / weights.sum())
    confidence = weights.sum() / (weights.sum() + _STILL_EVIDENCE) * len(times) / (len(times) + _FEW_ROWS)
    return float(line.offset_s + confidence * (center_s - line.offset_s))


def _take_out(line: _Line, plane: _Plane) -> None:
    """Lower the cells on the line and beside it, so that the next line is another one."""
    times = np.arange(line.first, line.last + 1)
    for shift in (-1, 0, 1):
        columns = np.clip(line.columns + shift, 0, len(plane.ref_s) - 1)
        evidence = plane.evidence[times, columns]
        plane.evidence[times, columns] = np.where(evidence < -_TAKEN / 2, evidence, evidence - _TAKEN)


def _inside(line: _Line, plane: _Plane, reference: Descriptors) -> _Line:
    """The line without rows at its ends that lie, at the exact offset, wholly outside the reference."""
    ref_s = line.speed * plane.query_s[line.first : line.last + 1] + line.offset_s
    inside = np.flatnonzero((ref_s > plane.ref_s[0] - plane.interval_s) & (ref_s < reference.duration_s))
    if len(inside) == 0:
        return line
    return line.part(int(inside[0]), int(inside[-1]) + 1)


def _match(line: _Line, plane: _Plane, query: Descriptors, reference: Descriptors, settings: HoughVoting) -> Match:
    start_s, end_s = _ends_s(line, plane, query)
    # Frames are shown in the middle of their interval, in both videos.
    middle_s = (1 - line.speed) * plane.interval_s / 2
    ref_start_s, ref_end_s = sorted(
        round(line.speed * time_s + line.offset_s + middle_s, _TIME_DECIMALS) for time_s in (start_s, end_s)
    )
    strongest = np.sort(line.evidence)[::-1][: settings.score_rows]
    return Match(
        query_id=query.video_id,
        ref_id=reference.video_id,
        query_start_s=start_s,
        query_end_s=end_s,
        ref_start_s=max(ref_start_s, float(plane.ref_s[0])),
        ref_end_s=min(ref_end_s, reference.duration_s),
        score=float(strongest.sum(dtype=np.float64)),
        speed=line.speed,
    )


def _ends_s(line: _Line, plane: _Plane, query: Descriptors) -> tuple[float, float]:
    """When the shot of the query begins that the first row of a line belongs to, and when that of the last one ends."""
    is_last = line.last + 1 == len(plane.query_s)
    of_rows_s = float(plane.query_s[line.first]), plane.query_end_s if is_last else float(plane.query_s[line.last + 1])
    known_s, within_s = (0.0, *(query.shot_ends_s or ())), _MAX_SHIFT * plane.interval_s
    start_s, end_s = (_nearest_s(known_s, time_s, within_s=within_s) for time_s in of_rows_s)
    return (start_s, end_s) if start_s < end_s else of_rows_s


def _nearest_s(times_s: tuple[float, ...], time_s: float, *, within_s: float) -> float:
    """The nearest of some times where one is near enough; else the time itself."""
    nearest_s = min(times_s, key=lambda other_s: abs(other_s - time_s), default=time_s)
    return nearest_s if abs(nearest_s - time_s) <= within_s else time_s


def _outdoes(match: Match, other: Match, settings: HoughVoting) -> bool:
    """Whether a match leaves no place for a later one: the same segment, or a much weaker one of its seconds."""
    query_share = shared_part(match.query_start_s, match.query_end_s, other.query_start_s, other.query_end_s)
    ref_share = shared_part(match.ref_start_s, match.ref_end_s, other.ref_start_s, other.ref_end_s)
    if other.score < settings.min_score_ratio * match.score:
        return max(query_share, ref_share) > SAME_SHARE
    return min(query_share, ref_share) > SAME_SHARE


def shared_part(start: float, end: float, other_start: float, other_end: float) -> float:
    """Which share of the shorter of two intervals is in both."""
    return (min(end, other_end) - max(start, other_start)) / min(end - start, other_end - other_start)
