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
   "const": 1
  },
  "integrity": {
   "$ref": "#/$defs/sha256"
  },
  "sam_edge_version": {
   "type": "string"
  },
  "model": {
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
     "type": "string"
    },
    "name": {
     "type": "string"
    },
    "parameters": {
     "type": "integer",
     "minimum": 0
    },
    "encoder_gmacs": {
     "description": "Billions of multiply-accumulates of the image encoder, counted on the reference",
     "type": "number",
     "minimum": 0
    },
    "checkpoint": {
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
       "type": "string"
      },
      "sha256": {
       "$ref": "#/$defs/sha256"
      },
      "bytes": {
       "type": "integer",
       "minimum": 0
      },
      "layout": {
       "enum": [
        "published",
        "huggingface"
       ]
      }
     }
    },
    "license": {
     "type": "string"
    }
   }
  },
  "input": {
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
     "enum": [
      "longest_side",
      "stretch"
     ]
    },
    "antialias": {
     "type": "boolean"
    },
    "color_order": {
     "const": "RGB"
    },
    "mean": {
     "type": "array",
     "items": {
      "type": "number"
     },
     "minItems": 3,
     "maxItems": 3
    },
    "std": {
     "type": "array",
     "items": {
      "type": "number",
      "minimum": 1e-06
     },
     "minItems": 3,
     "maxItems": 3
    },
    "pad_value": {
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
     "type": "number",
     "minimum": 0,
     "maximum": 1
    },
    "min_iou": {
     "type": "number",
     "minimum": 0,
     "maximum": 1
    },
    "boundary_iou": {
     "type": "number",
     "minimum": 0,
     "maximum": 1
    },
    "num_prompts": {
     "type": "integer",
     "minimum": 1
    }
   }
  },
  "prompt": {
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
       "const": 0
      },
      "foreground": {
       "const": 1
      },
      "box_top_left": {
       "const": 2
      },
      "box_bottom_right": {
       "const": 3
      },
      "padding": {
       "const": -1
      }
     }
    },
    "padding_point": {
     "enum": [
      "without_box",
      "always"
     ]
    },
    "num_points": {
     "type": [
      "integer",
      "null"
     ],
     "minimum": 1,
     "maximum": 4096
    },
    "mask_prompt": {
     "type": "boolean"
    },
    "text_embeddings": {
     "type": "boolean"
    }
   }
  },
  "mask": {
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
     "type": "number"
    },
    "count": {
     "type": "integer",
     "minimum": 1,
     "maximum": 64
    },
    "first_multimask": {
     "type": "integer",
     "minimum": 0
    },
    "scores": {
     "enum": [
      "predicted_iou",
      "stability"
     ]
    },
    "low_res_limit": {
     "type": [
      "number",
      "null"
     ]
    },
    "pred_iou_thresh": {
     "type": "number"
    },
    "stability_score_thresh": {
     "type": "number"
    },
    "size": {
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
   "$ref": "#/$defs/file"
  },
  "variants": {
   "type": "array",
   "items": {
    "$ref": "#/$defs/variant"
   },
   "minItems": 1
  },
  "clip": {
   "$ref": "#/$defs/clip"
  }
 },
 "$defs": {
  "sha256": {
   "type": "string",
   "pattern": "^[0-9a-f]{64}$"
  },
  "file": {
   "type": "object",
   "required": [
    "path",
    "sha256",
    "bytes"
   ],
   "additionalProperties": false,
   "properties": {
    "path": {
     "type": "string",
     "pattern": "^."
    },
    "sha256": {
     "$ref": "#/$defs/sha256"
    },
    "bytes": {
     "type": "integer",
     "minimum": 0
    }
   }
  },
  "tensor": {
   "type": "object",
   "required": [
    "name",
    "dtype",
    "shape"
   ],
   "additionalProperties": false,
   "properties": {
    "name": {
     "type": "string"
    },
    "dtype": {
     "type": "string"
    },
    "shape": {
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
   "type": "object",
   "required": [
    "path",
    "inputs",
    "outputs"
   ],
   "additionalProperties": false,
   "properties": {
    "path": {
     "type": "string",
     "pattern": "^."
    },
    "inputs": {
     "type": "array",
     "items": {
      "$ref": "#/$defs/tensor"
     },
     "minItems": 1
    },
    "outputs": {
     "type": "array",
     "items": {
      "$ref": "#/$defs/tensor"
     },
     "minItems": 1
    }
   }
  },
  "parity": {
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
     "type": "number"
    },
    "p5_iou": {
     "type": "number"
    },
    "min_iou": {
     "type": "number"
    },
    "boundary_iou": {
     "type": "number"
    },
    "all_masks_mean_iou": {
     "type": "number"
    },
    "all_masks_min_iou": {
     "type": "number"
    },
    "max_score_difference": {
     "type": "number"
    },
    "embedding_relative_error": {
     "type": "number"
    },
    "num_prompts": {
     "type": "integer",
     "minimum": 1
    },
    "gate": {
     "type": "object",
     "required": [
      "mean_iou",
      "min_iou"
     ],
     "additionalProperties": false,
     "properties": {
      "mean_iou": {
       "type": "number"
      },
      "min_iou": {
       "type": "number"
      }
     }
    },
    "passed": {
     "type": "boolean"
    },
    "device": {
     "type": "string"
    }
   }
  },
  "variant": {
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
     "type": "string"
    },
    "format": {
     "enum": [
      "onnx",
      "openvino",
      "coreml"
     ]
    },
    "precision": {
     "enum": [
      "fp32",
      "fp16",
      "bf16",
      "int8"
     ]
    },
    "opset": {
     "type": [
      "integer",
      "null"
     ]
    },
    "deployment_target": {
     "type": [
      "string",
      "null"
     ]
    },
    "files": {
     "type": "array",
     "items": {
      "$ref": "#/$defs/file"
     },
     "minItems": 1
    },
    "encoder": {
     "$ref": "#/$defs/graph"
    },
    "decoder": {
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
     "type": "array",
     "items": {
      "type": "string"
     }
    },
    "calibration_sha256": {
     "type": [
      "string",
      "null"
     ]
    },
    "tools": {
     "type": "object"
    },
    "parity": {
     "$ref": "#/$defs/parity"
    },
    "target": {
     "description": "What the graphs are made for: a chip, which is to run them whole, or WebAssembly in browsers; elsewhere they give the same masks",
     "enum": [
      "hexagon",
      "web"
     ]
    },
    "requires": {
     "description": "What the graphs require of a machine to give these masks, such as CPU instruction sets",
     "type": "array",
     "items": {
      "type": "string"
     }
    },
    "absent_label": {
     "description": "The decoder takes a fixed number of points; this label fills up, without a part in attention",
     "const": -2
    },
    "context": {
     "$ref": "#/$defs/context"
    }
   }
  },
  "clip": {
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
       "type": "string"
      },
      "sha256": {
       "$ref": "#/$defs/sha256"
      },
      "bytes": {
       "type": "integer",
       "minimum": 0
      },
      "layout": {
       "enum": [
        "published",
        "huggingface"
       ]
      }
     }
    },
    "parameters": {
     "type": "integer",
     "minimum": 0
    },
    "image_size": {
     "type": "integer",
     "minimum": 1
    },
    "resize": {
     "const": "shortest_side_center_crop"
    },
    "resample": {
     "const": "bicubic"
    },
    "color_order": {
     "const": "RGB"
    },
    "mean": {
     "type": "array",
     "items": {
      "type": "number"
     },
     "minItems": 3,
     "maxItems": 3
    },
    "std": {
     "type": "array",
     "items": {
      "type": "number"
     },
     "minItems": 3,
     "maxItems": 3
    },
    "context_length": {
     "type": "integer",
     "minimum": 1
    },
    "end_of_text": {
     "type": "integer",
     "minimum": 0
    },
    "embed_dim": {
     "type": "integer",
     "minimum": 1
    },
    "logit_scale": {
     "type": "number"
    },
    "tokenizer": {
     "$ref": "#/$defs/file"
    },
    "golden": {
     "$ref": "#/$defs/file"
    },
    "variants": {
     "type": "array",
     "items": {
      "$ref": "#/$defs/clip_variant"
     },
     "minItems": 1
    }
   }
  },
  "clip_variant": {
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
     "type": "string"
    },
    "files": {
     "type": "array",
     "items": {
      "$ref": "#/$defs/file"
     },
     "minItems": 1
    },
    "text_encoder": {
     "$ref": "#/$defs/graph"
    },
    "image_encoder": {
     "$ref": "#/$defs/graph"
    },
    "higher_precision_ops": {
     "type": "array",
     "items": {
      "type": "string"
     }
    },
    "parity": {
     "$ref": "#/$defs/clip_parity"
    }
   }
  },
  "clip_parity": {
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
     "type": "number"
    },
    "min_image_cosine": {
     "type": "number"
    },
    "max_score_difference": {
     "type": "number"
    },
    "num_texts": {
     "type": "integer",
     "minimum": 1
    },
    "num_images": {
     "type": "integer",
     "minimum": 1
    },
    "gate": {
     "type": "number"
    },
    "passed": {
     "type": "boolean"
    },
    "device": {
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
     "type": "string",
     "pattern": "^."
    },
    "decoder": {
     "type": "string",
     "pattern": "^."
    },
    "soc_model": {
     "type": "string"
    },
    "htp_arch": {
     "type": "string"
    },
    "tool": {
     "type": "string"
    }
   }
  }
 }
};
