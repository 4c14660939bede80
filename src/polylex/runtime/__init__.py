"""Text to sparse vector without PyTorch: tokenizers and ONNX Runtime."""
