"""Scenes as chunks of Zarr, and the chunks of many scenes as one object: a shard of its codec `sharding_indexed`.

Chunks are put together as bytes, as they were made where the scene was mapped: whoever writes a shard unpacks none.
The same chunks make the same shard, in whatever order they came.
"""

from __future__ import annotations

from collections.abc import Mapping

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import DTypeLike, NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

LEVEL = 0
CODECS = (ZstdCodec(level=LEVEL), Crc32cCodec())
"""The checksum is of the compressed bytes: a flipped bit raises in every reader of Zarr, and never makes a mask."""
NOWHERE = 2**64 - 1  # in the index: there is no such chunk
INDEX_ITEM = np.dtype("<u8")


def encode_chunk(values: NDArray[np.generic], empty: int) -> bytes:
    """Bytes of a chunk as `CODECS` make them; none for one of nothing but `empty`, which Zarr does not keep."""
    if (values == empty).all():
        return b""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return _with_checksum(bytes(Zstd(level=LEVEL).encode(little)))


def decode_chunk(data: bytes, shape: tuple[int, ...], dtype: DTypeLike, empty: int) -> NDArray[np.generic]:
    """Values of what `encode_chunk` has made."""
    if not data:
        return np.full(shape, empty, dtype=dtype)
    little = np.frombuffer(Zstd().decode(_checked(data)), dtype=np.dtype(dtype).newbyteorder("<"))
    return little.reshape(shape).astype(dtype)


def pack_shard(chunks: Mapping[int, bytes], length: int) -> bytes:
    """Make a shard of chunks by their number in it, 0 to `length` - 1."""
    index = np.full((length, 2), NOWHERE, dtype=INDEX_ITEM)
    start = 0
    for number in sorted(chunks):
        index[number] = start, len(chunks[number])
        start += len(chunks[number])
    return b"".join([*(chunks[number] for number in sorted(chunks)), _with_checksum(index.tobytes())])


def unpack_shard(data: bytes, length: int) -> dict[int, bytes]:
    """Read the chunks of a shard by their number; raise `ValueError` where its index is damaged."""
    index = np.frombuffer(_checked(data[-16 * length - 4 :]), dtype=INDEX_ITEM).reshape(length, 2)
    return {
        number: data[int(start) : int(start + size)] for number, (start, size) in enumerate(index) if start != NOWHERE
    }


def is_whole(data: bytes, length: int) -> bool:
    """Whether the index of a shard and all its chunks are as they were written."""
    try:
        for chunk in unpack_shard(data, length).values():
            _checked(chunk)
    except ValueError:
        return False
    return True


def _with_checksum(data: bytes) -> bytes:
    return data + int(google_crc32c.value(data)).to_bytes(4, "little")


def _checked(data: bytes) -> bytes:
    if len(data) < 4 or data != _with_checksum(data[:-4]):
        raise ValueError("its checksum is wrong")
    return data[:-4]
