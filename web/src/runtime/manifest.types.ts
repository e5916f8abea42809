// Generated from sam_edge/bundle/manifest.schema.json by `npm run types`. Do not edit.

export interface Manifest {
  /**
   * Version of this schema
   */
  schema_version: 1;
  /**
   * SHA-256 of the manifest itself without this field
   */
  integrity: string;
  /**
   * Version of sam-edge that wrote the bundle
   */
  sam_edge_version: string;
  /**
   * The model and the checkpoint it came from
   */
  model: {
    /**
     * Family of the architecture, for example sam or mobile_sam
     */
    family: string;
    /**
     * Name in the catalogue, as in `sam-edge models`
     */
    name: string;
    /**
     * Number of parameters
     */
    parameters: number;
    /**
     * Billions of multiply-accumulates of the image encoder, counted on the reference
     */
    encoder_gmacs?: number;
    /**
     * The file that was exported
     */
    checkpoint: {
      /**
       * File name
       */
      file: string;
      /**
       * Its SHA-256; embeddings carry it, so that they are not given to another model
       */
      sha256: string;
      /**
       * Its size
       */
      bytes: number;
      /**
       * How the file names its tensors
       */
      layout: "published" | "huggingface";
    };
    /**
     * Licence of the weights
     */
    license: string;
  };
  /**
   * How an image becomes the encoder's input
   */
  input: {
    /**
     * (height, width) of the encoder's input in pixels
     *
     * @minItems 2
     * @maxItems 2
     */
    size: [number, number];
    /**
     * longest_side keeps the aspect ratio and pads at the right and at the bottom; stretch fills the input
     */
    resize: "longest_side" | "stretch";
    /**
     * Whether resizing is Pillow's antialiased bilinear filter on uint8, or plain bilinear interpolation of floats
     */
    antialias: boolean;
    /**
     * Order of the channels
     */
    color_order: "RGB";
    /**
     * Subtracted from each channel, on the scale from 0 to 255
     *
     * @minItems 3
     * @maxItems 3
     */
    mean: [number, number, number];
    /**
     * Each channel is divided by it afterwards
     *
     * @minItems 3
     * @maxItems 3
     */
    std: [number, number, number];
    /**
     * Value of the padding, after normalization
     */
    pad_value: number;
  };
  /**
   * Where the input is not of the model's own size: that size, and how far the reference's masks at the bundle's size agree with its masks at its own
   */
  resized_from?: {
    /**
     * (height, width) of the model's own input
     *
     * @minItems 2
     * @maxItems 2
     */
    size: [number, number];
    /**
     * Mean IoU over prompts
     */
    mean_iou: number;
    /**
     * Smallest IoU
     */
    min_iou: number;
    /**
     * Mean boundary IoU
     */
    boundary_iou: number;
    /**
     * Number of prompts compared
     */
    num_prompts: number;
  };
  /**
   * How prompts become the decoder's inputs
   */
  prompt: {
    /**
     * (height, width) of the space that coordinates are pixels of: the encoder's input for most models
     *
     * @minItems 2
     * @maxItems 2
     */
    coordinate_size: [number, number];
    /**
     * Values of point_labels
     */
    labels: {
      /**
       * A background point
       */
      background: 0;
      /**
       * A foreground point
       */
      foreground: 1;
      /**
       * The top left corner of a box
       */
      box_top_left: 2;
      /**
       * The bottom right corner of a box
       */
      box_bottom_right: 3;
      /**
       * A padding point at (0, 0), which takes part in attention
       */
      padding: -1;
    };
    /**
     * Whether one padding point follows the points: unless there is a box, or always
     */
    padding_point: "without_box" | "always";
    /**
     * Number of points that the decoder takes, filled up with padding points; null for any number
     */
    num_points: number | null;
    /**
     * Whether earlier masks can be given as mask_input
     */
    mask_prompt: boolean;
    /**
     * Whether the decoder takes text embeddings as tokens of a prompt
     */
    text_embeddings?: boolean;
  };
  /**
   * What the decoder returns
   */
  mask: {
    /**
     * Logits above it belong to the mask
     */
    threshold: number;
    /**
     * Number of masks for each prompt
     */
    count: number;
    /**
     * Index of the first candidate for an ambiguous prompt; those before are for unambiguous ones
     */
    first_multimask: number;
    /**
     * What iou_predictions are: the predicted IoU, or the mask's stability when the threshold moves
     */
    scores: "predicted_iou" | "stability";
    /**
     * Low-resolution logits are clipped to its negative and itself before they are returned; null for no limit
     */
    low_res_limit: number | null;
    /**
     * Default of everything-mode for this model
     */
    pred_iou_thresh?: number;
    /**
     * Default of everything-mode for this model
     */
    stability_score_thresh?: number;
    /**
     * (height, width) of low_res_masks and mask_input
     *
     * @minItems 2
     * @maxItems 2
     */
    size: [number, number];
  };
  golden: File;
  /**
   * One entry for each format, precision and target
   *
   * @minItems 1
   */
  variants: [Variant, ...Variant[]];
  clip?: Clip;
}
/**
 * The reference's masks, for `verify` and `benchmark`
 */
export interface File {
  /**
   * Relative to the bundle, with forward slashes
   */
  path: string;
  /**
   * Its SHA-256
   */
  sha256: string;
  /**
   * Its size
   */
  bytes: number;
}
/**
 * The model in one format and precision, for one target
 */
export interface Variant {
  /**
   * Name of the variant and of its folder, for example onnx-int8
   */
  id: string;
  /**
   * File format
   */
  format: "onnx" | "openvino" | "coreml";
  /**
   * Precision of the weights
   */
  precision: "fp32" | "fp16" | "bf16" | "int8";
  /**
   * ONNX opset; null for other formats
   */
  opset: number | null;
  /**
   * Oldest system that runs it (Core ML); null for other formats
   */
  deployment_target: string | null;
  /**
   * Every file of the variant
   *
   * @minItems 1
   */
  files: [File1, ...File1[]];
  encoder: Graph;
  decoder: Graph1;
  scorer?: Graph2;
  upscaler?: Graph3;
  /**
   * Operators kept in a higher precision, and why
   */
  higher_precision_ops: string[];
  /**
   * SHA-256 over the calibration images; null where nothing was calibrated
   */
  calibration_sha256: string | null;
  /**
   * Versions of the packages that made it
   */
  tools: {
    [k: string]: unknown;
  };
  parity: Parity;
  /**
   * The CPU instructions that the graphs are made for; without them they give worse masks
   */
  instruction_set?: "vnni";
  /**
   * The chip that the graphs are made for, which is to run them whole; elsewhere they give the same masks
   */
  accelerator?: "hexagon";
  /**
   * What the graphs are made for in browsers; elsewhere they give the same masks
   */
  browser?: "web";
  /**
   * Features of which a CPU of that architecture must have one, as Linux names them; others need none
   *
   * @minItems 1
   * @maxItems 8
   */
  requires?:
    | [string]
    | [string, string]
    | [string, string, string]
    | [string, string, string, string]
    | [string, string, string, string, string]
    | [string, string, string, string, string, string]
    | [string, string, string, string, string, string, string]
    | [string, string, string, string, string, string, string, string];
  /**
   * The label of unused slots of a decoder that takes a fixed number of points; they are masked out of attention
   */
  absent_label?: -2;
  context?: Context;
}
/**
 * A file of the bundle
 */
export interface File1 {
  /**
   * Relative to the bundle, with forward slashes
   */
  path: string;
  /**
   * Its SHA-256
   */
  sha256: string;
  /**
   * Its size
   */
  bytes: number;
}
/**
 * Image to embeddings
 */
export interface Graph {
  /**
   * Its file, or its folder (Core ML)
   */
  path: string;
  /**
   * Its inputs in order
   *
   * @minItems 1
   */
  inputs: [Tensor, ...Tensor[]];
  /**
   * Its outputs in order
   *
   * @minItems 1
   */
  outputs: [Tensor, ...Tensor[]];
}
/**
 * An input or output of a graph
 */
export interface Tensor {
  /**
   * Name in the graph
   */
  name: string;
  /**
   * Element type
   */
  dtype: string;
  /**
   * A number, or a name for a dimension that may vary
   */
  shape: (number | string)[];
}
/**
 * Embeddings and a prompt to masks and scores
 */
export interface Graph1 {
  /**
   * Its file, or its folder (Core ML)
   */
  path: string;
  /**
   * Its inputs in order
   *
   * @minItems 1
   */
  inputs: [Tensor, ...Tensor[]];
  /**
   * Its outputs in order
   *
   * @minItems 1
   */
  outputs: [Tensor, ...Tensor[]];
}
/**
 * The decoder without masks: its inputs to iou_predictions and to the upscaler's inputs; its weights may be those of the decoder's file
 */
export interface Graph2 {
  /**
   * Its file, or its folder (Core ML)
   */
  path: string;
  /**
   * Its inputs in order
   *
   * @minItems 1
   */
  inputs: [Tensor, ...Tensor[]];
  /**
   * Its outputs in order
   *
   * @minItems 1
   */
  outputs: [Tensor, ...Tensor[]];
}
/**
 * The rest of the decoder: image_tokens and mask_weights to low_res_masks
 */
export interface Graph3 {
  /**
   * Its file, or its folder (Core ML)
   */
  path: string;
  /**
   * Its inputs in order
   *
   * @minItems 1
   */
  inputs: [Tensor, ...Tensor[]];
  /**
   * Its outputs in order
   *
   * @minItems 1
   */
  outputs: [Tensor, ...Tensor[]];
}
/**
 * How its masks compare with the reference's
 */
export interface Parity {
  /**
   * Mean IoU of the masks that the reference scores highest
   */
  mean_iou: number;
  /**
   * 5th percentile over prompts
   */
  p5_iou: number;
  /**
   * Smallest over prompts
   */
  min_iou: number;
  /**
   * Mean boundary IoU (Cheng et al. 2021)
   */
  boundary_iou: number;
  /**
   * Mean IoU over all masks of all prompts
   */
  all_masks_mean_iou: number;
  /**
   * Smallest IoU over all masks of all prompts
   */
  all_masks_min_iou: number;
  /**
   * Largest absolute difference of a score
   */
  max_score_difference: number;
  /**
   * Norm of the embedding's difference over the norm of the reference's
   */
  embedding_relative_error: number;
  /**
   * Number of golden prompts
   */
  num_prompts: number;
  /**
   * What had to be reached
   */
  gate: {
    /**
     * Gate on mean_iou
     */
    mean_iou: number;
    /**
     * Gate on min_iou
     */
    min_iou: number;
  };
  /**
   * Whether it was reached
   */
  passed: boolean;
  /**
   * Where it was measured: cpu, npu-simulated, mil-reference and the like
   */
  device?: string;
}
/**
 * Present where Qualcomm's compiler has run
 */
export interface Context {
  /**
   * File of the encoder's context binary
   */
  encoder: string;
  /**
   * File of the decoder's context binary
   */
  decoder: string;
  /**
   * Chip, as Qualcomm numbers them
   */
  soc_model: string;
  /**
   * Version of the Hexagon architecture
   */
  htp_arch: string;
  /**
   * Compiler and its version
   */
  tool: string;
}
/**
 * The CLIP model of `--clip`
 */
export interface Clip {
  /**
   * The file that was exported
   */
  checkpoint: {
    /**
     * File name
     */
    file: string;
    /**
     * Its SHA-256
     */
    sha256: string;
    /**
     * Its size
     */
    bytes: number;
    /**
     * How the file names its tensors
     */
    layout: "published" | "huggingface";
  };
  /**
   * Number of parameters
   */
  parameters: number;
  /**
   * Side of the image encoder's input in pixels
   */
  image_size: number;
  /**
   * How a crop becomes the image encoder's input
   */
  resize: "shortest_side_center_crop";
  /**
   * Filter of the resizing
   */
  resample: "bicubic";
  /**
   * Order of the channels
   */
  color_order: "RGB";
  /**
   * Subtracted from each channel, on the scale from 0 to 255
   *
   * @minItems 3
   * @maxItems 3
   */
  mean: [number, number, number];
  /**
   * Each channel is divided by it afterwards
   *
   * @minItems 3
   * @maxItems 3
   */
  std: [number, number, number];
  /**
   * Number of tokens of a text
   */
  context_length: number;
  /**
   * Number of the token that ends a text
   */
  end_of_text: number;
  /**
   * Length of a feature vector
   */
  embed_dim: number;
  /**
   * Factor from cosine similarity to logits
   */
  logit_scale: number;
  tokenizer: File2;
  golden: File3;
  /**
   * One entry for each format and precision
   *
   * @minItems 1
   */
  variants: [ClipVariant, ...ClipVariant[]];
}
/**
 * A file of the bundle
 */
export interface File2 {
  /**
   * Relative to the bundle, with forward slashes
   */
  path: string;
  /**
   * Its SHA-256
   */
  sha256: string;
  /**
   * Its size
   */
  bytes: number;
}
/**
 * A file of the bundle
 */
export interface File3 {
  /**
   * Relative to the bundle, with forward slashes
   */
  path: string;
  /**
   * Its SHA-256
   */
  sha256: string;
  /**
   * Its size
   */
  bytes: number;
}
/**
 * CLIP in one format and precision
 */
export interface ClipVariant {
  /**
   * Name of the variant
   */
  id: string;
  /**
   * Every file of the variant
   *
   * @minItems 1
   */
  files: [File1, ...File1[]];
  text_encoder: Graph4;
  image_encoder: Graph5;
  /**
   * Operators kept in a higher precision, and why
   */
  higher_precision_ops: string[];
  parity: ClipParity;
}
/**
 * Tokens to feature vector
 */
export interface Graph4 {
  /**
   * Its file, or its folder (Core ML)
   */
  path: string;
  /**
   * Its inputs in order
   *
   * @minItems 1
   */
  inputs: [Tensor, ...Tensor[]];
  /**
   * Its outputs in order
   *
   * @minItems 1
   */
  outputs: [Tensor, ...Tensor[]];
}
/**
 * Crop to feature vector
 */
export interface Graph5 {
  /**
   * Its file, or its folder (Core ML)
   */
  path: string;
  /**
   * Its inputs in order
   *
   * @minItems 1
   */
  inputs: [Tensor, ...Tensor[]];
  /**
   * Its outputs in order
   *
   * @minItems 1
   */
  outputs: [Tensor, ...Tensor[]];
}
/**
 * Its features compared with the reference's
 */
export interface ClipParity {
  /**
   * Smallest cosine similarity of a text's features
   */
  min_text_cosine: number;
  /**
   * Smallest cosine similarity of an image's features
   */
  min_image_cosine: number;
  /**
   * Largest absolute difference of a similarity of text and image
   */
  max_score_difference: number;
  /**
   * Number of texts compared
   */
  num_texts: number;
  /**
   * Number of images compared
   */
  num_images: number;
  /**
   * Smallest cosine similarity that is accepted
   */
  gate: number;
  /**
   * Whether both reach it
   */
  passed: boolean;
  /**
   * Where it was measured
   */
  device?: string;
}
