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
  hover(at: Point | null): void;
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

  constructor(canvas: HTMLCanvasElement, events: StageEvents, resized: () => void) {
    this.canvas = canvas;
    this.#parent = canvas.parentElement as HTMLElement;
    this.#context = canvas.getContext("2d") as CanvasRenderingContext2D;
    this.#listen(events);
    new ResizeObserver(() => {
      if (this.#fitToParent()) resized();
    }).observe(this.#parent);
  }

  /** Size (height, width) of the canvas in device pixels, at which masks should be rendered. */
  get size(): Size {
    return [this.canvas.height, this.canvas.width];
  }

  /** Shows a scene; the canvas is resized if the image changed. */
  show(scene: Scene): void {
    const another = scene.bitmap !== this.#scene?.bitmap;
    this.#scene = scene;
    if (another) this.#fitToParent();
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
    const room = [this.#parent.clientWidth - 2 * MARGIN, this.#parent.clientHeight - 2 * MARGIN];
    const scale = Math.max(Math.min(room[0] / width, room[1] / height), 1 / Math.max(width, height));
    const [wide, tall] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    const density = Math.min(window.devicePixelRatio, MAX_CANVAS_SIDE / Math.max(wide, tall));
    const pixels = [Math.max(1, Math.round(wide * density)), Math.max(1, Math.round(tall * density))];
    this.canvas.style.width = `${wide}px`;
    this.canvas.style.height = `${tall}px`;
    if (this.canvas.width === pixels[0] && this.canvas.height === pixels[1]) return false;
    [this.canvas.width, this.canvas.height] = pixels;
    this.draw();
    return true;
  }

  #paint(): void {
    if (this.#scene === null) return;
    const { bitmap, points, box, layer, cursor } = this.#scene;
    const { width, height } = this.canvas;
    const context = this.#context;
    const [sx, sy] = [width / bitmap.width, height / bitmap.height];
    const unit = width / (this.canvas.clientWidth || width);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
    if (layer !== null) context.drawImage(layer, 0, 0, width, height);
    const outlined = (path: Path2D, inner: string, line = 2) => {
      context.lineWidth = (line + 2) * unit;
      context.strokeStyle = "rgb(0 0 0 / 55%)";
      context.stroke(path);
      context.lineWidth = line * unit;
      context.strokeStyle = inner;
      context.stroke(path);
    };
    for (const one of [box, this.#dragged]) {
      if (one === null) continue;
      const path = new Path2D();
      path.rect(one[0] * sx, one[1] * sy, (one[2] - one[0]) * sx, (one[3] - one[1]) * sy);
      outlined(path, "#fff");
    }
    for (const { at, label } of points) {
      const [x, y] = [(at[0] + 0.5) * sx, (at[1] + 0.5) * sy];
      const disc = new Path2D();
      disc.arc(x, y, 7 * unit, 0, 2 * Math.PI);
      context.fillStyle = label === 1 ? "#17a45b" : "#e0433a";
      context.fill(disc);
      outlined(disc, "#fff");
      const sign = new Path2D();
      sign.moveTo(x - 3 * unit, y);
      sign.lineTo(x + 3 * unit, y);
      if (label === 1) {
        sign.moveTo(x, y - 3 * unit);
        sign.lineTo(x, y + 3 * unit);
      }
      context.lineWidth = 1.8 * unit;
      context.strokeStyle = "#fff";
      context.stroke(sign);
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
      outlined(cross, "#fff");
    }
  }

  /** Returns the image's pixel under the pointer, or the nearest one if the pointer is outside. */
  #pixelAt(event: PointerEvent): Point {
    const { bitmap } = this.#scene as Scene;
    const frame = this.canvas.getBoundingClientRect();
    const inside = (at: number, side: number) => Math.min(Math.max(Math.floor(at * side), 0), side - 1);
    return [
      inside((event.clientX - frame.left) / frame.width, bitmap.width),
      inside((event.clientY - frame.top) / frame.height, bitmap.height),
    ];
  }

  #listen(events: StageEvents): void {
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
      const far = Math.hypot(event.clientX - down.x, event.clientY - down.y) > CLICK_TOLERANCE;
      if (!down.removes && (far || this.#dragged !== null)) {
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
