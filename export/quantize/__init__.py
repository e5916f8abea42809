"""FP16 and INT8: calibration, ranges, exact equalization, and one file per recipe."""
