"""Engines that only predict: ONNX Runtime and OpenVINO. Load them through `backends.load` only."""
