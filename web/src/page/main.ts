/** Starts the page: connects its controls, reads the server's configuration and loads the model. */

import { errorMessage } from "../runtime/index.ts";
import { element, hideError, setPageState, showError } from "./dom.ts";
import { download } from "./download.ts";
import { drawEverything, selectMask, toggleEverything } from "./everything-mode.ts";
import { listenForFiles } from "./file-input.ts";
import { listenForKeys } from "./keyboard.ts";
import { loadModel } from "./model.ts";
import { encodeImage } from "./open-image.ts";
import { addPoint, chooseCandidate, decodePrompts, preview, reset, setBox, undo } from "./prompting.ts";
import { showSamples } from "./samples.ts";
import { type Config, readConfig } from "./server.ts";
import { currentPrompts, isEmpty, state } from "./state.ts";
import { show, stage } from "./view.ts";
import { worker } from "./worker-client.ts";

function listenToStage(): void {
  stage.listen({
    click(at, removes) {
      state.cursor = null;
      if (state.everything) selectMask(at);
      else addPoint(at, removes || state.clickRemoves ? 0 : 1);
    },
    box(box) {
      state.cursor = null;
      if (state.everything === null) setBox(box);
    },
    hover(at) {
      if (state.cursor === null || at !== null) preview(at);
    },
    resize() {
      if (state.everything) drawEverything();
      else if (!isEmpty(currentPrompts())) decodePrompts();
    },
  });
}

function listenToButtons(): void {
  const setClickRemoves = (clickRemoves: boolean) => {
    state.clickRemoves = clickRemoves;
    show();
  };
  const actions: Record<string, () => void> = {
    add: () => setClickRemoves(false),
    remove: () => setClickRemoves(true),
    undo,
    reset,
    everything: () => void toggleEverything(),
    stop: () => void worker.call("cancel", []),
    "save-mask": () => void download("mask"),
    "save-cut": () => void download("cut-out"),
    "save-coco": () => void download("coco"),
    "alert-close": hideError,
  };
  for (const [id, act] of Object.entries(actions)) element(id).addEventListener("click", () => act());
  element("candidates").addEventListener("click", ({ target }) => {
    const button = (target as Element).closest("button");
    if (button !== null) chooseCandidate(Number(button.dataset.index));
  });
}

function listenToSettings(): void {
  for (const id of ["variant", "backend"]) element(id).addEventListener("change", loadModel);
  element("encode").addEventListener("change", () => {
    if (state.image !== null) void encodeImage(state.image);
  });
}

/** Shows the settings that the server offers, with those of the page's address selected. */
function showSettings({ variants, encode }: Config): void {
  element("variant").replaceChildren(...variants.map((id) => new Option(id, id)));
  const query = new URLSearchParams(location.search);
  for (const id of ["variant", "backend", "encode"]) {
    const select = element<HTMLSelectElement>(id);
    const requested = query.get(id);
    if ([...select.options].some(({ value }) => value === requested)) select.value = requested ?? "";
  }
  element<HTMLSelectElement>("encode").disabled = encode !== "both";
}

async function initialize(): Promise<void> {
  let config: Config;
  try {
    config = await readConfig();
  } catch (error) {
    setPageState("error");
    showError(errorMessage(error), () => void initialize());
    return;
  }
  state.config = config;
  showSettings(config);
  showSamples(config.samples);
  show();
  loadModel();
}

listenToStage();
listenToButtons();
listenToSettings();
listenForKeys();
listenForFiles();
void initialize();
