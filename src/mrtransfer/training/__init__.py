"""The engine room: precision, Lightning glue, batched heads."""
