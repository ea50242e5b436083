"""Model folders of ONNX Runtime GenAI (`genai_config.json` beside the graph)."""
