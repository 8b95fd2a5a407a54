"""Run an engine: one file a runtime (onnxruntime, openvino, torch)."""
