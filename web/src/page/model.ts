/** Loads the model, and shows how it runs. */

import { errorMessage } from "../runtime/index.ts";
import { duration, element, setPageState, showBusy, showError, showStatus } from "./dom.ts";
import { encodeImage } from "./open-image.ts";
import type { LoadedModel } from "./protocol.ts";
import { serverUrl } from "./server.ts";
import { state } from "./state.ts";
import { clearMasks } from "./view.ts";
import { worker } from "./worker-client.ts";

/** Loads the model chosen in the settings, then encodes the current image again. */
export function loadModel(): void {
  setPageState("loading");
  state.model = null;
  state.isEncoded = false;
  clearMasks();
  showBusy("Loading the model…");
  const options = {
    bundle: serverUrl("bundle/").href,
    variant: element<HTMLSelectElement>("variant").value,
    backend: element<HTMLSelectElement>("backend").value as "auto",
    threads: Number(new URLSearchParams(location.search).get("threads") ?? 0),
  };
  const report = (progress: string | number) => showBusy(String(progress));
  worker.call("loadModel", [options], { report }).then(onModelLoaded, (error) => {
    showBusy(null);
    setPageState("error");
    showStatus("status-backend", "", "no model");
    showError(errorMessage(error), loadModel);
  });
}

function onModelLoaded(model: LoadedModel): void {
  const { device, threads, measured, notes, name } = model;
  state.model = model;
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
  if (state.image === null) setPageState("empty");
  else void encodeImage(state.image);
}
