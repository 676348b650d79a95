"""Opens the container of one video file, and never another file, whatever the first one asks for.

Some of FFmpeg's demuxers open what the file before them names: lists of files, playlists, image sequences, subtitle
indexes, network sessions. Two locks keep them shut. FFmpeg gets a descriptor instead of a name, or of a remote file
the bytes, and may use no other protocol, so that it can open nothing and decides by content alone; and it may use only
demuxers whose pictures lie in the file itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.stream import Disposition

from engine.errors import MediaError
from engine.storage.location import Location, RemotePath
from engine.storage.ranged import Range, held, merged, without

VIDEO_FORMATS = frozenset((
    "4xm", "anm", "apng", "apv", "asf", "asf_o", "av1", "avi", "avs", "avs2", "avs3", "bethsoftvid", "bfi", "bink",
    "bmv", "c93", "cavsvideo", "cdxl", "cine", "dfa", "dhav", "dirac", "dnxhd", "dsicin", "dv", "dxa", "ea", "evc",
    "film_cpk", "filmstrip", "flic", "flv", "gdv", "gif", "gxf", "h261", "h263", "h264", "hevc", "hnm", "hxvs", "idcin",
    "ifv", "ipmovie", "ipu", "iss", "iv8", "ivf", "ivr", "jpegxl_anim", "jv", "kux", "live_flv", "lmlm4", "luodat",
    "lvf", "lxf", "m4v", "matroska", "mgsts", "mjpeg", "mjpeg_2000", "mm", "mods", "moflex", "mov", "mpeg", "mpegts",
    "mpegvideo", "mpjpeg", "msnwctcp", "mtv", "mv", "mvi", "mxf", "mxg", "nc", "nsv", "nut", "nuv", "obu", "ogg", "paf",
    "pdv", "pmp", "psxstr", "pva", "r3d", "rl2", "rm", "roq", "rpl", "ser", "sga", "siff", "simbiosis_imx", "smjpeg",
    "smk", "smush", "swf", "thp", "tiertexseq", "tmv", "ty", "usm", "vc1", "vc1test", "vividas", "vivo", "vmd", "vvc",
    "wc3movie", "wsvqa", "wtv", "xmv", "yop", "yuv4mpegpipe",
))  # fmt: skip
"""FFmpeg's demuxers of moving pictures that read nothing but the file itself.

Left out are those that open others (concat, hls, dash, imf, image2, mlv, sdp, rtsp, vobsub, and devices), single
pictures, sound, subtitles, and text that FFmpeg would draw (tty).
"""

_READ_BYTES = 64 << 10
_MIN_LEFT_OUT_BYTES = 64 << 10
"""A gap between two ranges that are needed takes longer to ask past than to read if it is smaller."""

_FULLY_INDEXED_FORMATS = {"mov,mp4,m4a,3gp,3g2,mj2"}
"""Whose demuxer knows the place of every packet before it reads one, and looks at none of them."""

_CODECS_READ_THROUGH = {"vp8", "vp9"}
"""Whose packets FFmpeg's parsers, or those here, look into."""

_MAX_PROBED_PIXELS = 16_384 * 16_384
"""FFmpeg decodes a picture to look at a stream; of larger ones it then tells no size."""


def open_container(path: Location, *, keyframes_alone: bool = False) -> AbstractContextManager[InputContainer]:
    """Open a regular file with one of `VIDEO_FORMATS`; text in it that is not UTF-8 keeps its bytes as escapes.

    ``keyframes_alone``: nobody will look at the contents of other packets than key frames of videos. Of a remote file
    whose index tells where they are, only those are read; the others have zeros in place of their contents.

    Raises ``MediaError`` for a file that is missing, not regular, empty, of another format, or damaged, and
    ``RemoteError`` for a remote one that cannot be read.
    """
    return _open_file(path) if isinstance(path, Path) else _open_remote(path, keyframes_alone=keyframes_alone)


def _open_file(path: Path) -> InputContainer:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise MediaError(f"{path}: not a regular file; expected a video file")
        if status.st_size == 0:
            raise MediaError(f"{path}: the file is empty")
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return _opened("fd:", path, fd=str(descriptor), protocol_whitelist="fd")
        finally:
            os.close(descriptor)  # FFmpeg has its own copy
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror}") from error


@contextmanager
def _open_remote(path: RemotePath, *, keyframes_alone: bool) -> Iterator[InputContainer]:
    with held(path) as remote:
        if remote.file.size_bytes == 0:
            raise MediaError(f"{path}: the file is empty")
        reader = remote.file.reader()
        try:
            with _opened(reader, path, protocol_whitelist="none") as container:
                if keyframes_alone:
                    reader.leave_out(_contents_but_keyframes(container))
                yield container
        finally:
            remote.file.raise_error()  # FFmpeg may take an error for the end of the file


def _opened(source: Any, path: Location, **options: str) -> InputContainer:
    options = {"format_whitelist": ",".join(VIDEO_FORMATS), "max_pixels": str(_MAX_PROBED_PIXELS), **options}
    try:
        container: InputContainer = av.open(
            source, options=options, metadata_errors="backslashreplace", buffer_size=_READ_BYTES
        )
    except ArgumentError as error:
        raise MediaError(
            f"{path}: not a video file by itself (a picture, sound, text, or a list of other files, which are not "
            "opened); name the video files"
        ) from error
    except FFmpegError as error:
        raise MediaError(f"{path}: FFmpeg cannot read it as a media file ({error.strerror})") from error
    return container


def _contents_but_keyframes(container: InputContainer) -> list[Range]:
    """Where the packets lie that are no key frame of a video, as far as the index tells; small ranges are left away."""
    videos = container.streams.video
    codecs = {stream.codec_context.name if stream.codec_context else "" for stream in videos}
    if container.format.name not in _FULLY_INDEXED_FORMATS or codecs & _CODECS_READ_THROUGH:
        return []
    packets, needed = list[Range](), list[Range]()
    for stream in container.streams:
        for entry in stream.index_entries:
            place = entry.pos, entry.pos + entry.size
            packets.append(place)
            if stream.type == "video" and entry.is_keyframe:
                needed.append(place)
    left_out = without(merged(packets), merged(needed))
    return [(start, stop) for start, stop in left_out if stop - start >= _MIN_LEFT_OUT_BYTES]


def holds_video(path: Location) -> bool:
    """Whether a file is a video by its content: moving pictures, not the cover of a song.

    Raises ``OSError`` for a file that cannot be opened for reading.
    """
    if isinstance(path, Path):
        with path.open("rb"):
            pass
    try:
        with open_container(path) as container:
            return any(not stream.disposition & Disposition.attached_pic for stream in container.streams.video)
    except MediaError:
        return False
