"""Batches: files of requests that are answered one after another, in their own time."""
