import { errorMessage, type MaskRecord, type Prompt, rle, type Size } from "../runtime/index.ts";
import { coalescingQueue } from "./coalescing-queue.ts";
import { duration, element, hideError, showBusy, showError, showStatus } from "./dom.ts";
import { type CocoMask, coco, cutOutPng, maskPng, save } from "./downloads.ts";
import { type LoadedImage, pixelsOf, readImage } from "./image-file.ts";
import { labelLayer, labelMap, maskLayer, thumbnail } from "./layers.ts";
import type { DecodedMasks, LoadedModel } from "./protocol.ts";
import { type Config, encodeOnServer, readConfig, readSample } from "./server.ts";
import { type Box, boxBetween, type Point, Stage } from "./stage.ts";
import { WorkerClient } from "./worker-client.ts";

/** Points and a box of one prompt; undo steps back through these. */
interface Prompts {
  readonly points: readonly { readonly at: Point; readonly label: number }[];
  readonly box: Box | null;
}

/** Result of segmenting everything. */
interface Everything {
  readonly records: MaskRecord[];
  readonly labels: Uint16Array;
  readonly milliseconds: number;
  selected: number | null;
}

/** A decode to run: for the current prompts, or for a preview under the pointer. */
type Job =
  | { readonly kind: "commit"; readonly image: LoadedImage; readonly prompts: Prompts }
  | { readonly kind: "hover"; readonly image: LoadedImage; readonly at: Point };

const BASE = new URL("./", document.baseURI);
const NO_PROMPTS: Prompts = { points: [], box: null };
// Images are encoded on the server, if possible, when the encoder is larger.
const MAX_PAGE_ENCODER_BYTES = 40_000_000;
const HINT = "Click on an object, or drag a box around it.";

const worker = new WorkerClient();
const query = new URLSearchParams(location.search);

let config: Config;
let started: Promise<LoadedModel>;
let image: LoadedImage | null = null;
let isEncoded = false;
let history: Prompts[] = [NO_PROMPTS];
let decoded: DecodedMasks | null = null;
let chosen = 0;
let preview: DecodedMasks | null = null;
let everything: Everything | null = null;
let cursor: Point | null = null;
let corner: Point | null = null;
let hovered: Point | null = null;
let layer: OffscreenCanvas | null = null;
let clickRemoves = false;

const prompts = () => history[history.length - 1];
const isEmpty = ({ points, box }: Prompts) => points.length === 0 && box === null;

const stage = new Stage(
  element<HTMLCanvasElement>("view"),
  {
    click(at, removes) {
      cursor = null;
      if (everything) select(at);
      else addPoint(at, removes || clickRemoves ? 0 : 1);
    },
    box(box) {
      cursor = null;
      if (everything === null) commit({ ...prompts(), box });
    },
    hover(at) {
      if (cursor === null || at !== null) hover(at);
    },
  },
  () => {
    if (everything) drawEverything();
    else if (!isEmpty(prompts())) commitCurrent();
  },
);

// ---- the model

function setState(state: string): void {
  document.documentElement.dataset.state = state;
}

/** Loads the model chosen in the settings, then encodes the current image again. */
function start(): void {
  setState("loading");
  isEncoded = false;
  clearMasks();
  showBusy("Loading the model…");
  const variant = element<HTMLSelectElement>("variant").value;
  const backend = element<HTMLSelectElement>("backend").value as "auto";
  const bundle = new URL("bundle/", BASE).href;
  const threads = Number(query.get("threads") ?? 0);
  started = worker.call("loadModel", [{ bundle, variant, backend, threads }], {
    report: (what) => showBusy(String(what)),
  });
  started.then(showStarted, (error) => {
    showBusy(null);
    setState("error");
    showStatus("status-backend", "", "no model");
    showError(errorMessage(error), start);
  });
}

function showStarted({ device, threads, measured, notes, name }: LoadedModel): void {
  element("model").textContent = name;
  element("model").hidden = false;
  showStatus("status-backend", "", device === "webgpu" ? "WebGPU" : "WebAssembly");
  showStatus("status-threads", "threads", String(threads));
  const times = Object.entries(measured).map(([device, ms]) => `${device} ${duration(ms)} a decode`);
  if (!crossOriginIsolated) notes.push("one thread, because the page is not cross-origin isolated");
  element("measured").textContent = [`Measured at start: ${times.join(", ")}`, ...notes]
    .join("; ")
    .concat(".");
  showBusy(null);
  if (image === null) setState("empty");
  else void encode(image);
}

// ---- images

/** Reads, shows and encodes an image. If it cannot be read, the previous image stays. */
async function open(blob: Blob, name: string): Promise<void> {
  hideError();
  try {
    const opened = await readImage(blob, name, config);
    await worker.call("cancel", []);
    image = opened;
    isEncoded = false;
    history = [NO_PROMPTS];
    cursor = corner = null;
    clearMasks();
    element("empty").hidden = true;
    stage.canvas.hidden = false;
    show();
    stage.canvas.focus({ preventScroll: true });
    element("stage").scrollIntoView({ block: "nearest" });
    await encode(opened);
  } catch (error) {
    showError(errorMessage(error));
  }
}

function clearMasks(): void {
  decoded = preview = everything = layer = null;
  show();
}

async function encode(one: LoadedImage): Promise<void> {
  const model = await started.catch(() => null);
  if (model === null || image !== one) return;
  setState("encoding");
  showBusy("Reading the picture…");
  const where = chooseEncoder(model);
  const start = performance.now();
  try {
    if (where === "server") {
      const bytes = await encodeOnServer(BASE, one.blob, config);
      if (image !== one) return;
      const { size } = await worker.call("useEmbedding", [bytes], { transfer: [bytes.buffer] });
      if (size[0] !== one.height || size[1] !== one.width)
        throw new Error(
          `the server reads ${size[1]} × ${size[0]} pixels and this browser ${one.width} × ${one.height}; ` +
            "save the picture again with another program, or encode it in this page",
        );
    } else {
      const { data, width, height } = pixelsOf(one);
      await worker.call("encode", [{ data, width, height }], { transfer: [data.buffer] });
    }
  } catch (error) {
    if (image !== one) return;
    showBusy(null);
    setState("error");
    showError(errorMessage(error), () => void encode(one));
    return;
  }
  if (image !== one) return;
  showStatus(
    "status-encode",
    where === "server" ? "encoded by the server" : "encoded",
    duration(performance.now() - start),
  );
  showBusy(null);
  isEncoded = true;
  setState("ready");
  show();
  if (!isEmpty(prompts())) commitCurrent();
}

function chooseEncoder({ encoderBytes }: LoadedModel): "server" | "page" {
  if (config.encode !== "both") return config.encode;
  const requested = element<HTMLSelectElement>("encode").value;
  if (requested === "page" || requested === "server") return requested;
  return encoderBytes > MAX_PAGE_ENCODER_BYTES ? "server" : "page";
}

// ---- prompts

const submit = coalescingQueue<Job>(decode, (job) => job.kind === "commit");

async function decode(job: Job): Promise<void> {
  const isCurrent = () => job.image === image && isEncoded && everything === null;
  if (!isCurrent() || (job.kind === "hover" && hovered === null)) return;
  const prompt = job.kind === "commit" ? toPrompt(job.prompts) : { points: [job.at] };
  try {
    const found = await worker.call("decode", [prompt, stage.size, job.kind === "commit" ? "all" : "best"]);
    if (!isCurrent()) return;
    showStatus("status-decode", "decoded", duration(found.milliseconds));
    if (job.kind === "commit" && job.prompts === prompts()) {
      decoded = found;
      chosen = found.best;
      setState("ready");
      showCandidates();
      drawChosen();
    } else if (job.kind === "hover" && hovered !== null && isEmpty(prompts())) {
      preview = found;
      const mask = found.masks[found.best];
      layer = mask && maskLayer(mask, found.size, 0.8);
      show();
    }
  } catch (error) {
    showError(errorMessage(error));
  }
}

function toPrompt({ points, box }: Prompts): Prompt {
  return {
    points: points.map(({ at }) => at),
    labels: points.map(({ label }) => label),
    ...(box === null ? {} : { box }),
  };
}

function addPoint(at: Point, label: number): void {
  commit({ ...prompts(), points: [...prompts().points, { at, label }] });
}

function commit(next: Prompts): void {
  if (image === null || !isEncoded) return;
  history.push(next);
  commitCurrent();
}

/** Decodes the current prompts. */
function commitCurrent(): void {
  preview = null;
  if (isEmpty(prompts())) clearMasks();
  else if (image !== null) {
    setState("decoding");
    void submit({ kind: "commit", image, prompts: prompts() });
  }
  show();
}

function undo(): void {
  if (everything) {
    leaveEverything();
    return;
  }
  if (history.length < 2) return;
  history.pop();
  commitCurrent();
  if (isEmpty(prompts())) setState("ready");
}

function reset(): void {
  if (everything) {
    leaveEverything();
    return;
  }
  corner = null;
  if (history.length > 1) setState("ready");
  history = [NO_PROMPTS];
  clearMasks();
}

function hover(at: Point | null): void {
  hovered = at;
  if (image === null || !isEncoded || everything || !isEmpty(prompts())) return;
  if (at !== null) void submit({ kind: "hover", image, at });
  else if (preview !== null) clearMasks();
}

function choose(index: number): void {
  if (decoded === null || index >= decoded.scores.length) return;
  chosen = index;
  showCandidates();
  drawChosen();
}

function drawChosen(): void {
  const mask = decoded?.masks[chosen];
  layer = decoded && mask ? maskLayer(mask, decoded.size) : null;
  show();
}

// ---- everything

async function toggleEverything(): Promise<void> {
  if (everything) return leaveEverything();
  if (image === null || !isEncoded) return;
  const one = image;
  setState("everything-running");
  showBusy("Looking for everything…", 0, true);
  try {
    const { records, milliseconds } = await worker.call(
      "everything",
      [Number(element<HTMLSelectElement>("grid").value)],
      { report: (share) => showBusy("Looking for everything…", Number(share), true) },
    );
    if (image !== one) return;
    decoded = preview = null;
    everything = {
      records,
      milliseconds,
      labels: labelMap(records, [one.height, one.width]),
      selected: null,
    };
    setState("everything");
    drawEverything();
  } catch (error) {
    if (image === one) setState("ready");
    showError(errorMessage(error));
  } finally {
    if (image === one) showBusy(null);
    show();
  }
}

function leaveEverything(): void {
  everything = null;
  history = [NO_PROMPTS];
  setState("ready");
  clearMasks();
}

function select([x, y]: Point): void {
  if (everything === null || image === null) return;
  const label = everything.labels[y * image.width + x];
  everything.selected = label === 0 || everything.selected === label - 1 ? null : label - 1;
  drawEverything();
}

function drawEverything(): void {
  if (everything === null || image === null) return;
  layer = labelLayer(everything.labels, [image.height, image.width], stage.size, everything.selected);
  show();
}

// ---- downloads

/** Returns the chosen mask at the image's original size; null if there is none. */
async function fullMask(): Promise<{ mask: Uint8Array; size: Size; score: number } | null> {
  if (image === null) return null;
  const size: Size = [image.height, image.width];
  if (everything) {
    const record = everything.records[everything.selected ?? -1];
    return record ? { mask: rle.decode(record.segmentation), size, score: record.predicted_iou } : null;
  }
  if (decoded === null) return null;
  const found = await worker.call("decode", [toPrompt(prompts()), null, chosen]);
  const mask = found.masks[chosen];
  return mask && { mask, size, score: found.scores[chosen] };
}

async function download(kind: "mask" | "cut-out" | "coco"): Promise<void> {
  try {
    if (image === null) return;
    const stem = image.name.replace(/\.[^.]*$/, "");
    if (kind === "coco" && everything)
      return save(coco(image, everything.records), `${stem}-everything.json`);
    const full = await fullMask();
    if (full === null) return;
    const { mask, size, score } = full;
    if (kind === "mask") return save(await maskPng(mask, size), `${stem}-mask.png`);
    const segmentation = rle.encode(mask, size);
    const area = rle.area(segmentation);
    if (kind === "cut-out") {
      if (area === 0) throw new Error("the mask is empty: there is nothing to cut out; choose another mask");
      return save(await cutOutPng(image, mask, size), `${stem}-cut-out.png`);
    }
    const points = prompts().points.map(({ at }) => at);
    const one: CocoMask = {
      segmentation,
      bbox: rle.bbox(mask, size),
      area,
      predicted_iou: score,
      ...(points.length ? { point_coords: points } : {}),
    };
    save(coco(image, [one]), `${stem}-mask.json`);
  } catch (error) {
    showError(errorMessage(error));
  }
}

// ---- rendering

function show(): void {
  const now = prompts();
  if (image !== null)
    stage.show({
      bitmap: image.bitmap,
      points: everything ? [] : now.points,
      box: everything ? null : (now.box ?? (corner && cursor && boxBetween(corner, cursor))),
      layer,
      cursor,
    });
  const enable = (id: string, can: boolean) => {
    element<HTMLButtonElement>(id).disabled = !can;
  };
  enable("undo", history.length > 1 || everything !== null);
  enable("reset", history.length > 1 || everything !== null);
  enable("everything", isEncoded);
  const hasMask = decoded !== null || (everything !== null && everything.selected !== null);
  enable("save-mask", hasMask);
  enable("save-cut", hasMask);
  enable("save-coco", decoded !== null || everything !== null);
  element("everything").setAttribute("aria-pressed", String(everything !== null));
  element("everything-text").textContent = everything ? "Back to clicking" : "Segment everything";
  element("add").setAttribute("aria-pressed", String(!clickRemoves));
  element("remove").setAttribute("aria-pressed", String(clickRemoves));
  element("hint").textContent = everything ? "Click on a mask to choose it for download." : HINT;
  showCandidates();
}

let shownResult: unknown;

function showCandidates(): void {
  const current = everything ?? decoded;
  const key = `${current === null}${everything?.selected}${chosen}`;
  const list = element("candidates");
  if (current === shownResult && list.dataset.key === key) return;
  shownResult = current;
  list.dataset.key = key;
  const result = element("result");
  if (everything) {
    const { records, selected, milliseconds } = everything;
    list.replaceChildren(placeholder(`${records.length} masks in ${duration(milliseconds)}`));
    const record = records[selected ?? -1];
    result.textContent = record
      ? `Mask ${(selected ?? 0) + 1}: score ${record.predicted_iou.toFixed(2)}, ${record.area} pixels.`
      : records.length
        ? ""
        : "None passed the model's thresholds; try more points in the settings.";
    return;
  }
  if (decoded === null || image === null) {
    list.replaceChildren(placeholder("The model's candidate masks and their scores appear here."));
    result.textContent = "";
    return;
  }
  const { scores, masks, size } = decoded;
  const { bitmap } = image;
  list.replaceChildren(
    ...scores.map((score, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(i === chosen));
      button.setAttribute("aria-label", `Mask ${i + 1}, score ${score.toFixed(2)}`);
      button.title = `Mask ${i + 1} (key ${i + 1})`;
      const canvas = document.createElement("canvas");
      const mask = masks[i];
      if (mask) thumbnail(canvas, bitmap, maskLayer(mask, size));
      const line = document.createElement("span");
      line.className = "score";
      const bar = document.createElement("i");
      bar.style.setProperty("--share", `${Math.round(Math.min(Math.max(score, 0), 1) * 100)}%`);
      line.append(bar, score.toFixed(2));
      button.append(canvas, line);
      button.onclick = () => choose(i);
      return button;
    }),
  );
  const mask = masks[chosen];
  const share = mask ? mask.reduce((sum, pixel) => sum + pixel, 0) / mask.length : 0;
  result.textContent =
    `Mask ${chosen + 1} of ${scores.length}: score ${scores[chosen].toFixed(2)}, ` +
    `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} % of the picture.`;
}

function placeholder(text: string): HTMLElement {
  const paragraph = document.createElement("p");
  paragraph.className = "none";
  paragraph.textContent = text;
  return paragraph;
}

// ---- keys

function moveCursor(dx: number, dy: number, far: boolean): void {
  if (image === null) return;
  const { width, height } = image;
  const step = Math.max(1, Math.round((Math.max(width, height) / 100) * (far ? 6 : 1)));
  const [x, y] = cursor ?? [Math.floor(width / 2), Math.floor(height / 2)];
  const within = (at: number, side: number) => Math.min(Math.max(at, 0), side - 1);
  cursor = [within(x + dx * step, width), within(y + dy * step, height)];
  show();
  hover(cursor);
}

function withCursor(act: (at: Point) => void): void {
  if (cursor === null) moveCursor(0, 0, false);
  if (cursor !== null) act(cursor);
}

function setBoxCorner(at: Point): void {
  if (corner === null) corner = at;
  else {
    const box = boxBetween(corner, at);
    corner = null;
    commit({ ...prompts(), box });
  }
  show();
}

const KEYS: Record<string, (event: KeyboardEvent) => void> = {
  ArrowLeft: (event) => moveCursor(-1, 0, event.shiftKey),
  ArrowRight: (event) => moveCursor(1, 0, event.shiftKey),
  ArrowUp: (event) => moveCursor(0, -1, event.shiftKey),
  ArrowDown: (event) => moveCursor(0, 1, event.shiftKey),
  Enter: () => withCursor((at) => (everything ? select(at) : addPoint(at, 1))),
  Delete: () => withCursor((at) => !everything && addPoint(at, 0)),
  Backspace: () => withCursor((at) => !everything && addPoint(at, 0)),
  Escape: reset,
  b: () => withCursor((at) => !everything && setBoxCorner(at)),
  e: () => void toggleEverything(),
  z: undo,
  o: () => element("file").click(),
};

document.addEventListener("keydown", (event) => {
  const target = event.target as HTMLElement;
  const isOwn = target.closest("button, select, input, a, [popover]") !== null;
  if (isOwn || event.altKey || ((event.ctrlKey || event.metaKey) && event.key !== "z")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const act = /^[1-9]$/.test(key) ? () => choose(Number(key) - 1) : KEYS[key];
  if (act === undefined || (image === null && key !== "o")) return;
  event.preventDefault();
  act(event);
});

// ---- buttons and files

const onClick = (id: string, act: () => void) => element(id).addEventListener("click", act);
const setMode = (removes: boolean) => () => {
  clickRemoves = removes;
  show();
};
onClick("add", setMode(false));
onClick("remove", setMode(true));
onClick("undo", undo);
onClick("reset", reset);
onClick("everything", () => void toggleEverything());
onClick("stop", () => void worker.call("cancel", []));
onClick("save-mask", () => void download("mask"));
onClick("save-cut", () => void download("cut-out"));
onClick("save-coco", () => void download("coco"));
onClick("open", () => element("file").click());
onClick("choose", () => element("file").click());
onClick("alert-close", hideError);
for (const id of ["variant", "backend"]) element(id).addEventListener("change", start);
element("encode").addEventListener("change", () => {
  if (image !== null) void encode(image);
});

const input = element<HTMLInputElement>("file");
input.addEventListener("change", () => {
  const file = input.files?.[0];
  if (file) void open(file, file.name);
  input.value = "";
});

function openTransferred(data: DataTransfer | null): void {
  const file = data?.files[0];
  if (file) void open(file, file.name);
  else showError("no picture file was given; expected JPEG, PNG, WebP or another image format");
}

const drop = element("drop");
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.hidden = true;
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.hidden = true;
  openTransferred(event.dataTransfer);
});
document.addEventListener("paste", (event) => openTransferred(event.clipboardData));

// ---- start

function showSamples(): void {
  for (const [id, place] of [
    ["samples-section", "samples"],
    ["empty-samples", "empty-samples"],
  ]) {
    element(id).hidden = config.samples.length === 0;
    element(place).replaceChildren(...config.samples.map(sampleButton));
  }
}

function sampleButton({ name, path }: Config["samples"][number]): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", `Sample: ${name}`);
  button.title = name;
  const img = document.createElement("img");
  img.src = new URL(path, BASE).href;
  img.alt = "";
  button.append(img);
  button.onclick = async () => {
    try {
      await open(await readSample(BASE, path), path.split("/").at(-1) ?? name);
    } catch (error) {
      showError(errorMessage(error), () => button.click());
    }
  };
  return button;
}

async function initialize(): Promise<void> {
  try {
    config = await readConfig(BASE);
  } catch (error) {
    setState("error");
    showError(errorMessage(error), () => void initialize());
    return;
  }
  const choices = config.variants.map((id) => new Option(id, id));
  element("variant").replaceChildren(...choices);
  const requested = {
    variant: query.get("variant"),
    backend: query.get("backend"),
    encode: query.get("encode"),
  };
  for (const [id, value] of Object.entries(requested)) {
    const select = element<HTMLSelectElement>(id);
    if (value !== null && [...select.options].some((option) => option.value === value)) select.value = value;
  }
  element<HTMLSelectElement>("encode").disabled = config.encode !== "both";
  showSamples();
  show();
  start();
}

void initialize();
