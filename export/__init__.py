"""The exporter: checkpoint -> reference model -> two graphs -> parity -> bundle. Needs torch."""
