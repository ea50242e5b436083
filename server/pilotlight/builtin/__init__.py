"""The built-in model that ships with the package: a GGUF, and the same as an ONNX Runtime GenAI folder."""
