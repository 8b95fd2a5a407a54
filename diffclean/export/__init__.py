"""From torch modules to ONNX and compiled engines: the engine directory, its hashes and its parity record."""
