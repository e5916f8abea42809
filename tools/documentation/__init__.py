"""Builds the documentation site: reference pages generated from the code, and checks of its examples."""
