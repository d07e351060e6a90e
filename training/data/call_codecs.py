"""Codecs of telephone calls, frame by frame, with frames that get lost: GSM, G.729, Speex, LC3.

The libraries come from Debian by `training/install_codecs.sh` (GSM's own free licence, GPL 3, BSD, Apache 2.0).
What is lost, each decoder conceals in its own way; GSM's, which knows none, hears the frame before once more, and
softer from the second loss on. Signals come and go at the codec's rate; its delay is left in.
"""

from __future__ import annotations

import ctypes
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.corpus import Signal
from training.data.speech_codecs import find_codec

Frame = NDArray[np.int16]
_LIBRARIES = {
    "gsm": ("libgsm.so.1", ("gsm_create",)),
    "g729": ("libbcg729.so.0", ("initBcg729EncoderChannel", "initBcg729DecoderChannel")),
    "speex": ("libspeex.so.1", ("speex_lib_get_mode", "speex_encoder_init", "speex_decoder_init")),
    "lc3": ("liblc3.so.0", ("lc3_setup_encoder", "lc3_setup_decoder")),
}
"""Each library's file, and which of its functions return a pointer."""


@lru_cache(maxsize=4)
def _library(name: str) -> ctypes.CDLL:
    file, pointers = _LIBRARIES[name]
    library = ctypes.CDLL(str(find_codec(file)))
    for function in pointers:
        getattr(library, function).restype = ctypes.c_void_p
        getattr(library, function).errcheck = _not_null
    return library


def _not_null(result: int | None, function: Any, arguments: tuple[Any, ...]) -> int:
    if not result:
        raise RuntimeError(f"{function.__name__} of a codec failed: {arguments}")
    return result


class _Coder(AbstractContextManager["_Coder"]):
    """An encoder and a decoder of one call."""

    @abstractmethod
    def __init__(self, codec: CallCodec, bit_rate: int) -> None: ...

    @abstractmethod
    def encode(self, frame: Frame) -> bytes:
        """The packet of a frame."""

    @abstractmethod
    def decode(self, packet: bytes | None) -> Frame:
        """The frame of a packet; None: it was lost."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free what the library holds."""


class _GSM(_Coder):
    def __init__(self, codec: CallCodec, bit_rate: int) -> None:
        self._library, self._last, self._lost = _library("gsm"), b"", 0
        self._encoder, self._decoder = (ctypes.c_void_p(self._library.gsm_create()) for _ in range(2))

    def encode(self, frame: Frame) -> bytes:
        packet = ctypes.create_string_buffer(33)
        self._library.gsm_encode(self._encoder, frame.ctypes.data_as(ctypes.c_void_p), packet)
        return packet.raw

    def decode(self, packet: bytes | None) -> Frame:
        self._lost = 0 if packet else self._lost + 1
        self._last = packet or self._last
        out = np.zeros(160, np.int16)
        if self._last:
            self._library.gsm_decode(self._decoder, self._last, out.ctypes.data_as(ctypes.c_void_p))
        return (out * 0.7 ** max(0, self._lost - 1)).astype(np.int16)

    def __exit__(self, *_: object) -> None:
        for state in (self._encoder, self._decoder):
            self._library.gsm_destroy(state)


class _G729(_Coder):
    def __init__(self, codec: CallCodec, bit_rate: int) -> None:
        self._library = _library("g729")
        self._encoder = ctypes.c_void_p(self._library.initBcg729EncoderChannel(0))
        self._decoder = ctypes.c_void_p(self._library.initBcg729DecoderChannel())

    def encode(self, frame: Frame) -> bytes:
        packet, size = ctypes.create_string_buffer(10), ctypes.c_uint8()
        self._library.bcg729Encoder(self._encoder, frame.ctypes.data_as(ctypes.c_void_p), packet, ctypes.byref(size))
        return packet.raw

    def decode(self, packet: bytes | None) -> Frame:
        out = np.zeros(80, np.int16)
        lost = ctypes.c_uint8(packet is None)
        none, size = ctypes.c_uint8(0), ctypes.c_uint8(len(packet or b""))
        place = out.ctypes.data_as(ctypes.c_void_p)
        self._library.bcg729Decoder(self._decoder, packet, size, lost, none, none, place)
        return out

    def __exit__(self, *_: object) -> None:
        self._library.closeBcg729EncoderChannel(self._encoder)
        self._library.closeBcg729DecoderChannel(self._decoder)


class _Speex(_Coder):
    _SET_QUALITY = 4
    QUALITY = {  # of the encoder, by its rate and bit rate
        8000: {5950: 2, 8000: 4, 11000: 6, 15000: 8, 18200: 9, 24600: 10},
        16000: {7750: 2, 9800: 3, 12800: 4, 16800: 5, 20600: 6, 23800: 7, 27800: 8, 34200: 9, 42200: 10},
    }

    def __init__(self, codec: CallCodec, bit_rate: int) -> None:
        self._library, self._frame = _library("speex"), codec.frame
        mode = ctypes.c_void_p(self._library.speex_lib_get_mode(int(codec.rate == 16000)))
        self._encoder = ctypes.c_void_p(self._library.speex_encoder_init(mode))
        self._decoder = ctypes.c_void_p(self._library.speex_decoder_init(mode))
        quality = ctypes.c_int(self.QUALITY[codec.rate][bit_rate])
        self._library.speex_encoder_ctl(self._encoder, self._SET_QUALITY, ctypes.byref(quality))
        self._bits = ctypes.create_string_buffer(256)  # more than its structure has
        self._library.speex_bits_init(self._bits)

    def encode(self, frame: Frame) -> bytes:
        packet = ctypes.create_string_buffer(200)
        self._library.speex_bits_reset(self._bits)
        self._library.speex_encode_int(self._encoder, frame.ctypes.data_as(ctypes.c_void_p), self._bits)
        size = self._library.speex_bits_write(self._bits, packet, len(packet))
        return packet.raw[:size]

    def decode(self, packet: bytes | None) -> Frame:
        out, bits = np.zeros(self._frame, np.int16), None
        if packet:
            self._library.speex_bits_read_from(self._bits, packet, len(packet))
            bits = self._bits
        self._library.speex_decode_int(self._decoder, bits, out.ctypes.data_as(ctypes.c_void_p))
        return out

    def __exit__(self, *_: object) -> None:
        self._library.speex_bits_destroy(self._bits)
        self._library.speex_encoder_destroy(self._encoder)
        self._library.speex_decoder_destroy(self._decoder)


class _LC3(_Coder):
    _MICROSECONDS = 10000

    def __init__(self, codec: CallCodec, bit_rate: int) -> None:
        self._library, self._frame = _library("lc3"), codec.frame
        self._bytes, time = bit_rate * self._MICROSECONDS // 8_000_000, (self._MICROSECONDS, codec.rate)
        self._memory = [
            ctypes.create_string_buffer(size(*time))
            for size in (self._library.lc3_encoder_size, self._library.lc3_decoder_size)
        ]
        setups = self._library.lc3_setup_encoder, self._library.lc3_setup_decoder
        self._encoder, self._decoder = (
            ctypes.c_void_p(setup(*time, 0, memory)) for setup, memory in zip(setups, self._memory, strict=True)
        )

    def encode(self, frame: Frame) -> bytes:
        packet = ctypes.create_string_buffer(self._bytes)
        self._library.lc3_encode(self._encoder, 0, frame.ctypes.data_as(ctypes.c_void_p), 1, self._bytes, packet)
        return packet.raw

    def decode(self, packet: bytes | None) -> Frame:
        out = np.zeros(self._frame, np.int16)
        self._library.lc3_decode(self._decoder, packet, self._bytes, 0, out.ctypes.data_as(ctypes.c_void_p), 1)
        return out


@dataclass(frozen=True)
class CallCodec:
    """A codec of calls: its coder, rate (Hz), samples in a frame and in a packet, and bit rates (bit/s)."""

    coder: type[_Coder]
    rate: int
    frame: int
    bit_rates: tuple[int, ...]
    packet: int

    def transmit(self, signal: Signal, bit_rate: int, lost: Iterator[bool]) -> Signal:
        """Encode and decode a signal at the codec's rate, each packet lost or not."""
        samples = (np.clip(signal, -1, 1) * 32767).astype(np.int16)
        frames = np.pad(samples, (0, -len(samples) % self.packet)).reshape(-1, self.packet // self.frame, self.frame)
        out = []
        with self.coder(self, bit_rate) as coder:
            for packet in frames:
                coded, gone = [coder.encode(np.ascontiguousarray(frame)) for frame in packet], next(lost)
                out += [coder.decode(None if gone else frame) for frame in coded]
        return np.concatenate(out).astype(np.float32) / np.float32(32768)


CALL_CODECS = {
    "gsm": CallCodec(_GSM, 8000, 160, (13000,), 160),
    "g729": CallCodec(_G729, 8000, 80, (8000,), 160),
    "speex": CallCodec(_Speex, 8000, 160, tuple(_Speex.QUALITY[8000]), 160),
    "speex-wb": CallCodec(_Speex, 16000, 320, tuple(_Speex.QUALITY[16000]), 320),
    "lc3": CallCodec(_LC3, 16000, 160, (16000, 24000, 32000, 48000), 320),
    "lc3-swb": CallCodec(_LC3, 32000, 320, (24000, 32000, 48000, 64000), 640),
}
