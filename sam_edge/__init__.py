"""Run exported Segment Anything models with NumPy and one inference runtime.

sam = sam_edge.load("bundle")
embedding = sam.encode(image)  # (H, W, 3) uint8 RGB, once per image
masks = sam.predict(embedding, point_coords=[[320, 240]], point_labels=[1])
"""

import os

# ONNX Runtime since 1.29 reports its use to a web service, and keeps an identity of the device in the user's
# cache, unless this is set before it is imported. Set it to 0 to allow that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from .compat.automatic_mask_generator import SamAutomaticMaskGenerator
from .compat.predictor import SamPredictor
from .compat.registry import sam_model_registry
from .errors import (
    BackendError,
    BundleError,
    CalibrationError,
    CheckpointError,
    CrashError,
    DeviceError,
    DownloadError,
    ExportError,
    ImageError,
    IntegrityError,
    OutputError,
    ParityError,
    PromptError,
    SamEdgeError,
    SamEdgeWarning,
    ServeError,
)
from .runtime.embedding_cache import EmbeddingCache
from .runtime.loading import load
from .runtime.sam import Sam
from .types import Choice, DeviceName, ImageEmbedding, MaskRecord, Masks, Prompts

# In a checkout, symbolic links lead to the folders beside this one. Git on Windows makes text files of them,
# and a source distribution leaves them out: there the folders are found by this.
_here = os.path.dirname(os.path.abspath(__file__))
if not os.path.isdir(os.path.join(_here, "export")) and os.path.isdir(os.path.join(_here, "..", "export")):
    __path__.append(os.path.dirname(_here))

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "BundleError",
    "CalibrationError",
    "CheckpointError",
    "Choice",
    "CrashError",
    "DeviceError",
    "DeviceName",
    "DownloadError",
    "EmbeddingCache",
    "ExportError",
    "ImageEmbedding",
    "ImageError",
    "IntegrityError",
    "MaskRecord",
    "Masks",
    "OutputError",
    "ParityError",
    "PromptError",
    "Prompts",
    "Sam",
    "SamAutomaticMaskGenerator",
    "SamEdgeError",
    "SamEdgeWarning",
    "SamPredictor",
    "ServeError",
    "__version__",
    "load",
    "sam_model_registry",
]
