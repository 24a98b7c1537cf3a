"""Linear segmentation: one 1×1 convolution on the patch tokens of a frozen encoder."""
