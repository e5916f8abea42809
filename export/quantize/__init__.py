"""FP16 and INT8: calibration, exact equalization, sensitivity, and one file per recipe."""
