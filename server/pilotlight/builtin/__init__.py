"""The built-in model, a GGUF that ships with the package."""
