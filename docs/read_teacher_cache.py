"""Reads a teacher cache with pyarrow: python read_teacher_cache.py DIR

Prints what the cache was made from, checks every row against its checksum, and shows the first rows.
"""

import struct
import sys
import zlib

import pyarrow.dataset

dataset = pyarrow.dataset.dataset(sys.argv[1], format="ipc", exclude_invalid_files=True)
for key, value in dataset.schema.metadata.items():
    print(f"{key.decode()}: {value.decode()[:80]}")

table = dataset.to_table()
keys = [table[name].to_numpy() for name in ("dataset", "sample", "view")]
logits = table["logits"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
for row, crc in enumerate(table["crc32"].to_numpy()):
    bytes_of_row = struct.pack("<QQQ", *(int(key[row]) for key in keys)) + logits[row].astype("<f4").tobytes()
    assert zlib.crc32(bytes_of_row) == crc, f"row {row} is damaged"
print(f"{table.num_rows} rows of {logits.shape[1]} logits ({logits.dtype}), all whole")
print(table.slice(0, 3).to_pylist())
