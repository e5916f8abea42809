"""OpenVINO IR: an .xml file and the .bin beside it."""

from ..base import Format

FORMAT = Format("openvino", rank=1, title="OpenVINO", colour="#e69f00")
