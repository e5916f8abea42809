"""What the variants of one export share: options, traced graphs, calibration, and the job of writing one."""
