"""Model folders of MLX, and those of Hugging Face with weights that need no conversion (`config.json`)."""
