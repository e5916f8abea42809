/** The samples: photographs that come with the server. */

import { errorMessage } from "../runtime/index.ts";
import { element, showError } from "./dom.ts";
import { openImage } from "./open-image.ts";
import { type Config, readSample, serverUrl } from "./server.ts";

/** Shows a button for each sample, in the panel and on the empty page. */
export function showSamples(samples: Config["samples"]): void {
  for (const [section, list] of [
    ["samples-section", "samples"],
    ["empty-samples", "empty-samples"],
  ]) {
    element(section).hidden = samples.length === 0;
    element(list).replaceChildren(...samples.map(sampleButton));
  }
}

function sampleButton({ name, path }: Config["samples"][number]): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", `Sample: ${name}`);
  button.title = name;
  const thumbnail = document.createElement("img");
  thumbnail.src = serverUrl(path).href;
  thumbnail.alt = "";
  button.append(thumbnail);
  button.onclick = async () => {
    try {
      await openImage(await readSample(path), path.split("/").at(-1) ?? name);
    } catch (error) {
      showError(errorMessage(error), () => button.click());
    }
  };
  return button;
}
