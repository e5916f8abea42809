// Generated from sam_edge/bundle/manifest.schema.json by `npm run types`. Do not edit.

export const schema = {
 "$schema": "https://json-schema.org/draft/2020-12/schema",
 "title": "sam-edge bundle manifest",
 "type": "object",
 "required": [
  "schema_version",
  "integrity",
  "sam_edge_version",
  "model",
  "input",
  "prompt",
  "mask",
  "golden",
  "variants"
 ],
 "additionalProperties": false,
 "properties": {
  "schema_version": {
   "description": "Version of this schema",
   "const": 1
  },
  "integrity": {
   "description": "SHA-256 of the manifest itself without this field",
   "$ref": "#/$defs/sha256"
  },
  "sam_edge_version": {
   "description": "Version of sam-edge that wrote the bundle",
   "type": "string"
  },
  "model": {
   "description": "The model and the checkpoint it came from",
   "type": "object",
   "required": [
    "family",
    "name",
    "parameters",
    "checkpoint",
    "license"
   ],
   "additionalProperties": false,
   "properties": {
    "family": {
     "description": "Family of the architecture, for example sam or mobile_sam",
     "type": "string"
    },
    "name": {
     "description": "Name in the catalogue, as in `sam-edge models`",
     "type": "string"
    },
    "parameters": {
     "description": "Number of parameters",
     "type": "integer",
     "minimum": 0
    },
    "encoder_gmacs": {
     "description": "Billions of multiply-accumulates of the image encoder, counted on the reference",
     "type": "number",
     "minimum": 0
    },
    "checkpoint": {
     "description": "The file that was exported",
     "type": "object",
     "required": [
      "file",
      "sha256",
      "bytes",
      "layout"
     ],
     "additionalProperties": false,
     "properties": {
      "file": {
       "description": "File name",
       "type": "string"
      },
      "sha256": {
       "description": "Its SHA-256; embeddings carry it, so that they are not given to another model",
       "$ref": "#/$defs/sha256"
      },
      "bytes": {
       "description": "Its size",
       "type": "integer",
       "minimum": 0
      },
      "layout": {
       "description": "How the file names its tensors",
       "enum": [
        "published",
        "huggingface"
       ]
      }
     }
    },
    "license": {
     "description": "Licence of the weights",
     "type": "string"
    }
   }
  },
  "input": {
   "description": "How an image becomes the encoder's input",
   "type": "object",
   "required": [
    "size",
    "resize",
    "antialias",
    "color_order",
    "mean",
    "std",
    "pad_value"
   ],
   "additionalProperties": false,
   "properties": {
    "size": {
     "description": "(height, width) of the encoder's input in pixels",
     "type": "array",
     "items": {
      "type": "integer",
      "minimum": 1,
      "maximum": 8192
     },
     "minItems": 2,
     "maxItems": 2
    },
    "resize": {
     "description": "longest_side keeps the aspect ratio and pads at the right and at the bottom; stretch fills the input",
     "enum": [
      "longest_side",
      "stretch"
     ]
    },
    "antialias": {
     "description": "Whether resizing is Pillow's antialiased bilinear filter on uint8, or plain bilinear interpolation of floats",
     "type": "boolean"
    },
    "color_order": {
     "description": "Order of the channels",
     "const": "RGB"
    },
    "mean": {
     "description": "Subtracted from each channel, on the scale from 0 to 255",
     "type": "array",
     "items": {
      "type": "number"
     },
     "minItems": 3,
     "maxItems": 3
    },
    "std": {
     "description": "Each channel is divided by it afterwards",
     "type": "array",
     "items": {
      "type": "number",
      "minimum": 1e-06
     },
     "minItems": 3,
     "maxItems": 3
    },
    "pad_value": {
     "description": "Value of the padding, after normalization",
     "type": "number"
    }
   }
  },
  "resized_from": {
   "description": "Where the input is not of the model's own size: that size, and how far the reference's masks at the bundle's size agree with its masks at its own",
   "type": "object",
   "required": [
    "size",
    "mean_iou",
    "min_iou",
    "boundary_iou",
    "num_prompts"
   ],
   "additionalProperties": false,
   "properties": {
    "size": {
     "description": "(height, width) of the model's own input",
     "type": "array",
     "items": {
      "type": "integer",
      "minimum": 1,
      "maximum": 8192
     },
     "minItems": 2,
     "maxItems": 2
    },
    "mean_iou": {
     "description": "Mean IoU over prompts",
     "type": "number",
     "minimum": 0,
     "maximum": 1
    },
    "min_iou": {
     "description": "Smallest IoU",
     "type": "number",
     "minimum": 0,
     "maximum": 1
    },
    "boundary_iou": {
     "description": "Mean boundary IoU",
     "type": "number",
     "minimum": 0,
     "maximum": 1
    },
    "num_prompts": {
     "description": "Number of prompts compared",
     "type": "integer",
     "minimum": 1
    }
   }
  },
  "prompt": {
   "description": "How prompts become the decoder's inputs",
   "type": "object",
   "required": [
    "coordinate_size",
    "labels",
    "padding_point",
    "num_points",
    "mask_prompt"
   ],
   "additionalProperties": false,
   "properties": {
    "coordinate_size": {
     "description": "(height, width) of the space that coordinates are pixels of: the encoder's input for most models",
     "type": "array",
     "items": {
      "type": "integer",
      "minimum": 1,
      "maximum": 8192
     },
     "minItems": 2,
     "maxItems": 2
    },
    "labels": {
     "description": "Values of point_labels",
     "type": "object",
     "required": [
      "background",
      "foreground",
      "box_top_left",
      "box_bottom_right",
      "padding"
     ],
     "additionalProperties": false,
     "properties": {
      "background": {
       "description": "A background point",
       "const": 0
      },
      "foreground": {
       "description": "A foreground point",
       "const": 1
      },
      "box_top_left": {
       "description": "The top left corner of a box",
       "const": 2
      },
      "box_bottom_right": {
       "description": "The bottom right corner of a box",
       "const": 3
      },
      "padding": {
       "description": "A padding point at (0, 0), which takes part in attention",
       "const": -1
      }
     }
    },
    "padding_point": {
     "description": "Whether one padding point follows the points: unless there is a box, or always",
     "enum": [
      "without_box",
      "always"
     ]
    },
    "num_points": {
     "description": "Number of points that the decoder takes, filled up with padding points; null for any number",
     "type": [
      "integer",
      "null"
     ],
     "minimum": 1,
     "maximum": 4096
    },
    "mask_prompt": {
     "description": "Whether earlier masks can be given as mask_input",
     "type": "boolean"
    },
    "text_embeddings": {
     "description": "Whether the decoder takes text embeddings as tokens of a prompt",
     "type": "boolean"
    }
   }
  },
  "mask": {
   "description": "What the decoder returns",
   "type": "object",
   "required": [
    "threshold",
    "count",
    "first_multimask",
    "scores",
    "low_res_limit",
    "size"
   ],
   "additionalProperties": false,
   "properties": {
    "threshold": {
     "description": "Logits above it belong to the mask",
     "type": "number"
    },
    "count": {
     "description": "Number of masks for each prompt",
     "type": "integer",
     "minimum": 1,
     "maximum": 64
    },
    "first_multimask": {
     "description": "Index of the first candidate for an ambiguous prompt; those before are for unambiguous ones",
     "type": "integer",
     "minimum": 0
    },
    "scores": {
     "description": "What iou_predictions are: the predicted IoU, or the mask's stability when the threshold moves",
     "enum": [
      "predicted_iou",
      "stability"
     ]
    },
    "low_res_limit": {
     "description": "Low-resolution logits are clipped to its negative and itself before they are returned; null for no limit",
     "type": [
      "number",
      "null"
     ]
    },
    "pred_iou_thresh": {
     "description": "Default of everything-mode for this model",
     "type": "number"
    },
    "stability_score_thresh": {
     "description": "Default of everything-mode for this model",
     "type": "number"
    },
    "size": {
     "description": "(height, width) of low_res_masks and mask_input",
     "type": "array",
     "items": {
      "type": "integer",
      "minimum": 1,
      "maximum": 4096
     },
     "minItems": 2,
     "maxItems": 2
    }
   }
  },
  "golden": {
   "description": "The reference's masks, for `verify` and `benchmark`",
   "$ref": "#/$defs/file"
  },
  "variants": {
   "description": "One entry for each format, precision and target",
   "type": "array",
   "items": {
    "$ref": "#/$defs/variant"
   },
   "minItems": 1
  },
  "clip": {
   "description": "The CLIP model of `--clip`",
   "$ref": "#/$defs/clip"
  }
 },
 "$defs": {
  "sha256": {
   "description": "SHA-256 in lower-case hexadecimal",
   "type": "string",
   "pattern": "^[0-9a-f]{64}$"
  },
  "file": {
   "description": "A file of the bundle",
   "type": "object",
   "required": [
    "path",
    "sha256",
    "bytes"
   ],
   "additionalProperties": false,
   "properties": {
    "path": {
     "description": "Relative to the bundle, with forward slashes",
     "type": "string",
     "pattern": "^."
    },
    "sha256": {
     "description": "Its SHA-256",
     "$ref": "#/$defs/sha256"
    },
    "bytes": {
     "description": "Its size",
     "type": "integer",
     "minimum": 0
    }
   }
  },
  "tensor": {
   "description": "An input or output of a graph",
   "type": "object",
   "required": [
    "name",
    "dtype",
    "shape"
   ],
   "additionalProperties": false,
   "properties": {
    "name": {
     "description": "Name in the graph",
     "type": "string"
    },
    "dtype": {
     "description": "Element type",
     "type": "string"
    },
    "shape": {
     "description": "A number, or a name for a dimension that may vary",
     "type": "array",
     "items": {
      "type": [
       "integer",
       "string"
      ]
     }
    }
   }
  },
  "graph": {
   "description": "One graph of a variant",
   "type": "object",
   "required": [
    "path",
    "inputs",
    "outputs"
   ],
   "additionalProperties": false,
   "properties": {
    "path": {
     "description": "Its file, or its folder (Core ML)",
     "type": "string",
     "pattern": "^."
    },
    "inputs": {
     "description": "Its inputs in order",
     "type": "array",
     "items": {
      "$ref": "#/$defs/tensor"
     },
     "minItems": 1
    },
    "outputs": {
     "description": "Its outputs in order",
     "type": "array",
     "items": {
      "$ref": "#/$defs/tensor"
     },
     "minItems": 1
    }
   }
  },
  "parity": {
   "description": "The variant's masks compared with the reference's, at the size of the original images",
   "type": "object",
   "required": [
    "mean_iou",
    "p5_iou",
    "min_iou",
    "boundary_iou",
    "all_masks_mean_iou",
    "all_masks_min_iou",
    "max_score_difference",
    "embedding_relative_error",
    "num_prompts",
    "gate",
    "passed"
   ],
   "additionalProperties": false,
   "properties": {
    "mean_iou": {
     "description": "Mean IoU of the masks that the reference scores highest",
     "type": "number"
    },
    "p5_iou": {
     "description": "5th percentile over prompts",
     "type": "number"
    },
    "min_iou": {
     "description": "Smallest over prompts",
     "type": "number"
    },
    "boundary_iou": {
     "description": "Mean boundary IoU (Cheng et al. 2021)",
     "type": "number"
    },
    "all_masks_mean_iou": {
     "description": "Mean IoU over all masks of all prompts",
     "type": "number"
    },
    "all_masks_min_iou": {
     "description": "Smallest IoU over all masks of all prompts",
     "type": "number"
    },
    "max_score_difference": {
     "description": "Largest absolute difference of a score",
     "type": "number"
    },
    "embedding_relative_error": {
     "description": "Norm of the embedding's difference over the norm of the reference's",
     "type": "number"
    },
    "num_prompts": {
     "description": "Number of golden prompts",
     "type": "integer",
     "minimum": 1
    },
    "gate": {
     "description": "What had to be reached",
     "type": "object",
     "required": [
      "mean_iou",
      "min_iou"
     ],
     "additionalProperties": false,
     "properties": {
      "mean_iou": {
       "description": "Gate on mean_iou",
       "type": "number"
      },
      "min_iou": {
       "description": "Gate on min_iou",
       "type": "number"
      }
     }
    },
    "passed": {
     "description": "Whether it was reached",
     "type": "boolean"
    },
    "device": {
     "description": "Where it was measured: cpu, npu-simulated, mil-reference and the like",
     "type": "string"
    }
   }
  },
  "variant": {
   "description": "The model in one format and precision, for one target",
   "type": "object",
   "required": [
    "id",
    "format",
    "precision",
    "opset",
    "deployment_target",
    "files",
    "encoder",
    "decoder",
    "higher_precision_ops",
    "calibration_sha256",
    "tools",
    "parity"
   ],
   "additionalProperties": false,
   "properties": {
    "id": {
     "description": "Name of the variant and of its folder, for example onnx-int8",
     "type": "string"
    },
    "format": {
     "description": "File format",
     "enum": [
      "onnx",
      "openvino",
      "coreml"
     ]
    },
    "precision": {
     "description": "Precision of the weights",
     "enum": [
      "fp32",
      "fp16",
      "bf16",
      "int8"
     ]
    },
    "opset": {
     "description": "ONNX opset; null for other formats",
     "type": [
      "integer",
      "null"
     ]
    },
    "deployment_target": {
     "description": "Oldest system that runs it (Core ML); null for other formats",
     "type": [
      "string",
      "null"
     ]
    },
    "files": {
     "description": "Every file of the variant",
     "type": "array",
     "items": {
      "$ref": "#/$defs/file"
     },
     "minItems": 1
    },
    "encoder": {
     "description": "Image to embeddings",
     "$ref": "#/$defs/graph"
    },
    "decoder": {
     "description": "Embeddings and a prompt to masks and scores",
     "$ref": "#/$defs/graph"
    },
    "scorer": {
     "description": "The decoder without masks: its inputs to iou_predictions and to the upscaler's inputs; its weights may be those of the decoder's file",
     "$ref": "#/$defs/graph"
    },
    "upscaler": {
     "description": "The rest of the decoder: image_tokens and mask_weights to low_res_masks",
     "$ref": "#/$defs/graph"
    },
    "higher_precision_ops": {
     "description": "Operators kept in a higher precision, and why",
     "type": "array",
     "items": {
      "type": "string"
     }
    },
    "calibration_sha256": {
     "description": "SHA-256 over the calibration images; null where nothing was calibrated",
     "type": [
      "string",
      "null"
     ]
    },
    "tools": {
     "description": "Versions of the packages that made it",
     "type": "object"
    },
    "parity": {
     "description": "How its masks compare with the reference's",
     "$ref": "#/$defs/parity"
    },
    "instruction_set": {
     "description": "The CPU instructions that the graphs are made for; without them they give worse masks",
     "enum": [
      "vnni"
     ]
    },
    "accelerator": {
     "description": "The chip that the graphs are made for, which is to run them whole; elsewhere they give the same masks",
     "enum": [
      "hexagon"
     ]
    },
    "browser": {
     "description": "What the graphs are made for in browsers; elsewhere they give the same masks",
     "enum": [
      "web"
     ]
    },
    "requires": {
     "description": "Features of which a CPU of that architecture must have one, as Linux names them; others need none",
     "type": "array",
     "items": {
      "type": "string",
      "pattern": "^[a-z0-9_]{1,16}: [a-z0-9_.]{1,32}( or [a-z0-9_.]{1,32}){0,7}$"
     },
     "minItems": 1,
     "maxItems": 8
    },
    "absent_label": {
     "description": "The label of unused slots of a decoder that takes a fixed number of points; they are masked out of attention",
     "const": -2
    },
    "context": {
     "description": "Present where Qualcomm's compiler has run",
     "$ref": "#/$defs/context"
    }
   }
  },
  "clip": {
   "description": "CLIP: its sizes, files and parity",
   "type": "object",
   "required": [
    "checkpoint",
    "parameters",
    "image_size",
    "resize",
    "resample",
    "color_order",
    "mean",
    "std",
    "context_length",
    "end_of_text",
    "embed_dim",
    "logit_scale",
    "tokenizer",
    "golden",
    "variants"
   ],
   "additionalProperties": false,
   "properties": {
    "checkpoint": {
     "description": "The file that was exported",
     "type": "object",
     "required": [
      "file",
      "sha256",
      "bytes",
      "layout"
     ],
     "additionalProperties": false,
     "properties": {
      "file": {
       "description": "File name",
       "type": "string"
      },
      "sha256": {
       "description": "Its SHA-256",
       "$ref": "#/$defs/sha256"
      },
      "bytes": {
       "description": "Its size",
       "type": "integer",
       "minimum": 0
      },
      "layout": {
       "description": "How the file names its tensors",
       "enum": [
        "published",
        "huggingface"
       ]
      }
     }
    },
    "parameters": {
     "description": "Number of parameters",
     "type": "integer",
     "minimum": 0
    },
    "image_size": {
     "description": "Side of the image encoder's input in pixels",
     "type": "integer",
     "minimum": 1
    },
    "resize": {
     "description": "How a crop becomes the image encoder's input",
     "const": "shortest_side_center_crop"
    },
    "resample": {
     "description": "Filter of the resizing",
     "const": "bicubic"
    },
    "color_order": {
     "description": "Order of the channels",
     "const": "RGB"
    },
    "mean": {
     "description": "Subtracted from each channel, on the scale from 0 to 255",
     "type": "array",
     "items": {
      "type": "number"
     },
     "minItems": 3,
     "maxItems": 3
    },
    "std": {
     "description": "Each channel is divided by it afterwards",
     "type": "array",
     "items": {
      "type": "number"
     },
     "minItems": 3,
     "maxItems": 3
    },
    "context_length": {
     "description": "Number of tokens of a text",
     "type": "integer",
     "minimum": 1
    },
    "end_of_text": {
     "description": "Number of the token that ends a text",
     "type": "integer",
     "minimum": 0
    },
    "embed_dim": {
     "description": "Length of a feature vector",
     "type": "integer",
     "minimum": 1
    },
    "logit_scale": {
     "description": "Factor from cosine similarity to logits",
     "type": "number"
    },
    "tokenizer": {
     "description": "Vocabulary and merges",
     "$ref": "#/$defs/file"
    },
    "golden": {
     "description": "The reference's features",
     "$ref": "#/$defs/file"
    },
    "variants": {
     "description": "One entry for each format and precision",
     "type": "array",
     "items": {
      "$ref": "#/$defs/clip_variant"
     },
     "minItems": 1
    }
   }
  },
  "clip_variant": {
   "description": "CLIP in one format and precision",
   "type": "object",
   "required": [
    "id",
    "files",
    "text_encoder",
    "image_encoder",
    "higher_precision_ops",
    "parity"
   ],
   "additionalProperties": false,
   "properties": {
    "id": {
     "description": "Name of the variant",
     "type": "string"
    },
    "files": {
     "description": "Every file of the variant",
     "type": "array",
     "items": {
      "$ref": "#/$defs/file"
     },
     "minItems": 1
    },
    "text_encoder": {
     "description": "Tokens to feature vector",
     "$ref": "#/$defs/graph"
    },
    "image_encoder": {
     "description": "Crop to feature vector",
     "$ref": "#/$defs/graph"
    },
    "higher_precision_ops": {
     "description": "Operators kept in a higher precision, and why",
     "type": "array",
     "items": {
      "type": "string"
     }
    },
    "parity": {
     "description": "Its features compared with the reference's",
     "$ref": "#/$defs/clip_parity"
    }
   }
  },
  "clip_parity": {
   "description": "Features compared with the reference's",
   "type": "object",
   "required": [
    "min_text_cosine",
    "min_image_cosine",
    "max_score_difference",
    "num_texts",
    "num_images",
    "gate",
    "passed"
   ],
   "additionalProperties": false,
   "properties": {
    "min_text_cosine": {
     "description": "Smallest cosine similarity of a text's features",
     "type": "number"
    },
    "min_image_cosine": {
     "description": "Smallest cosine similarity of an image's features",
     "type": "number"
    },
    "max_score_difference": {
     "description": "Largest absolute difference of a similarity of text and image",
     "type": "number"
    },
    "num_texts": {
     "description": "Number of texts compared",
     "type": "integer",
     "minimum": 1
    },
    "num_images": {
     "description": "Number of images compared",
     "type": "integer",
     "minimum": 1
    },
    "gate": {
     "description": "Smallest cosine similarity that is accepted",
     "type": "number"
    },
    "passed": {
     "description": "Whether both reach it",
     "type": "boolean"
    },
    "device": {
     "description": "Where it was measured",
     "type": "string"
    }
   }
  },
  "context": {
   "description": "The graphs as the chip's compiler made them, one EPContext node each, for ONNX Runtime on that chip",
   "type": "object",
   "required": [
    "encoder",
    "decoder",
    "soc_model",
    "htp_arch",
    "tool"
   ],
   "additionalProperties": false,
   "properties": {
    "encoder": {
     "description": "File of the encoder's context binary",
     "type": "string",
     "pattern": "^."
    },
    "decoder": {
     "description": "File of the decoder's context binary",
     "type": "string",
     "pattern": "^."
    },
    "soc_model": {
     "description": "Chip, as Qualcomm numbers them",
     "type": "string"
    },
    "htp_arch": {
     "description": "Version of the Hexagon architecture",
     "type": "string"
    },
    "tool": {
     "description": "Compiler and its version",
     "type": "string"
    }
   }
  }
 }
};
