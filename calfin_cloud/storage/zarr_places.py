"""What Zarr opens for the address of an array or group, on disk or in a bucket."""

from __future__ import annotations

from zarr.abc.store import ByteRequest, OffsetByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore

from calfin_cloud.object_stores import open_files


def zarr_place(address: str) -> FsspecStore | LocalStore:
    """Give what Zarr opens for an address: from 3.4 on it takes a `?` or `#` in the name of a folder for a query."""
    if "://" not in address:
        return LocalStore(address)
    fs, path = open_files(address, asynchronous=True)
    kind = _AzureStore if "abfs" in fs.protocol else FsspecStore
    return kind(fs, path=path)


class _AzureStore(FsspecStore):  # type: ignore[misc] # Zarr has no types
    """Asks for the size of a shard before its end, where its index is: Azure's client takes no negative range."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if isinstance(byte_range, SuffixByteRequest):
            try:
                size = int((await self.fs._info(f"{self.path}/{key}"))["size"])
            except FileNotFoundError:
                return None
            byte_range = OffsetByteRequest(max(0, size - byte_range.suffix))
        return await super().get(key, prototype, byte_range)
