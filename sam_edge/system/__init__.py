"""What the operating system is asked for: files, threads, quiet converters."""
