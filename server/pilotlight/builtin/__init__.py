"""The built-in model that ships with the package: a GGUF, and the same for ONNX Runtime GenAI and for MLX."""
