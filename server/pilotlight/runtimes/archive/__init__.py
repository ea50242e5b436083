"""Conversations that outlive their worker: computed state on disk, for the next worker of the same model."""
