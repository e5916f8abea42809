// Generated from sam_edge/bundle/manifest.schema.json by `npm run types`. Do not edit.

export type Sha256 = string;

export interface Manifest {
  schema_version: 1;
  integrity: Sha256;
  sam_edge_version: string;
  model: {
    family: string;
    name: string;
    parameters: number;
    /**
     * Billions of multiply-accumulates of the image encoder, counted on the reference
     */
    encoder_gmacs?: number;
    checkpoint: {
      file: string;
      sha256: Sha256;
      bytes: number;
      layout: "published" | "huggingface";
    };
    license: string;
  };
  input: {
    /**
     * @minItems 2
     * @maxItems 2
     */
    size: [number, number];
    resize: "longest_side" | "stretch";
    antialias: boolean;
    color_order: "RGB";
    /**
     * @minItems 3
     * @maxItems 3
     */
    mean: [number, number, number];
    /**
     * @minItems 3
     * @maxItems 3
     */
    std: [number, number, number];
    pad_value: number;
  };
  /**
   * Where the input is not of the model's own size: that size, and how far the reference's masks at the bundle's size agree with its masks at its own
   */
  resized_from?: {
    /**
     * @minItems 2
     * @maxItems 2
     */
    size: [number, number];
    mean_iou: number;
    min_iou: number;
    boundary_iou: number;
    num_prompts: number;
  };
  prompt: {
    /**
     * @minItems 2
     * @maxItems 2
     */
    coordinate_size: [number, number];
    labels: {
      background: 0;
      foreground: 1;
      box_top_left: 2;
      box_bottom_right: 3;
      padding: -1;
    };
    padding_point: "without_box" | "always";
    num_points: number | null;
    mask_prompt: boolean;
    text_embeddings?: boolean;
  };
  mask: {
    threshold: number;
    count: number;
    first_multimask: number;
    scores: "predicted_iou" | "stability";
    low_res_limit: number | null;
    pred_iou_thresh?: number;
    stability_score_thresh?: number;
    /**
     * @minItems 2
     * @maxItems 2
     */
    size: [number, number];
  };
  golden: File;
  /**
   * @minItems 1
   */
  variants: [Variant, ...Variant[]];
  clip?: Clip;
}
export interface File {
  path: string;
  sha256: Sha256;
  bytes: number;
}
export interface Variant {
  id: string;
  format: "onnx" | "openvino" | "coreml";
  precision: "fp32" | "fp16" | "bf16" | "int8";
  opset: number | null;
  deployment_target: string | null;
  /**
   * @minItems 1
   */
  files: [File, ...File[]];
  encoder: Graph;
  decoder: Graph;
  scorer?: Graph1;
  upscaler?: Graph2;
  higher_precision_ops: string[];
  calibration_sha256: string | null;
  tools: {
    [k: string]: unknown;
  };
  parity: Parity;
  /**
   * What the graphs are made for: a chip, which is to run them whole, or WebAssembly in browsers; elsewhere they give the same masks
   */
  target?: "hexagon" | "web";
  /**
   * What the graphs require of a machine to give these masks, such as CPU instruction sets
   */
  requires?: string[];
  /**
   * The decoder takes a fixed number of points; this label fills up, without a part in attention
   */
  absent_label?: -2;
  context?: Context;
}
export interface Graph {
  path: string;
  /**
   * @minItems 1
   */
  inputs: [Tensor, ...Tensor[]];
  /**
   * @minItems 1
   */
  outputs: [Tensor, ...Tensor[]];
}
export interface Tensor {
  name: string;
  dtype: string;
  shape: (number | string)[];
}
/**
 * The decoder without masks: its inputs to iou_predictions and to the upscaler's inputs; its weights may be those of the decoder's file
 */
export interface Graph1 {
  path: string;
  /**
   * @minItems 1
   */
  inputs: [Tensor, ...Tensor[]];
  /**
   * @minItems 1
   */
  outputs: [Tensor, ...Tensor[]];
}
/**
 * The rest of the decoder: image_tokens and mask_weights to low_res_masks
 */
export interface Graph2 {
  path: string;
  /**
   * @minItems 1
   */
  inputs: [Tensor, ...Tensor[]];
  /**
   * @minItems 1
   */
  outputs: [Tensor, ...Tensor[]];
}
export interface Parity {
  mean_iou: number;
  p5_iou: number;
  min_iou: number;
  boundary_iou: number;
  all_masks_mean_iou: number;
  all_masks_min_iou: number;
  max_score_difference: number;
  embedding_relative_error: number;
  num_prompts: number;
  gate: {
    mean_iou: number;
    min_iou: number;
  };
  passed: boolean;
  device?: string;
}
/**
 * The graphs as the chip's compiler made them, one EPContext node each, for ONNX Runtime on that chip
 */
export interface Context {
  encoder: string;
  decoder: string;
  soc_model: string;
  htp_arch: string;
  tool: string;
}
export interface Clip {
  checkpoint: {
    file: string;
    sha256: Sha256;
    bytes: number;
    layout: "published" | "huggingface";
  };
  parameters: number;
  image_size: number;
  resize: "shortest_side_center_crop";
  resample: "bicubic";
  color_order: "RGB";
  /**
   * @minItems 3
   * @maxItems 3
   */
  mean: [number, number, number];
  /**
   * @minItems 3
   * @maxItems 3
   */
  std: [number, number, number];
  context_length: number;
  end_of_text: number;
  embed_dim: number;
  logit_scale: number;
  tokenizer: File;
  golden: File;
  /**
   * @minItems 1
   */
  variants: [ClipVariant, ...ClipVariant[]];
}
export interface ClipVariant {
  id: string;
  /**
   * @minItems 1
   */
  files: [File, ...File[]];
  text_encoder: Graph;
  image_encoder: Graph;
  higher_precision_ops: string[];
  parity: ClipParity;
}
export interface ClipParity {
  min_text_cosine: number;
  min_image_cosine: number;
  max_score_difference: number;
  num_texts: number;
  num_images: number;
  gate: number;
  passed: boolean;
  device?: string;
}
