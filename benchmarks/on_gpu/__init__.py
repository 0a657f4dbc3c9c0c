"""What `gpu.py` measures: training and decoding, each ours beside transformers, by engines that take turns."""
