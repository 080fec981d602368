"""The graph IR, its files (ONNX, .lepton), types and verification."""
