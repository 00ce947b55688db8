"""Parquet files as rows of plain values."""

# The one place that touches pyarrow's functions, which have no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from seg_common.errors import UsageError
from seg_common.files import atomic_path

Schema: TypeAlias = Any
"""A pyarrow schema."""

_SCALARS = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


class ParquetTable(NamedTuple):
    """Rows of a file, and the metadata of its schema."""

    rows: list[dict[str, Any]]
    metadata: dict[str, str]


def make_schema(columns: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> Schema:
    """Make a schema of columns written as `str`, `int`, `float`, `bool`, `[kind]` for a list and
    `{name: kind}` for a structure.
    """
    fields = [(name, _data_type(kind)) for name, kind in columns.items()]
    return pa.schema(fields, metadata=dict(metadata or {}))


def _data_type(kind: Any) -> Any:
    if isinstance(kind, list):
        return pa.list_(_data_type(kind[0]))
    if isinstance(kind, dict):
        return pa.struct([(name, _data_type(inner)) for name, inner in kind.items()])
    return _SCALARS[kind]


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], schema: Schema) -> None:
    """Write rows, atomically; equal rows give equal bytes. Keys that the schema lacks are left
    out.
    """
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_parquet(path: Path) -> ParquetTable:
    """Read a file.

    Raises:
        UsageError: it is not readable as parquet.
    """
    try:
        table = pq.read_table(path)
        rows = table.to_pylist()
    except (pa.ArrowException, OSError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise UsageError(
            f"{path}: not a readable parquet file ({lines[0]}); make it again"
        ) from None
    raw = table.schema.metadata or {}
    metadata = {key.decode(errors="replace"): raw[key].decode(errors="replace") for key in raw}
    return ParquetTable(rows, metadata)
