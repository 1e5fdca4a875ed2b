"""The libraries that execute an engine's files, one per module, each imported when a bundle needs it."""
