"""From torch modules to ONNX and compiled engines: build an engine directory, check its parity, compile it, keep it in the cache."""
