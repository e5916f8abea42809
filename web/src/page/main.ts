import { type MaskRecord, type Prompt, reason, rle, type Size } from "../runtime/index.ts";
import { duration, element, hideError, showBusy, showError, showStatus } from "./dom.ts";
import { type CocoMask, coco, cutOutPng, maskPng, save } from "./downloads.ts";
import { Engine } from "./engine.ts";
import { labelLayer, labelMap, maskLayer, thumbnail } from "./layers.ts";
import { newestOnly } from "./newest.ts";
import { type Picture, pixelsOf, readPicture } from "./picture.ts";
import type { DecodedMasks, Started } from "./protocol.ts";
import { type Config, encodeOnServer, readConfig, readSample } from "./server.ts";
import { around, type Box, type Point, Stage } from "./stage.ts";

/** Points and a box: what undo goes back over. */
interface Prompts {
  readonly points: readonly { readonly at: Point; readonly label: number }[];
  readonly box: Box | null;
}

interface Everything {
  readonly records: MaskRecord[];
  readonly labels: Uint16Array;
  readonly milliseconds: number;
  selected: number | null;
}

type Job =
  | { readonly kind: "commit"; readonly picture: Picture; readonly prompts: Prompts }
  | { readonly kind: "hover"; readonly picture: Picture; readonly at: Point };

const BASE = new URL("./", document.baseURI);
const NOTHING: Prompts = { points: [], box: null };
// Models with larger encoders are left to the server where there is one.
const ENCODER_FOR_PAGES = 40_000_000;
const HINT = "Click on a thing, or drag a box around it.";

const engine = new Engine();
const query = new URLSearchParams(location.search);

let config: Config;
let started: Promise<Started>;
let picture: Picture | null = null;
let isEncoded = false;
let history: Prompts[] = [NOTHING];
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

/** Load the model that the settings ask for; what was encoded is encoded again. */
function start(): void {
  setState("loading");
  isEncoded = false;
  forgetMasks();
  showBusy("Loading the model…");
  const variant = element<HTMLSelectElement>("variant").value;
  const backend = element<HTMLSelectElement>("backend").value as "auto";
  const bundle = new URL("bundle/", BASE).href;
  const threads = Number(query.get("threads") ?? 0);
  started = engine.call("start", [{ bundle, variant, backend, threads }], {
    report: (what) => showBusy(String(what)),
  });
  started.then(showStarted, (error) => {
    showBusy(null);
    setState("error");
    showStatus("status-backend", "", "no model");
    showError(reason(error), start);
  });
}

function showStarted({ device, threads, measured, notes, model }: Started): void {
  element("model").textContent = model;
  element("model").hidden = false;
  showStatus("status-backend", "", device === "webgpu" ? "WebGPU" : "WebAssembly");
  showStatus("status-threads", "threads", String(threads));
  const times = Object.entries(measured).map(([name, ms]) => `${name} ${duration(ms)} a decode`);
  if (!crossOriginIsolated) notes.push("one thread, since this server does not isolate the page");
  element("measured").textContent = [`Measured at start: ${times.join(", ")}`, ...notes]
    .join("; ")
    .concat(".");
  showBusy(null);
  if (picture === null) setState("empty");
  else void encode(picture);
}

// ---- pictures

/** Show a picture and encode it. What cannot be read leaves the one before. */
async function open(blob: Blob, name: string): Promise<void> {
  hideError();
  try {
    const opened = await readPicture(blob, name, config);
    await engine.call("cancel", []);
    picture = opened;
    isEncoded = false;
    history = [NOTHING];
    cursor = corner = null;
    forgetMasks();
    element("empty").hidden = true;
    stage.canvas.hidden = false;
    show();
    stage.canvas.focus({ preventScroll: true });
    element("stage").scrollIntoView({ block: "nearest" });
    await encode(opened);
  } catch (error) {
    showError(reason(error));
  }
}

function forgetMasks(): void {
  decoded = preview = everything = layer = null;
  show();
}

async function encode(one: Picture): Promise<void> {
  const model = await started.catch(() => null);
  if (model === null || picture !== one) return;
  setState("encoding");
  showBusy("Reading the picture…");
  const where = encodedBy(model);
  const start = performance.now();
  try {
    if (where === "server") {
      const bytes = await encodeOnServer(BASE, one.blob, config);
      if (picture !== one) return;
      const { size } = await engine.call("useEmbedding", [bytes], { transfer: [bytes.buffer] });
      if (size[0] !== one.height || size[1] !== one.width)
        throw new Error(
          `the server sees ${size[1]} × ${size[0]} pixels and this browser ${one.width} × ${one.height}; ` +
            "save the picture anew, or encode it in this page",
        );
    } else {
      const { data, width, height } = pixelsOf(one);
      await engine.call("encode", [{ data, width, height }], { transfer: [data.buffer] });
    }
  } catch (error) {
    if (picture !== one) return;
    showBusy(null);
    setState("error");
    showError(reason(error), () => void encode(one));
    return;
  }
  if (picture !== one) return;
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

function encodedBy({ encoderBytes }: Started): "server" | "page" {
  if (config.encode !== "both") return config.encode;
  const asked = element<HTMLSelectElement>("encode").value;
  if (asked === "page" || asked === "server") return asked;
  return encoderBytes > ENCODER_FOR_PAGES ? "server" : "page";
}

// ---- prompts

const submit = newestOnly<Job>(decode, (job) => job.kind === "commit");

async function decode(job: Job): Promise<void> {
  const isCurrent = () => job.picture === picture && isEncoded && everything === null;
  if (!isCurrent() || (job.kind === "hover" && hovered === null)) return;
  const prompt = job.kind === "commit" ? asPrompt(job.prompts) : { points: [job.at] };
  try {
    const found = await engine.call("decode", [prompt, stage.size, job.kind === "commit" ? "all" : "best"]);
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
    showError(reason(error));
  }
}

function asPrompt({ points, box }: Prompts): Prompt {
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
  if (picture === null || !isEncoded) return;
  history.push(next);
  commitCurrent();
}

/** Ask for the masks of the prompts as they are now. */
function commitCurrent(): void {
  preview = null;
  if (isEmpty(prompts())) forgetMasks();
  else if (picture !== null) {
    setState("decoding");
    void submit({ kind: "commit", picture, prompts: prompts() });
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
  history = [NOTHING];
  forgetMasks();
}

function hover(at: Point | null): void {
  hovered = at;
  if (picture === null || !isEncoded || everything || !isEmpty(prompts())) return;
  if (at !== null) void submit({ kind: "hover", picture, at });
  else if (preview !== null) forgetMasks();
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
  if (picture === null || !isEncoded) return;
  const one = picture;
  setState("everything-running");
  showBusy("Looking for everything…", 0, true);
  try {
    const { records, milliseconds } = await engine.call(
      "everything",
      [Number(element<HTMLSelectElement>("grid").value)],
      { report: (share) => showBusy("Looking for everything…", Number(share), true) },
    );
    if (picture !== one) return;
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
    if (picture === one) setState("ready");
    showError(reason(error));
  } finally {
    if (picture === one) showBusy(null);
    show();
  }
}

function leaveEverything(): void {
  everything = null;
  history = [NOTHING];
  setState("ready");
  forgetMasks();
}

function select([x, y]: Point): void {
  if (everything === null || picture === null) return;
  const label = everything.labels[y * picture.width + x];
  everything.selected = label === 0 || everything.selected === label - 1 ? null : label - 1;
  drawEverything();
}

function drawEverything(): void {
  if (everything === null || picture === null) return;
  layer = labelLayer(everything.labels, [picture.height, picture.width], stage.size, everything.selected);
  show();
}

// ---- downloads

/** The mask that is shown, at the picture's own size. */
async function fullMask(): Promise<{ mask: Uint8Array; size: Size; score: number } | null> {
  if (picture === null) return null;
  const size: Size = [picture.height, picture.width];
  if (everything) {
    const record = everything.records[everything.selected ?? -1];
    return record ? { mask: rle.decode(record.segmentation), size, score: record.predicted_iou } : null;
  }
  if (decoded === null) return null;
  const found = await engine.call("decode", [asPrompt(prompts()), null, chosen]);
  const mask = found.masks[chosen];
  return mask && { mask, size, score: found.scores[chosen] };
}

async function download(kind: "mask" | "cut-out" | "coco"): Promise<void> {
  try {
    if (picture === null) return;
    const stem = picture.name.replace(/\.[^.]*$/, "");
    if (kind === "coco" && everything)
      return save(coco(picture, everything.records), `${stem}-everything.json`);
    const full = await fullMask();
    if (full === null) return;
    const { mask, size, score } = full;
    if (kind === "mask") return save(await maskPng(mask, size), `${stem}-mask.png`);
    const segmentation = rle.encode(mask, size);
    const area = rle.area(segmentation);
    if (kind === "cut-out") {
      if (area === 0) throw new Error("the mask is empty: there is nothing to cut out; choose another mask");
      return save(await cutOutPng(picture, mask, size), `${stem}-cut-out.png`);
    }
    const points = prompts().points.map(({ at }) => at);
    const one: CocoMask = {
      segmentation,
      bbox: rle.bbox(mask, size),
      area,
      predicted_iou: score,
      ...(points.length ? { point_coords: points } : {}),
    };
    save(coco(picture, [one]), `${stem}-mask.json`);
  } catch (error) {
    showError(reason(error));
  }
}

// ---- what is shown

function show(): void {
  const now = prompts();
  if (picture !== null)
    stage.show({
      bitmap: picture.bitmap,
      points: everything ? [] : now.points,
      box: everything ? null : (now.box ?? (corner && cursor && around(corner, cursor))),
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

let shown: unknown;

function showCandidates(): void {
  const of = everything ?? decoded;
  const key = `${of === null}${everything?.selected}${chosen}`;
  const list = element("candidates");
  if (of === shown && list.dataset.key === key) return;
  shown = of;
  list.dataset.key = key;
  const result = element("result");
  if (everything) {
    const { records, selected, milliseconds } = everything;
    list.replaceChildren(nothing(`${records.length} masks in ${duration(milliseconds)}`));
    const record = records[selected ?? -1];
    result.textContent = record
      ? `Mask ${(selected ?? 0) + 1}: score ${record.predicted_iou.toFixed(2)}, ${record.area} pixels.`
      : records.length
        ? ""
        : "None passed the model's thresholds; try more points in the settings.";
    return;
  }
  if (decoded === null || picture === null) {
    list.replaceChildren(nothing("The model's candidates come here, with its score for each."));
    result.textContent = "";
    return;
  }
  const { scores, masks, size } = decoded;
  const { bitmap } = picture;
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

function nothing(text: string): HTMLElement {
  const none = document.createElement("p");
  none.className = "none";
  none.textContent = text;
  return none;
}

// ---- keys

function moveCursor(dx: number, dy: number, far: boolean): void {
  if (picture === null) return;
  const { width, height } = picture;
  const step = Math.max(1, Math.round((Math.max(width, height) / 100) * (far ? 6 : 1)));
  const [x, y] = cursor ?? [Math.floor(width / 2), Math.floor(height / 2)];
  const within = (at: number, side: number) => Math.min(Math.max(at, 0), side - 1);
  cursor = [within(x + dx * step, width), within(y + dy * step, height)];
  show();
  hover(cursor);
}

function atCursor(act: (at: Point) => void): void {
  if (cursor === null) moveCursor(0, 0, false);
  if (cursor !== null) act(cursor);
}

function boxCorner(at: Point): void {
  if (corner === null) corner = at;
  else {
    const box = around(corner, at);
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
  Enter: () => atCursor((at) => (everything ? select(at) : addPoint(at, 1))),
  Delete: () => atCursor((at) => !everything && addPoint(at, 0)),
  Backspace: () => atCursor((at) => !everything && addPoint(at, 0)),
  Escape: reset,
  b: () => atCursor((at) => !everything && boxCorner(at)),
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
  if (act === undefined || (picture === null && key !== "o")) return;
  event.preventDefault();
  act(event);
});

// ---- buttons, files

const on = (id: string, act: () => void) => element(id).addEventListener("click", act);
const setMode = (removes: boolean) => () => {
  clickRemoves = removes;
  show();
};
on("add", setMode(false));
on("remove", setMode(true));
on("undo", undo);
on("reset", reset);
on("everything", () => void toggleEverything());
on("stop", () => void engine.call("cancel", []));
on("save-mask", () => void download("mask"));
on("save-cut", () => void download("cut-out"));
on("save-coco", () => void download("coco"));
on("open", () => element("file").click());
on("choose", () => element("file").click());
on("alert-close", hideError);
for (const id of ["variant", "backend"]) element(id).addEventListener("change", start);
element("encode").addEventListener("change", () => {
  if (picture !== null) void encode(picture);
});

const input = element<HTMLInputElement>("file");
input.addEventListener("change", () => {
  const file = input.files?.[0];
  if (file) void open(file, file.name);
  input.value = "";
});

function given(data: DataTransfer | null): void {
  const file = data?.files[0];
  if (file) void open(file, file.name);
  else showError("that is no picture; give a file: JPEG, PNG, WebP or the like");
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
  given(event.dataTransfer);
});
document.addEventListener("paste", (event) => given(event.clipboardData));

// ---- beginning

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
  const image = document.createElement("img");
  image.src = new URL(path, BASE).href;
  image.alt = "";
  button.append(image);
  button.onclick = async () => {
    try {
      await open(await readSample(BASE, path), path.split("/").at(-1) ?? name);
    } catch (error) {
      showError(reason(error), () => button.click());
    }
  };
  return button;
}

async function begin(): Promise<void> {
  try {
    config = await readConfig(BASE);
  } catch (error) {
    setState("error");
    showError(reason(error), () => void begin());
    return;
  }
  const choices = config.variants.map((id) => new Option(id, id));
  element("variant").replaceChildren(...choices);
  const asked = { variant: query.get("variant"), backend: query.get("backend"), encode: query.get("encode") };
  for (const [id, value] of Object.entries(asked)) {
    const select = element<HTMLSelectElement>(id);
    if (value !== null && [...select.options].some((option) => option.value === value)) select.value = value;
  }
  element<HTMLSelectElement>("encode").disabled = config.encode !== "both";
  showSamples();
  show();
  start();
}

void begin();
