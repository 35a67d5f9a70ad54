"""Values to bytes and back: JSON with tags, arrays, tables, and the envelope in which a result crosses
Ray."""

from snakepit_ray.wire.codec.batches import (
    BatchEnvelope,
    BatchOutcome,
    BatchPart,
    Item,
    decode_parts,
    encode_item,
    encode_items,
    item_bytes,
    join_items,
    refs_of,
    refuse_refs,
    whole_item,
)
from snakepit_ray.wire.codec.decoding import decode_value
from snakepit_ray.wire.codec.encoding import INLINE, Encoded, check_size, encode_args, encode_value, nbytes
from snakepit_ray.wire.codec.envelope import (
    Envelope,
    Epoch,
    Info,
    Reply,
    decode_envelope,
    decoded_count,
    keep_encoded,
    portable_buffers,
)
from snakepit_ray.wire.codec.parts import Part, Piece
from snakepit_ray.wire.codec.tags import LARGEST_INT, MAX_DEPTH, TAG, Progress, Unserializable, is_progress

__all__ = [
    "INLINE",
    "LARGEST_INT",
    "MAX_DEPTH",
    "TAG",
    "BatchEnvelope",
    "BatchOutcome",
    "BatchPart",
    "Encoded",
    "Envelope",
    "Epoch",
    "Info",
    "Item",
    "Part",
    "Piece",
    "Progress",
    "Reply",
    "Unserializable",
    "check_size",
    "decode_envelope",
    "decode_parts",
    "decode_value",
    "decoded_count",
    "encode_args",
    "encode_item",
    "encode_items",
    "encode_value",
    "is_progress",
    "item_bytes",
    "join_items",
    "keep_encoded",
    "nbytes",
    "portable_buffers",
    "refs_of",
    "refuse_refs",
    "whole_item",
]
