"""The operating system: files, threads, child processes, other libraries' output."""
