"""Writes small video files for tests: given frames, a constant rate, optionally a silent audio track."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np
from numpy.typing import NDArray

_CODEC_OPTIONS = {
    "mpeg4": {"b": "4M"},
    "libx264": {"crf": "18", "preset": "veryfast", "threads": "1"},
    "libvpx-vp9": {"crf": "20", "b": "0", "cpu-used": "5", "deadline": "good"},
}
_AUDIO_RATE_HZ = 48_000
_AUDIO_CODEC = {".webm": "libopus"}


def write_video(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    *,
    fps: int = 25,
    codec: str = "libx264",
    options: Mapping[str, str] = MappingProxyType({}),
    audio: bool = False,
) -> None:
    """Encode uint8 ``(H, W, 3)`` RGB frames (H and W even) into the container that the suffix names.

    ``options`` are the codec's. ``audio`` adds silence of the same length, from time 0.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={**_CODEC_OPTIONS.get(codec, {}), **options})
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        sound = container.add_stream(_AUDIO_CODEC.get(path.suffix, "aac"), rate=_AUDIO_RATE_HZ) if audio else None
        num_frames = 0
        for frame in frames:
            if num_frames == 0:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            num_frames += 1
        container.mux(stream.encode())
        if sound is not None:
            for silence in _silence(num_frames * _AUDIO_RATE_HZ // fps):
                container.mux(sound.encode(silence))
            container.mux(sound.encode())


def write_timed_video(
    path: Path, frames: Sequence[NDArray[np.uint8]], *, times_ms: Sequence[int], codec: str = "libx264"
) -> None:
    """Encode frames of uint8 ``(H, W, 3)``, each shown at its own time; H.264 with B-frames."""
    b_frames = {"bf": "3"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={**_CODEC_OPTIONS[codec], **b_frames})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for picture, time_ms in zip(frames, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def moving_frames(num_frames: int, *, height: int = 96, width: int = 128, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Smooth random pictures, each different from its neighbours: a colored texture that drifts, turns and fades.

    Encoders keep such content with a small error, and every frame can be told from every other by its pixels.
    """
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = generator.uniform(0.02, 0.12, size=(3, 4, 2))
    phases = generator.uniform(0, 2 * np.pi, size=(3, 4))
    speeds = generator.uniform(0.1, 0.5, size=(3, 4))
    pictures = []
    for index in range(num_frames):
        angle = waves[..., :1, None] * x + waves[..., 1:, None] * y + (phases + speeds * index)[..., None, None]
        pictures.append(np.moveaxis(127.5 + 30 * np.sin(angle).sum(axis=1), 0, -1).round().astype(np.uint8))
    return pictures


def _silence(num_samples: int) -> Iterable[av.AudioFrame]:
    for start in range(0, num_samples, 1024):
        samples = np.zeros((1, min(1024, num_samples - start)), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = _AUDIO_RATE_HZ, start
        yield frame


def turn_video(path: Path, *, quarter_turns: int) -> None:
    """Write a rotation by 1, 2 or 3 quarter turns into the metadata of an MP4 file; its pictures stay as they are."""
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter_turns]
    write_matrix(path, (cosine, sine, -sine, cosine))


def write_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a, b, c, d into the display matrix of an MP4 file: ``(x, y)`` is shown at ``(a x + c y, b x + d y)``."""
    content = bytearray(path.read_bytes())
    # The header of the track holds a matrix of nine numbers, in units of 1/65536 but for the last column.
    start = content.index(b"tkhd") + 44
    a, b, c, d = (65536 * int(number) for number in matrix)
    content[start : start + 20] = struct.pack(">5i", a, b, 0, c, d)
    path.write_bytes(content)


def damage_tail(path: Path, *, keep: float, until: float = 1.0) -> None:
    """Zero the coded frames of an MP4 file from the share ``keep`` of their bytes up to ``until``; its index stays."""
    content = bytearray(path.read_bytes())
    data = content.index(b"mdat")
    size = int.from_bytes(content[data - 4 : data], "big")
    start, end = (data + 4 + int(share * (size - 8)) for share in (keep, until))
    content[start:end] = bytes(end - start)
    path.write_bytes(content)


def pack_b_frames(path: Path, source: Path, *, fps: int = 25) -> None:
    """Copy MPEG-4 video from AVI to AVI as DivX and XviD pack it.

    Each P picture shares a packet with the B picture after it; at the end of each run of B pictures, an empty picture
    makes up for the packet that this saved.
    """
    start_code = b"\x00\x00\x01\xb6"
    increment_bits = (fps - 1).bit_length()
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        pictures = [bytes(packet) for packet in given.demux(video=0) if packet.size]
        kinds = ["IPBS"[picture[picture.index(start_code) + 4] >> 6] for picture in pictures]
        packets: list[bytes] = []
        for place, (kind, picture) in enumerate(zip(kinds, pictures, strict=True)):
            if kind == "I":  # what tells decoders of the packing
                head = picture.index(start_code)
                picture = picture[:head] + b"\x00\x00\x01\xb2DivX503b1393p" + picture[head:]
            if kind == "B" and kinds[place - 1] != "B":
                packets[-1] += picture
            else:
                packets.append(picture)
            if kind == "B" and kinds[place + 1 : place + 2] != ["B"]:
                bits = f"0101{'0' * increment_bits}10"  # P, no second passes, not coded
                bits += "0".ljust(-len(bits) % 8 or 8, "1")
                packets.append(start_code + int(bits, 2).to_bytes(len(bits) // 8))
        for number, content in enumerate(packets):
            packet = av.Packet(content)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, fps)
            packet.is_keyframe = content.find(b"DivX") > 0
            container.mux(packet)
