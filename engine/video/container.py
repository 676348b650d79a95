"""Opens the container of one video file, and never another file, whatever the first one asks for.

Some of FFmpeg's demuxers open what the file before them names: lists of files, playlists, image sequences, subtitle
indexes, network sessions. Two locks keep them shut. FFmpeg gets a descriptor instead of a name, and may use no other
protocol, so that it can open nothing and decides by content alone; and it may use only demuxers whose pictures lie in
the file itself.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.stream import Disposition

from engine.errors import MediaError

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

_MAX_PROBED_PIXELS = 16_384 * 16_384
"""FFmpeg decodes a picture to look at a stream; of larger ones it then tells no size."""


def open_container(path: Path) -> InputContainer:
    """Open a regular file with one of `VIDEO_FORMATS`; text in it that is not UTF-8 keeps its bytes as escapes.

    Raises ``MediaError`` for a file that is missing, not regular, empty, of another format, or damaged.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise MediaError(f"{path}: not a regular file; expected a video file")
        if status.st_size == 0:
            raise MediaError(f"{path}: the file is empty")
        descriptor = os.open(path, os.O_RDONLY)
        try:
            options = {
                "fd": str(descriptor),
                "protocol_whitelist": "fd",
                "format_whitelist": ",".join(VIDEO_FORMATS),
                "max_pixels": str(_MAX_PROBED_PIXELS),
            }
            return av.open("fd:", options=options, metadata_errors="backslashreplace")
        finally:
            os.close(descriptor)  # FFmpeg has its own copy
    except ArgumentError as error:
        raise MediaError(
            f"{path}: not a video file by itself (a picture, sound, text, or a list of other files, which are not "
            "opened); name the video files"
        ) from error
    except FFmpegError as error:
        raise MediaError(f"{path}: FFmpeg cannot read it as a media file ({error.strerror})") from error
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror}") from error


def holds_video(path: Path) -> bool:
    """Whether a file is a video by its content: moving pictures, not the cover of a song.

    Raises ``OSError`` for a file that cannot be opened for reading.
    """
    with path.open("rb"):
        pass
    try:
        with open_container(path) as container:
            return any(not stream.disposition & Disposition.attached_pic for stream in container.streams.video)
    except MediaError:
        return False
