/** The canvas that shows the image, prompts and masks, and its pointer events. */

import type { Size } from "../runtime/index.ts";

/** A pixel of the image. */
export type Point = readonly [x: number, y: number];
/** Corners in pixels of the image; x1 and y1 are excluded. */
export type Box = readonly [x0: number, y0: number, x1: number, y1: number];

/** What the canvas shows. */
export interface Scene {
  readonly bitmap: ImageBitmap;
  readonly points: readonly { readonly at: Point; readonly label: number }[];
  readonly box: Box | null;
  /** Drawn over the whole image, scaled to its size. */
  readonly layer: OffscreenCanvas | null;
  /** Position of the keyboard cursor. */
  readonly cursor: Point | null;
}

/** Callbacks for the user's input; coordinates are pixels of the image. */
export interface StageEvents {
  /** `removes`: whether the right button was clicked. */
  click(at: Point, removes: boolean): void;
  box(box: Box): void;
  /** Null if the pointer leaves the canvas. */
  hover(at: Point | null): void;
  /** The canvas has another size. */
  resize(): void;
}

// Distance in CSS pixels up to which a drag counts as a click.
const CLICK_TOLERANCE = 6;
// Largest side of the canvas in device pixels: more detail is not visible.
const MAX_CANVAS_SIDE = 2048;
// Space around the canvas in CSS pixels.
const MARGIN = 16;

/** Draws a scene on a canvas and reports clicks, boxes and hovering. */
export class Stage {
  readonly canvas: HTMLCanvasElement;
  readonly #parent: HTMLElement;
  readonly #context: CanvasRenderingContext2D;
  #scene: Scene | null = null;
  #dragged: Box | null = null;
  #scheduled = false;

  constructor(canvas: HTMLCanvasElement) {
    this.canvas = canvas;
    this.#parent = canvas.parentElement as HTMLElement;
    this.#context = canvas.getContext("2d") as CanvasRenderingContext2D;
  }

  /** Size (height, width) of the canvas in device pixels, at which masks should be rendered. */
  get size(): Size {
    return [this.canvas.height, this.canvas.width];
  }

  /** Shows a scene; the canvas is resized if the image changed. */
  show(scene: Scene): void {
    const isNewImage = scene.bitmap !== this.#scene?.bitmap;
    this.#scene = scene;
    if (isNewImage) this.#fitToParent();
    this.draw();
  }

  /** Redraws in the next animation frame. */
  draw(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      this.#paint();
    });
  }

  /** Resizes the canvas to fit its parent; returns whether its size changed. */
  #fitToParent(): boolean {
    if (this.#scene === null) return false;
    const { width, height } = this.#scene.bitmap;
    const maxWidth = this.#parent.clientWidth - 2 * MARGIN;
    const maxHeight = this.#parent.clientHeight - 2 * MARGIN;
    const scale = Math.max(Math.min(maxWidth / width, maxHeight / height), 1 / Math.max(width, height));
    const css = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
    const pixelRatio = Math.min(window.devicePixelRatio, MAX_CANVAS_SIDE / Math.max(...css));
    const device = css.map((side) => Math.max(1, Math.round(side * pixelRatio)));
    this.canvas.style.width = `${css[0]}px`;
    this.canvas.style.height = `${css[1]}px`;
    if (this.canvas.width === device[0] && this.canvas.height === device[1]) return false;
    [this.canvas.width, this.canvas.height] = device;
    this.draw();
    return true;
  }

  #paint(): void {
    if (this.#scene === null) return;
    const { bitmap, points, box, layer, cursor } = this.#scene;
    const { width, height } = this.canvas;
    const context = this.#context;
    const [sx, sy] = [width / bitmap.width, height / bitmap.height];
    // Device pixels per CSS pixel.
    const unit = width / (this.canvas.clientWidth || width);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
    if (layer !== null) context.drawImage(layer, 0, 0, width, height);
    const strokeOutlined = (path: Path2D) => {
      context.lineWidth = 4 * unit;
      context.strokeStyle = "rgb(0 0 0 / 55%)";
      context.stroke(path);
      context.lineWidth = 2 * unit;
      context.strokeStyle = "#fff";
      context.stroke(path);
    };
    for (const rectangle of [box, this.#dragged]) {
      if (rectangle === null) continue;
      const [x0, y0, x1, y1] = rectangle;
      const path = new Path2D();
      path.rect(x0 * sx, y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy);
      strokeOutlined(path);
    }
    for (const { at, label } of points) {
      const [x, y] = [(at[0] + 0.5) * sx, (at[1] + 0.5) * sy];
      const disc = new Path2D();
      disc.arc(x, y, 7 * unit, 0, 2 * Math.PI);
      context.fillStyle = label === 1 ? "#17a45b" : "#e0433a";
      context.fill(disc);
      strokeOutlined(disc);
      const plusOrMinus = new Path2D();
      plusOrMinus.moveTo(x - 3 * unit, y);
      plusOrMinus.lineTo(x + 3 * unit, y);
      if (label === 1) {
        plusOrMinus.moveTo(x, y - 3 * unit);
        plusOrMinus.lineTo(x, y + 3 * unit);
      }
      context.lineWidth = 1.8 * unit;
      context.strokeStyle = "#fff";
      context.stroke(plusOrMinus);
    }
    if (cursor !== null) {
      const [x, y] = [(cursor[0] + 0.5) * sx, (cursor[1] + 0.5) * sy];
      const cross = new Path2D();
      for (const [dx, dy] of [
        [1, 0],
        [-1, 0],
        [0, 1],
        [0, -1],
      ]) {
        cross.moveTo(x + dx * 5 * unit, y + dy * 5 * unit);
        cross.lineTo(x + dx * 15 * unit, y + dy * 15 * unit);
      }
      strokeOutlined(cross);
    }
  }

  /** Returns the image's pixel under the pointer, or the nearest one if the pointer is outside. */
  #pixelAt(event: PointerEvent): Point {
    const { bitmap } = this.#scene as Scene;
    const bounds = this.canvas.getBoundingClientRect();
    const index = (fraction: number, side: number) =>
      Math.min(Math.max(Math.floor(fraction * side), 0), side - 1);
    return [
      index((event.clientX - bounds.left) / bounds.width, bitmap.width),
      index((event.clientY - bounds.top) / bounds.height, bitmap.height),
    ];
  }

  /** Calls `events` for the user's input from now on. */
  listen(events: StageEvents): void {
    new ResizeObserver(() => {
      if (this.#fitToParent()) events.resize();
    }).observe(this.#parent);
    this.#listenToPointer(events);
  }

  #listenToPointer(events: StageEvents): void {
    const { canvas } = this;
    let down: { x: number; y: number; at: Point; removes: boolean } | null = null;
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      if (this.#scene === null || !event.isPrimary || event.button === 1) return;
      canvas.setPointerCapture(event.pointerId);
      const removes = event.button === 2 || event.ctrlKey;
      down = { x: event.clientX, y: event.clientY, at: this.#pixelAt(event), removes };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.#scene === null || !event.isPrimary) return;
      const at = this.#pixelAt(event);
      if (down === null) {
        if (event.pointerType !== "touch") events.hover(at);
        return;
      }
      const isDrag = Math.hypot(event.clientX - down.x, event.clientY - down.y) > CLICK_TOLERANCE;
      if (!down.removes && (isDrag || this.#dragged !== null)) {
        this.#dragged = boxBetween(down.at, at);
        this.draw();
      }
    });
    const end = (event: PointerEvent, cancelled: boolean) => {
      if (down === null || !event.isPrimary) return;
      const [{ at, removes }, dragged] = [down, this.#dragged];
      down = this.#dragged = null;
      this.draw();
      if (cancelled) return;
      if (dragged === null) events.click(at, removes);
      else events.box(dragged);
    };
    canvas.addEventListener("pointerup", (event) => end(event, false));
    canvas.addEventListener("pointercancel", (event) => end(event, true));
    canvas.addEventListener("pointerleave", () => events.hover(null));
  }
}

/** Returns the box that contains both pixels. */
export function boxBetween(a: Point, b: Point): Box {
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]) + 1, Math.max(a[1], b[1]) + 1];
}
