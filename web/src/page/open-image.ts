/** Opens an image, and encodes it in the page or on the server. */

import { errorMessage } from "../runtime/index.ts";
import { duration, element, hideError, setPageState, showBusy, showError, showStatus } from "./dom.ts";
import { type LoadedImage, pixelsOf, readImage } from "./image-file.ts";
import { decodePrompts } from "./prompting.ts";
import type { LoadedModel } from "./protocol.ts";
import { encodeOnServer } from "./server.ts";
import { currentPrompts, isEmpty, NO_PROMPTS, requireConfig, state } from "./state.ts";
import { clearMasks, show, stage } from "./view.ts";
import { worker } from "./worker-client.ts";

// If the user does not choose, larger encoders run on the server.
const MAX_PAGE_ENCODER_BYTES = 40_000_000;

/** Reads, shows and encodes an image. If it cannot be read, the previous image stays. */
export async function openImage(blob: Blob, name: string): Promise<void> {
  hideError();
  try {
    const image = await readImage(blob, name, requireConfig());
    await worker.call("cancel", []);
    state.image = image;
    state.isEncoded = false;
    state.history = [NO_PROMPTS];
    state.cursor = state.boxCorner = null;
    clearMasks();
    element("empty").hidden = true;
    stage.canvas.hidden = false;
    show();
    stage.canvas.focus({ preventScroll: true });
    element("stage").scrollIntoView({ block: "nearest" });
    await encodeImage(image);
  } catch (error) {
    showError(errorMessage(error));
  }
}

/**
 * Encodes the image, then decodes the current prompts. While the model loads, does nothing: model.ts encodes the
 * image after that.
 */
export async function encodeImage(image: LoadedImage): Promise<void> {
  const { model } = state;
  if (model === null || state.image !== image) return;
  const isCurrent = () => state.image === image && state.model === model;
  setPageState("encoding");
  showBusy("Reading the picture…");
  const place = chooseEncoder(model);
  const start = performance.now();
  try {
    await (place === "server" ? sendToServer(image) : encodeInPage(image));
  } catch (error) {
    if (!isCurrent()) return;
    showBusy(null);
    setPageState("error");
    showError(errorMessage(error), () => void encodeImage(image));
    return;
  }
  if (!isCurrent()) return;
  const label = place === "server" ? "encoded by the server" : "encoded";
  showStatus("status-encode", label, duration(performance.now() - start));
  showBusy(null);
  state.isEncoded = true;
  setPageState("ready");
  show();
  if (!isEmpty(currentPrompts())) decodePrompts();
}

function chooseEncoder({ encoderBytes }: LoadedModel): "server" | "page" {
  const { encode } = requireConfig();
  if (encode !== "both") return encode;
  const requested = element<HTMLSelectElement>("encode").value;
  if (requested === "page" || requested === "server") return requested;
  return encoderBytes > MAX_PAGE_ENCODER_BYTES ? "server" : "page";
}

async function sendToServer(image: LoadedImage): Promise<void> {
  const bytes = await encodeOnServer(image.blob, requireConfig());
  if (state.image !== image) return;
  const { size } = await worker.call("useEmbedding", [bytes], { transfer: [bytes.buffer] });
  if (size[0] !== image.height || size[1] !== image.width)
    throw new Error(
      `the server reads ${size[1]} × ${size[0]} pixels and this browser ${image.width} × ${image.height}; ` +
        "save the picture again with another program, or encode it in this page",
    );
}

async function encodeInPage(image: LoadedImage): Promise<void> {
  const { data, width, height } = pixelsOf(image);
  await worker.call("encode", [{ data, width, height }], { transfer: [data.buffer] });
}
